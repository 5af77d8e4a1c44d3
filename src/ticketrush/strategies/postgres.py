"""Orders and stock in PostgreSQL, through a pool of connections that keep their statements prepared."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Final

import asyncpg

from ticketrush.strategies.databases import connected, transactions
from ticketrush.strategies.errors import StoreBusy
from ticketrush.strategies.statements import statements
from ticketrush.strategies.store import ITEM, WAIT_S, Books, Look, Order, OrderState

POOL: Final = 16
"""Connections; a hot row lets one of them work at a time, more would only wait."""

_SQL: Final = statements("postgres.sql")
_ONE_ROW: Final = "UPDATE 1"


class PostgresStore:
    """A `Store` in the database at `url`, which must be empty and is used by nobody else."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._before = 0

    async def open(self, capacity: int) -> None:
        """See `Store.open`."""
        async with connected(self._url) as connection:
            await connection.execute(_SQL["schema"])
            await connection.execute(_SQL["fill"], ITEM, capacity)
        self._before = await transactions(self._url)
        self._pool = await asyncpg.create_pool(
            self._url,
            min_size=POOL,
            max_size=POOL,
            timeout=WAIT_S,
            command_timeout=WAIT_S,
            server_settings={"lock_timeout": f"{WAIT_S * 1_000:.0f}", "application_name": "ticketrush strategies"},
            reset=_leave_as_it_is,
        )

    async def close(self) -> Books:
        """See `Store.close`."""
        await self._pool.close()
        async with connected(self._url) as connection:
            paid = await connection.fetchval(_SQL["paid"])
        return Books(paid, await transactions(self._url) - self._before)

    async def look(self, id: str) -> Look:
        """See `Store.look`."""
        async with self._borrowed() as connection:
            available, unpaid, state = await connection.fetchrow(_SQL["look"], ITEM, id)
        return Look(available, unpaid, state and OrderState(state))

    async def place(self, order: Order) -> None:
        """See `Store.place`."""
        async with self._borrowed() as connection:
            await connection.execute(_SQL["place"], order.id, order.buyer, ITEM)

    async def place_and_take(self, order: Order) -> bool:
        """See `Store.place_and_take`."""
        async with self._borrowed() as connection, connection.transaction():
            if not await connection.fetchval(_SQL["lock"], ITEM):
                return False
            placed = await connection.execute(_SQL["place"], order.id, order.buyer, ITEM)
            if placed == "INSERT 0 1":
                taken = await connection.execute(_SQL["take"], ITEM)
                assert taken == _ONE_ROW
            return True

    async def pay(self, order: Order) -> OrderState | None:
        """See `Store.pay`."""
        async with self._borrowed() as connection:
            if await connection.execute(_SQL["pay"], order.id, order.buyer) == _ONE_ROW:
                return OrderState.PAID
            return await _state(connection, order)

    async def pay_and_take(self, order: Order) -> OrderState | None:
        """See `Store.pay_and_take`.

        The order is locked first and the stock last, by everybody: no deadlock, and the row that all
        want is held for the shortest time.
        """
        async with self._borrowed() as connection, connection.transaction():
            if await connection.execute(_SQL["pay"], order.id, order.buyer) != _ONE_ROW:
                return await _state(connection, order)
            if await connection.execute(_SQL["take"], ITEM) == _ONE_ROW:
                return OrderState.PAID
            await connection.execute(_SQL["refund"], order.id)
            return OrderState.REFUNDED

    @contextlib.asynccontextmanager
    async def _borrowed(self) -> AsyncIterator[asyncpg.pool.PoolConnectionProxy]:
        try:
            async with self._pool.acquire(timeout=WAIT_S) as connection:
                yield connection
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise StoreBusy(f"PostgreSQL: {str(error) or 'no answer in time'}") from error


async def _state(connection: asyncpg.pool.PoolConnectionProxy, order: Order) -> OrderState | None:
    state = await connection.fetchval(_SQL["state"], order.id, order.buyer)
    return OrderState(state) if state else None


async def _leave_as_it_is(_: object) -> None:
    """What is done with a connection that comes back: nothing, for nothing was set on it."""
