"""Orders and stock in SQLite: one thread that writes, and a connection of the event loop's that reads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import apsw

from ticketrush.strategies.errors import StoreBusy
from ticketrush.strategies.statements import statements
from ticketrush.strategies.store import ITEM, WAIT_S, Books, Look, Order, OrderState

_SQL: Final = statements("sqlite.sql")
_T = TypeVar("_T")


class SqliteStore:
    """A `Store` in a file that this process alone uses.

    SQLite has one writer at a time, so one thread writes: the others wait in its queue instead of for
    the lock on the file. A reader of a WAL never waits, and what it reads is in memory: a look costs
    less than handing it to another thread would.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(1, "sqlite")
        self._looks = self._commits = 0

    async def open(self, capacity: int) -> None:
        """See `Store.open`."""
        self._writer = apsw.Connection(str(self._file))
        self._writer.transaction_mode = "IMMEDIATE"
        self._writer.set_busy_timeout(int(WAIT_S * 1_000))
        self._writer.pragma("journal_mode", "wal")
        self._writer.pragma("synchronous", "full")
        self._writer.execute(_SQL["schema"])
        self._writer.execute(_SQL["fill"], {"item": ITEM, "capacity": capacity})
        self._writer.set_commit_hook(self._on_commit)
        self._reader = apsw.Connection(str(self._file), flags=apsw.SQLITE_OPEN_READONLY)

    async def close(self) -> Books:
        """See `Store.close`."""
        self._thread.shutdown()
        paid: int = self._reader.execute(_SQL["paid"]).get
        self._reader.close()
        self._writer.close()
        return Books(paid, self._looks + self._commits)

    async def look(self, id: str) -> Look:
        """See `Store.look`."""
        self._looks += 1
        available, unpaid, state = self._reader.execute(_SQL["look"], {"item": ITEM, "id": id}).get
        return Look(available, bool(unpaid), state and OrderState(state))

    async def place(self, order: Order) -> None:
        """See `Store.place`."""
        await self._write(self._place, order)

    async def place_and_take(self, order: Order) -> bool:
        """See `Store.place_and_take`."""
        return await self._write(self._place_and_take, order)

    async def pay(self, order: Order) -> OrderState | None:
        """See `Store.pay`."""
        return await self._write(self._pay, order)

    async def pay_and_take(self, order: Order) -> OrderState | None:
        """See `Store.pay_and_take`."""
        return await self._write(self._pay_and_take, order)

    async def _write(self, work: Callable[[Order], _T], order: Order) -> _T:
        try:
            async with asyncio.timeout(WAIT_S):
                return await asyncio.get_running_loop().run_in_executor(self._thread, work, order)
        except (TimeoutError, apsw.Error) as error:
            raise StoreBusy(f"SQLite: {str(error) or 'no answer in time'}") from error

    def _on_commit(self) -> bool:
        self._commits += 1
        return False

    # --- in the thread that writes ------------------------------------------------------------

    def _place(self, order: Order) -> bool:
        """Whether it is a new one."""
        return self._change("place", order) == 1

    def _place_and_take(self, order: Order) -> bool:
        with self._writer:  # BEGIN IMMEDIATE: the lock, on the whole file instead of a row
            if not self._writer.execute(_SQL["available"], {"item": ITEM}).get:
                return False
            if self._place(order):
                taken = self._change("take", order)
                assert taken == 1
        return True

    def _pay(self, order: Order) -> OrderState | None:
        return OrderState.PAID if self._change("pay", order) else self._state(order)

    def _pay_and_take(self, order: Order) -> OrderState | None:
        with self._writer:
            if self._change("pay", order) and not self._change("take", order):
                self._change("refund", order)
            state = self._state(order)
        return state  # noqa: RET504 - mypy believes that a connection as a context swallows exceptions

    def _change(self, name: str, order: Order) -> int:
        """Run a statement; how many rows it has changed."""
        self._writer.execute(_SQL[name], {"item": ITEM, "id": order.id, "buyer": order.buyer})
        return self._writer.changes()

    def _state(self, order: Order) -> OrderState | None:
        state: str | None = self._writer.execute(_SQL["state"], {"id": order.id, "buyer": order.buyer}).get
        return OrderState(state) if state else None
