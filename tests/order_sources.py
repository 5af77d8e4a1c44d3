"""Event logs for tests: opened for a block, and read until all is there."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Final

from ticketrush.orders.errors import SourceUnavailable
from ticketrush.orders.model import Kind
from ticketrush.orders.protocol import Message, Source

SOON_S: Final = 60.0


@contextlib.asynccontextmanager
async def reading(*sources: Source) -> AsyncIterator[None]:
    try:
        for source in sources:
            await source.open()
        yield
    finally:
        for source in sources:
            await source.close()


async def read(source: Source, count: int, *, most: int = 100) -> list[Message]:
    """Messages of `source` until there are `count` different ones, each batch done."""
    messages: list[Message] = []
    async with asyncio.timeout(SOON_S):
        while len({message.where for message in messages}) < count:
            messages += await source.next(most, 0.5)
            await source.done()
    return messages


async def rest(source: Source) -> list[Message]:
    """What is left."""
    messages: list[Message] = []
    while batch := await source.next(1_000, 0.3):
        messages += batch
        await source.done()
    return messages


async def settles(source: Source) -> int:
    """The lag, once the server can tell it."""
    async with asyncio.timeout(SOON_S):
        while True:
            with contextlib.suppress(SourceUnavailable):
                return await source.lag()
            await asyncio.sleep(0.1)


def orders(messages: Sequence[Message], kind: Kind = Kind.HELD) -> Counter[str]:
    return Counter(each.notice.order for each in messages if each.notice is not None and each.notice.kind is kind)
