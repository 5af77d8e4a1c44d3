"""Notices for tests, order stores to tell them to, and the plainest idea of what a store must then say."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import apsw
import asyncpg

from ticketrush.orders.model import Claim, Kind, Notice, Order, OrderState
from ticketrush.orders.protocol import OrderStore
from ticketrush.wiring import store_of

_R = TypeVar("_R")


def claim(buyer: str = "ann", *, sale: str = "g1", quantity: int = 1, key: str = "") -> Claim:
    return Claim(sale, "second", buyer, quantity, 2_000, 55_300 * quantity, "CNY", key)


def held(order: str, of: Claim | None = None, at_ms: int = 1_000) -> Notice:
    return Notice(order, Kind.HELD, at_ms, of or claim())


def paid(order: str, payment: str = "p-1", at_ms: int = 1_100) -> Notice:
    return Notice(order, Kind.PAID, at_ms, payment=payment)


def ended(order: str, kind: Kind, at_ms: int = 1_200) -> Notice:
    return Notice(order, kind, at_ms)


def tell(url: str, story: Callable[[OrderStore], Awaitable[_R]]) -> _R:
    """What `story` returns of the store at `url`, whose tables are made if they are not there."""

    async def told() -> _R:
        store = store_of(url)
        try:
            await store.migrate()
            await store.close()
            await store.open()
            return await story(store)
        finally:
            await store.close()

    return asyncio.run(told())


def by_hand(url: str, sql: str) -> list[Any]:
    """What somebody gets who sends SQL to the store past the program. Raises what the database says."""
    if url.startswith("sqlite:"):
        connection = apsw.Connection(str(Path(url.removeprefix("sqlite:///"))))
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()
    return asyncio.run(_by_hand(url, sql))


async def _by_hand(url: str, sql: str) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


REFUSES = (apsw.ConstraintError, asyncpg.IntegrityConstraintViolationError)
"""What a database raises that keeps to its constraints."""


class Contradiction(Exception):
    """Two notices cannot both be true."""


class Naive:
    """Orders as anybody would write them down, one notice after the other."""

    def __init__(self) -> None:
        self.facts: dict[str, dict[Kind, Notice]] = {}

    def put(self, notices: Iterable[Notice]) -> None:
        """Take all of them or none. Raises Contradiction."""
        facts = {order: dict(known) for order, known in self.facts.items()}
        for notice in notices:
            known = facts.setdefault(notice.order, {})
            first = known.setdefault(notice.kind, notice)
            if (first.claim, first.payment) != (notice.claim, notice.payment):
                raise Contradiction(notice)
            ends = known.keys() & {Kind.PAID, Kind.CANCELLED, Kind.EXPIRED}
            if len(ends) > 1 or (Kind.REFUNDED in known and ends - {Kind.PAID}):
                raise Contradiction(notice)
        self.facts = facts

    def rows(self) -> dict[str, tuple[Any, ...]]:
        """State, claim, payment and the times of each order, by id."""
        return {order: self._row(known) for order, known in self.facts.items()}

    @staticmethod
    def _row(known: dict[Kind, Notice]) -> tuple[Any, ...]:
        state = OrderState.INCOMPLETE
        if Kind.HELD in known and (Kind.REFUNDED not in known or Kind.PAID in known):
            last = next(kind for kind in reversed(Kind) if kind in known)
            state = OrderState(last.value)
        claim = known[Kind.HELD].claim if Kind.HELD in known else None
        payment = known[Kind.PAID].payment if Kind.PAID in known else ""
        return (state, claim, payment, *(known[kind].at_ms if kind in known else None for kind in Kind))


async def rows_in(store: OrderStore) -> dict[str, tuple[Any, ...]]:
    """The same of all orders that a store has."""
    found: dict[str, tuple[Any, ...]] = {}
    after = 0
    while page := await store.page(after, 1_000):
        found |= {each.id: row_of(each) for each in page}
        after = page[-1].number
    return found


def row_of(order: Order) -> tuple[Any, ...]:
    """The same of one order."""
    times = order.held_at_ms, order.paid_at_ms, order.cancelled_at_ms, order.expired_at_ms, order.refunded_at_ms
    return (order.state, order.claim, order.payment, *times)
