"""The order store in an SQLite file: for one machine.

WAL mode and ``synchronous=FULL``: what `put` has written survives a power cut. Several processes may have
the file open; they wait for one another, for a bounded time. Statements run in threads, one that writes
and one that reads, so the event loop never waits for the disk.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import apsw
import msgspec

from ticketrush.clock import SystemClock
from ticketrush.ledger.worker import Worker
from ticketrush.orders.errors import StoreOutdated, StoreUnavailable
from ticketrush.orders.model import PAYLOAD_MAX, DeadLetter, Notice, Order, OrderState, Repair
from ticketrush.orders.protocol import Totals
from ticketrush.orders.rows import Row, clean, order_of, parted, refusal, rows_of
from ticketrush.orders.tables import check_whole, migrations, missing, statements

APPLICATION_ID: Final = 0x5452534F
"""What the header of our files says: "TRSO"."""

BUSY_MS: Final = 5_000
"""How long another process that writes is waited for."""

ANSWER_S: Final = 30.0
"""The longest wait for the disk, with what was asked before."""

WAITING_MAX: Final = 1_000
"""Questions that may wait for the disk; more are refused at once."""

CHECKPOINT_PAGES: Final = 16_000
"""Pages (of 4 KiB) in the WAL after which a commit brings them into the file: rarely, since ids are scattered
over the whole of it."""

CACHE_KIB: Final = 64 << 10

NUMBER_MAX: Final = (1 << 63) - 1

_SQL: Final = statements("sqlite")
_MIGRATIONS: Final = migrations("sqlite")

_P = ParamSpec("_P")
_R = TypeVar("_R")


class SqliteOrders:
    """An `OrderStore` in a file."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._url = f"sqlite:///{self._path}"
        self._writer = _Desk("ticketrush-orders")
        self._reader = _Desk("ticketrush-orders-reader")

    async def open(self) -> None:
        """See `OrderStore.open`. The file must be there: `migrate` makes it."""
        try:
            for desk in (self._writer, self._reader):
                await desk.open(self._connect)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See `OrderStore.close`."""
        for desk in (self._reader, self._writer):
            await desk.close()

    async def pending(self) -> list[str]:
        """See `OrderStore.pending`."""
        return await self._writer.alone(self._pending)

    async def migrate(self) -> list[str]:
        """See `OrderStore.migrate`. Makes the file if there is none."""
        return await self._writer.alone(self._migrate)

    async def put(
        self,
        notices: Sequence[Notice],
        *,
        dead: Sequence[DeadLetter] = (),
        repairs: Sequence[Repair] = (),
        position: tuple[str, str] | None = None,
    ) -> None:
        """See `OrderStore.put`."""
        rows = rows_of(notices)
        letters = [(clean(each.where), each.payload[:PAYLOAD_MAX], clean(each.error), each.at_ms) for each in dead]
        mended = [(each.order, each.before, each.after, clean(each.reason), each.at_ms) for each in repairs]
        await self._writer.ask(_put, rows, letters, mended, position)

    async def position(self, source: str) -> str | None:
        """See `OrderStore.position`."""
        found = await self._reader.ask(_all, "position", (source,))
        return found[0][0] if found else None

    async def order(self, id: str) -> Order | None:
        """See `OrderStore.order`."""
        found = await self._reader.ask(_all, "order", (id,))
        return order_of(found[0]) if found else None

    async def orders_of(self, buyer: str, *, before: int | None, limit: int) -> list[Order]:
        """See `OrderStore.orders_of`."""
        below = NUMBER_MAX if before is None else before
        return [order_of(row) for row in await self._reader.ask(_all, "orders_of", (buyer, below, limit))]

    async def page(self, after: int, limit: int) -> list[Order]:
        """See `OrderStore.page`."""
        return [order_of(row) for row in await self._reader.ask(_all, "page", (after, limit))]

    async def states(self, ids: Collection[str]) -> Mapping[str, OrderState]:
        """See `OrderStore.states`."""
        wanted = msgspec.json.encode(list(ids)).decode()
        return {id: OrderState(state) for id, state in await self._reader.ask(_all, "states", (wanted,))}

    async def totals(self) -> list[Totals]:
        """See `OrderStore.totals`."""
        found = await self._reader.ask(_all, "totals", ())
        return [Totals(sale, item, OrderState(state), orders, int(units)) for sale, item, state, orders, units in found]

    async def dead_letters(self, *, after: int, limit: int) -> list[DeadLetter]:
        """See `OrderStore.dead_letters`."""
        return [DeadLetter(*row) for row in await self._reader.ask(_all, "dead_letters", (after, limit))]

    async def settle(self, number: int, outcome: str, at_ms: int) -> bool:
        """See `OrderStore.settle`."""
        return bool(await self._writer.ask(_all, "settle", (at_ms, clean(outcome), number)))

    async def repairs(self, *, limit: int) -> list[Repair]:
        """See `OrderStore.repairs`."""
        return [Repair(*row) for row in await self._reader.ask(_all, "repairs", (limit,))]

    # --- in the threads ---------------------------------------------------------------------

    def _connect(self, *, make: bool = False) -> apsw.Connection:
        """A connection to the file, which is made only if told so.

        Raises:
            StoreOutdated: there is none, or it is not of this version.
        """
        self._check_folder()
        if not make and not self._path.exists():
            raise StoreOutdated(
                f"the order store {self._url}: there is no file {self._path.absolute()}; is the path right? "
                f"`ticketrush migrate --orders {self._url}` would make a new, empty store"
            )
        flags = apsw.SQLITE_OPEN_READWRITE | (apsw.SQLITE_OPEN_CREATE if make else 0)
        connection = apsw.Connection(os.fspath(self._path), flags=flags)
        try:
            connection.set_busy_timeout(BUSY_MS)
            if not make:
                check_whole(_MIGRATIONS, self._applied(connection), self._url)
            connection.pragma("synchronous", "full")
            connection.pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            connection.pragma("journal_size_limit", CHECKPOINT_PAGES * 4_096)
            connection.pragma("cache_size", -CACHE_KIB)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_folder(self) -> None:
        """Raises StoreOutdated if not even a place for the file is there."""
        if not self._path.parent.is_dir():
            raise StoreOutdated(
                f"the order store {self._url}: the folder {self._path.parent} does not exist: make it, or name another "
                "file with --orders"
            )

    def _applied(self, connection: apsw.Connection) -> list[tuple[int, str]]:
        """The migrations that were applied. Raises StoreOutdated if the file is something else."""
        with connection:  # one look: a migration of somebody else may commit between two
            mark = connection.pragma("application_id")
            if mark == APPLICATION_ID:
                return [(number, name) for number, name in connection.execute(_SQL["version"])]
            is_new = not mark and not connection.execute("select 1 from sqlite_schema").fetchall()
        if not is_new:
            raise StoreOutdated(f"{self._path} is an SQLite file of something else; name another file with --orders")
        return []

    def _pending(self) -> list[str]:
        self._check_folder()
        applied: list[tuple[int, str]] = []
        if self._path.exists():
            connection = apsw.Connection(os.fspath(self._path), flags=apsw.SQLITE_OPEN_READWRITE)
            try:
                connection.set_busy_timeout(BUSY_MS)
                applied = self._applied(connection)
            finally:
                connection.close()
        return [each.name for each in missing(_MIGRATIONS, applied, self._url)]

    def _migrate(self) -> list[str]:
        connection = self._connect(make=True)
        try:
            self._applied(connection)  # something else is left as it is
            _set_wal(connection)
            done: list[str] = []
            while name := self._next_step(connection):
                done.append(name)
            return done
        finally:
            connection.close()

    def _next_step(self, connection: apsw.Connection) -> str | None:
        """Apply one migration in a transaction; its name, or None if there is none to be applied."""
        with _transaction(connection):
            lacking = missing(_MIGRATIONS, self._applied(connection), self._url)
            if not lacking:
                return None
            step = lacking[0]
            connection.pragma("application_id", APPLICATION_ID)
            connection.execute(step.sql)
            connection.execute(_SQL["put_version"], (step.number, step.name, SystemClock().now_ms()))
            return step.name


def _all(connection: apsw.Connection, name: str, values: tuple[str | int, ...]) -> list[Any]:
    """All rows that a statement finds."""
    return connection.execute(_SQL[name], values).fetchall()


def _put(
    connection: apsw.Connection,
    rows: Sequence[Row],
    letters: Sequence[Row | tuple[Any, ...]],
    repairs: Sequence[Row],
    position: tuple[str, str] | None,
) -> None:
    claims, more = parted(rows)
    with _transaction(connection):
        new, _ = _written(connection, "put_new", claims)
        for name, part in ("put", claims[new:]), ("put_more", more):
            count, constraint = _written(connection, name, part)
            if constraint is not None:
                raise refusal(part[count][0], constraint)
        connection.executemany(_SQL["put_dead_letter"], letters)
        connection.executemany(_SQL["put_repair"], repairs)
        if position is not None:
            connection.execute(_SQL["put_position"], position)


def _written(connection: apsw.Connection, name: str, rows: Sequence[Row]) -> tuple[int, str | None]:
    """Write rows up to the first that a constraint refuses: how many were written, and that constraint if any."""
    count = -1

    def each() -> Iterator[Row]:
        nonlocal count
        for count, row in enumerate(rows):  # noqa: B007
            yield row

    try:
        connection.executemany(_SQL[name], each())
    except apsw.ConstraintError as error:
        return count, str(error).rpartition(": ")[2]
    return len(rows), None


@contextmanager
def _transaction(connection: apsw.Connection) -> Iterator[None]:
    """All of it or nothing; others that write wait from the beginning, so none can fail half-way for being late."""
    connection.execute("begin immediate")
    try:
        yield
        connection.execute("commit")
    except BaseException:
        if connection.in_transaction:
            connection.execute("rollback")
        raise


def _set_wal(connection: apsw.Connection) -> None:
    """The write-ahead log, for good. SQLite does not wait by itself if somebody else is at it, so this does."""
    give_up_s = time.monotonic() + BUSY_MS / 1_000
    while True:
        try:
            connection.pragma("journal_mode", "wal")
        except apsw.BusyError:
            if time.monotonic() > give_up_s:
                raise
            time.sleep(0.01)
        else:
            return


class _Desk:
    """One connection, and the thread in which alone it is used."""

    def __init__(self, name: str) -> None:
        self._worker = Worker(name)
        self._connection: apsw.Connection | None = None
        self._asked = self._begun = 0
        """Jobs that were handed to the thread, counted here, and those that it began with, counted there."""

    async def open(self, connect: Callable[[], apsw.Connection]) -> None:
        """Make the connection."""
        if self._connection is None:
            self._connection = await self.alone(connect)

    async def close(self) -> None:
        """Close it when what was asked before is done."""
        connection, self._connection = self._connection, None
        try:
            if connection is not None:
                await self.alone(connection.close)
        finally:
            self._worker.stop()

    async def ask(
        self,
        function: Callable[Concatenate[apsw.Connection, _P], _R],
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _R:
        """What `function` does with the connection. Raises StoreUnavailable."""
        if self._connection is None:
            raise StoreUnavailable("the order store is not open")
        if self._asked - self._begun >= WAITING_MAX:
            raise StoreUnavailable(f"the order store in SQLite: {WAITING_MAX:,} questions wait for the disk already")
        return await self.alone(function, self._connection, *args, **kwargs)

    async def alone(self, function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        """What `function` returns, in the thread. Nothing is done any more for one who waits no longer.

        Raises:
            StoreUnavailable: no answer in time, or the disk says no.
        """
        is_wanted = True

        def job() -> _R:
            self._begun += 1
            if not is_wanted:
                raise StoreUnavailable("nobody waits for it any more")
            return function(*args, **kwargs)

        self._asked += 1
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._worker.call(job)
        except apsw.Error as error:
            raise StoreUnavailable(f"the order store in SQLite: {error}") from error
        except TimeoutError:
            raise StoreUnavailable(
                f"the order store in SQLite: the disk gave no answer within {ANSWER_S:g} s"
            ) from None
        finally:
            is_wanted = False
