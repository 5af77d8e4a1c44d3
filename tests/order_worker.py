"""An order worker for tests, and a log for it that is a list."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from ticketrush.orders.errors import SourceUnavailable
from ticketrush.orders.model import Notice
from ticketrush.orders.notices import encode
from ticketrush.orders.protocol import Message, OrderStore
from ticketrush.orders.sqlite import SqliteOrders
from ticketrush.orders.worker import OrderWorker

Store = TypeVar("Store", bound=SqliteOrders)

WITHIN_S: Final = 30.0


class ListSource:
    """A `Source` of a list of messages; a reader that begins again is told all that was not done, at least."""

    name = "list"

    def __init__(self, messages: Sequence[Message]) -> None:
        self.messages = list(messages)
        self.read = self.finished = 0
        self.is_away = False

    async def open(self) -> None: ...

    async def close(self) -> None:
        self.read = 0  # whoever reads next is told everything again

    async def next(self, most: int, wait_s: float) -> Sequence[Message]:
        self._answer()
        page = self.messages[self.read : self.read + most]
        self.read += len(page)
        await asyncio.sleep(0 if page else min(wait_s, 0.01))
        return page

    def position(self) -> tuple[str, str] | None:
        return self.name, str(self.read)

    async def done(self) -> None:
        self._answer()
        self.finished = self.read

    async def lag(self) -> int:
        self._answer()
        return len(self.messages) - self.finished

    def _answer(self) -> None:
        if self.is_away:
            raise SourceUnavailable("the list is away")


@asynccontextmanager
async def opened(store: Store) -> AsyncIterator[Store]:
    await store.migrate()
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def working(source: ListSource, store: OrderStore, batch_max: int = 2_000) -> AsyncIterator[OrderWorker]:
    """A worker that runs for as long as the block lasts, and then stops as it should."""
    worker = OrderWorker(source, store, batch_max=batch_max)
    running = asyncio.create_task(worker.run())
    try:
        yield worker
        assert not running.done()
    finally:
        worker.stop()
        await asyncio.wait_for(running, WITHIN_S)


async def until(is_so: Callable[[], bool], within_s: float = WITHIN_S) -> None:
    give_up_s = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < give_up_s
        await asyncio.sleep(0.005)


async def work_off(source: ListSource, store: OrderStore, batch_max: int = 2_000) -> OrderWorker:
    """A worker that has done all that the source has."""
    async with working(source, store, batch_max) as worker:
        await until(lambda: source.finished == len(source.messages) and worker.lag == 0)
    return worker


def messages_of(notices: Sequence[Notice]) -> list[Message]:
    return [Message(f"list/{number}", encode(each), each) for number, each in enumerate(notices)]
