"""The order store in PostgreSQL: for many nodes and many order workers.

What `put` has written is as durable as the server's ``synchronous_commit`` says; where that is "off" for
everybody, it is "on" for us. Workers write orders in the order of their ids, so none waits for another in a
circle.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import asyncpg

from ticketrush.orders.errors import NoticeRefused, StoreUnavailable
from ticketrush.orders.model import PAYLOAD_MAX, DeadLetter, Notice, Order, OrderState, Repair
from ticketrush.orders.postgres_connections import Connection, Connections, Record
from ticketrush.orders.protocol import Totals
from ticketrush.orders.rows import COLUMNS, Row, clean, order_of, refusal, rows_of
from ticketrush.orders.tables import check_whole, migrations, missing, statements

ANSWER_S: Final = 10.0
"""The longest wait for an answer."""

LOOK_S: Final = 60.0
"""The same for what looks at every order, and for a migration."""

_NUMBER_MAX: Final = (1 << 63) - 1

_TRIES: Final = 3
"""How often a transaction that the server gave up for another's sake is begun."""

_SQL: Final = statements("postgres")
_MIGRATIONS: Final = migrations("postgres")


class PostgresOrders:
    """An `OrderStore` in a database at `url`."""

    def __init__(self, url: str) -> None:
        self._connections = Connections(url)

    async def open(self) -> None:
        """See `OrderStore.open`."""
        self._connections.open()
        try:
            async with self._connections.one(ANSWER_S) as connection:
                check_whole(_MIGRATIONS, await _applied(connection), self._connections.name)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """See `OrderStore.close`."""
        await self._connections.close()

    async def pending(self) -> list[str]:
        """See `OrderStore.pending`."""
        self._connections.open()
        async with self._connections.one(ANSWER_S) as connection:
            applied = await _applied(connection)
        return [each.name for each in missing(_MIGRATIONS, applied, self._connections.name)]

    async def migrate(self) -> list[str]:
        """See `OrderStore.migrate`."""
        self._connections.open()
        done: list[str] = []
        async with self._connections.one(LOOK_S) as connection:
            while name := await self._next_step(connection):
                done.append(name)
        return done

    async def _next_step(self, connection: Connection) -> str | None:
        """Apply one migration in a transaction; its name, or None if there is none to be applied."""
        await connection.execute("begin")
        await connection.execute(_SQL["lock"])
        lacking = missing(_MIGRATIONS, await _applied(connection), self._connections.name)
        if lacking:
            await connection.execute(lacking[0].sql)
            await connection.execute(_SQL["put_version"], lacking[0].number, lacking[0].name)
        await connection.execute("commit")
        return lacking[0].name if lacking else None

    async def put(
        self,
        notices: Sequence[Notice],
        *,
        dead: Sequence[DeadLetter] = (),
        repairs: Sequence[Repair] = (),
        position: tuple[str, str] | None = None,
    ) -> None:
        """See `OrderStore.put`."""
        work: list[tuple[str, Sequence[Any]]] = []
        if notices:
            work.append(("put", _columns(rows_of(notices), COLUMNS)))
        if dead:
            letters = [(clean(each.where), each.payload[:PAYLOAD_MAX], clean(each.error), each.at_ms) for each in dead]
            work.append(("put_dead_letters", _columns(letters, 4)))
        if repairs:
            mended = [(each.order, each.before, each.after, clean(each.reason), each.at_ms) for each in repairs]
            work.append(("put_repairs", _columns(mended, 5)))
        if position is not None:
            work.append(("put_position", position))
        for last in (False,) * (_TRIES - 1) + (True,):
            async with self._connections.one(ANSWER_S) as connection:
                if await _transact(connection, work, last=last):
                    return

    async def position(self, source: str) -> str | None:
        """See `OrderStore.position`."""
        found = await self._all("position", source)
        return found[0][0] if found else None

    async def order(self, id: str) -> Order | None:
        """See `OrderStore.order`."""
        found = await self._all("order", id)
        return order_of(found[0]) if found else None

    async def orders_of(self, buyer: str, *, before: int | None, limit: int) -> list[Order]:
        """See `OrderStore.orders_of`."""
        below = _NUMBER_MAX if before is None else before
        return [order_of(row) for row in await self._all("orders_of", buyer, below, limit)]

    async def page(self, after: int, limit: int) -> list[Order]:
        """See `OrderStore.page`."""
        return [order_of(row) for row in await self._all("page", after, limit)]

    async def states(self, ids: Collection[str]) -> Mapping[str, OrderState]:
        """See `OrderStore.states`."""
        return {id: OrderState(state) for id, state in await self._all("states", list(ids))}

    async def totals(self) -> list[Totals]:
        """See `OrderStore.totals`."""
        found = await self._all("totals", within_s=LOOK_S)
        return [Totals(sale, item, OrderState(state), orders, units) for sale, item, state, orders, units in found]

    async def dead_letters(self, *, after: int, limit: int) -> list[DeadLetter]:
        """See `OrderStore.dead_letters`."""
        return [DeadLetter(*row) for row in await self._all("dead_letters", after, limit)]

    async def settle(self, number: int, outcome: str, at_ms: int) -> bool:
        """See `OrderStore.settle`."""
        return bool(await self._all("settle", at_ms, clean(outcome), number))

    async def repairs(self, *, limit: int) -> list[Repair]:
        """See `OrderStore.repairs`."""
        return [Repair(*row) for row in await self._all("repairs", limit)]

    async def _all(self, name: str, *values: object, within_s: float = ANSWER_S) -> list[Record]:
        """All rows that a statement finds."""
        async with self._connections.one(within_s) as connection:
            return list(await connection.fetch(_SQL[name], *values))


async def _applied(connection: Connection) -> list[tuple[int, str]]:
    """The migrations that were applied."""
    if not await connection.fetchval(_SQL["has_version"]):
        return []
    return [(number, name) for number, name in await connection.fetch(_SQL["version"])]


async def _transact(connection: Connection, work: Sequence[tuple[str, Sequence[Any]]], *, last: bool) -> bool:
    """Do all of it or nothing; False if the server gave it up for another's sake and it is not the last try.

    Raises:
        NoticeRefused: a constraint refuses it.
    """
    await connection.execute("begin")
    try:
        for name, values in work:
            await connection.execute(_SQL[name], *values)
        await connection.execute("commit")
    except asyncpg.IntegrityConstraintViolationError as error:
        await connection.execute("rollback")
        raise _refusal(error) from error
    except asyncpg.DataError as error:
        await connection.execute("rollback")
        raise NoticeRefused(f"PostgreSQL cannot store what a notice says: {error}") from error
    except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError) as error:
        await connection.execute("rollback")
        if last:
            raise StoreUnavailable(f"the order store in PostgreSQL is too busy: {error}") from error
        return False
    return True


def _refusal(error: asyncpg.IntegrityConstraintViolationError) -> NoticeRefused:
    """What a constraint says; the details begin with the row, and the row with its id."""
    id = (error.detail or "").partition("(")[2].partition(",")[0]
    return refusal(id, error.constraint_name or str(error))


def _columns(rows: Sequence[Row | tuple[Any, ...]], count: int) -> list[list[Any]]:
    """Rows as one list for each column."""
    columns = [list(column) for column in zip(*rows, strict=True)]
    assert len(columns) == count, f"{len(columns)} columns instead of {count}"
    return columns
