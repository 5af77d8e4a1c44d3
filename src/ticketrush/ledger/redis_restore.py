"""Writes again what a server has forgotten: reservations that buyers were told of, and units that were added.

A node knows what it has acknowledged itself. Whoever else knows something may tell it before (`tell`).

What has no place any more is told, never forced in: its units, its key or its buyer's limit are another
reservation's by now, or what was paid has ended otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from itertools import chain
from typing import Final

import msgspec

from ticketrush import model as m
from ticketrush.errors import LedgerUnavailable
from ticketrush.ledger.redis_decide import Memory, reservation_of
from ticketrush.ledger.redis_node import RedisNode, all_of
from ticketrush.ledger.redis_sale import PREFIX, RedisSale

RESTORING: Final = PREFIX + "restoring:"
"""Key, and the sale: a token of the node that writes again now; it ends by itself if that node dies."""

RESTORING_MS: Final = 2_000
"""Longer than what is done meanwhile may take: looks side by side, and one script."""

RESTORING_TRIES: Final = 500

ROWS_AT_ONCE: Final = 500

RANK: Final = {
    m.State.HELD: 0,
    m.State.PAID: 1,
    m.State.CANCELLED: 1,
    m.State.EXPIRED: 1,
    m.State.REFUNDED: 2,
}
"""How far a reservation has come; the same is in lua/restore.lua."""

_TURN: Final = {m.State.PAID: 1, m.State.HELD: 2}
"""What is written after what gives units back: first what money was taken for."""

GIVEN_UP: Final = (m.State.CANCELLED, m.State.EXPIRED)

Told = dict[int, list[m.Reservation]]
"""For each book the reservations that buyers were told of."""


class Opened(Exception):
    """The sale sells already, and something that it has forgotten is still to be written."""


class Restorer:
    """Writes again, for one node."""

    def __init__(self, node: RedisNode, memory: Memory) -> None:
        self._node, self._memory = node, memory
        self._told: defaultdict[str, list[tuple[int, list[m.Reservation]]]] = defaultdict(list)
        """By sale, what others have told: [(book, reservations), ...]."""
        self.restored = 0
        """Reservations written again so far."""

    async def tell(self, sale: RedisSale, rows: Iterable[m.Reservation], now_ms: int) -> int:
        """Take what buyers were told of; how much of it the books do not know, or know less of.

        That is written again with what this node remembers itself. A hold that has ended by `now_ms` is given up.
        """
        books: defaultdict[int, list[m.Reservation]] = defaultdict(list)
        for row in rows:
            books[sale.book_of(row.buyer)].append(row)
        lacking = 0
        for number, told in books.items():
            compared = zip(told, await self._compare(sale, number, told), strict=True)
            kept = [_ended(row, now_ms) for row, outcome in compared if outcome]
            if kept:
                self._told[sale.id].append((number, kept))
                lacking += len(kept)
        return lacking

    def remembered(self, sale: RedisSale) -> Told:
        """What buyers were told of, in the state that it last was in; first what gives units back."""
        newest: defaultdict[int, dict[str, m.Reservation]] = defaultdict(dict)
        mine = [(number, rows) for _, id, number, rows in self._memory.batches if id == sale.id]
        for number, reservations in chain(self._told.get(sale.id, ()), mine):
            known = newest[number]
            for row in reservations:
                if row.id not in known or RANK[row.state] >= RANK[known[row.id].state]:
                    known[row.id] = row
        return {
            number: sorted(told.values(), key=lambda row: (_TURN.get(row.state, 0), row.expires_at_ms))
            for number, told in newest.items()
        }

    async def add_again(self, sale: RedisSale) -> None:
        """The capacities become the largest that any node knows: those who do this may know different ones."""
        for item, shelf in sale.shelves.items():
            mine = [of for of in self._node.added if (of.sale, of.item) == (sale.id, item)]
            added = [[of.key, of.units] for of in mine]
            await self._node.book(sale, 0, "restock", item=item, added=added, up_to=shelf.capacity)

    async def write(self, sale: RedisSale, told: Told) -> Told:
        """Write again what is missing; returns what had no place.

        Raises:
            Opened: it must be fenced first. What is written already stays so.
        """
        refused: Told = {}
        for number, rows in told.items():
            for first in range(0, len(rows), ROWS_AT_ONCE):
                left = await self._write(sale, number, rows[first : first + ROWS_AT_ONCE])
                if left:
                    refused.setdefault(number, []).extend(left)
        return refused

    async def is_missing(self, sale: RedisSale, told: Told) -> bool:
        """Whether something of it is to be written, or to be reported."""
        for number, rows in told.items():
            for first in range(0, len(rows), ROWS_AT_ONCE):
                if any(await self._compare(sale, number, rows[first : first + ROWS_AT_ONCE])):
                    return True
        return False

    async def _write(self, sale: RedisSale, number: int, rows: list[m.Reservation]) -> list[m.Reservation]:
        others = [book for each, book in enumerate(sale.books) if each != number]
        async with self._alone(sale) if others else contextlib.nullcontext():
            if others:
                await all_of(*(self._node.look(sale, book) for book in range(len(sale.books))))
            room = {
                item: shelf.capacity - sum(sum(book.levels[item]) for book in others)
                for item, shelf in sale.shelves.items()
            }
            reply = await self._node.book(
                sale, number, "restore", room=room, rows=[[row.id, _record(row)] for row in rows]
            )
        said = reply[8] if reply[0] == "ok" else await self._compare(sale, number, rows)
        if reply[0] == "ok":
            self.restored += sum(outcome == 1 for outcome in said)
        elif 1 in said:
            raise Opened
        return [row for row, outcome in zip(rows, said, strict=True) if outcome == -1]

    async def _compare(self, sale: RedisSale, number: int, rows: list[m.Reservation]) -> list[int]:
        """For each of `rows` what lua/restore.lua would say, apart from units and keys."""
        found = await self._node.command("hmget", sale.books[number].records, [row.id for row in rows])
        return [
            1 if packed is None else _comparison(reservation_of(row.id, sale.id, packed).state, row.state)
            for row, packed in zip(rows, found, strict=True)
        ]

    @contextlib.asynccontextmanager
    async def _alone(self, sale: RedisSale) -> AsyncIterator[None]:
        """One node at a time restores a sale of several books: what it reads of the others is so when it writes."""
        key, token = RESTORING + sale.id, f"{self._node.name} {secrets.token_hex(8)}"
        for _ in range(RESTORING_TRIES):
            if await self._node.command("set", key, token, None, RESTORING_MS, True):
                break
            await asyncio.sleep(0.02)
        else:
            raise LedgerUnavailable(f"other nodes have been restoring sale {sale.id!r} for too long")
        try:
            yield
        finally:
            await self._node.link.run("restored", (key,), token)


def _ended(row: m.Reservation, now_ms: int) -> m.Reservation:
    """The reservation as it is at `now_ms`: a hold ends by itself."""
    if row.state is not m.State.HELD or row.expires_at_ms > now_ms:
        return row
    return msgspec.structs.replace(row, state=m.State.EXPIRED)


def _comparison(found: m.State, told: m.State) -> int:
    if found in GIVEN_UP and told in (m.State.PAID, m.State.REFUNDED):
        return -1
    return int(RANK[told] > RANK[found])


def _record(row: m.Reservation) -> list[object]:
    return [
        row.item,
        row.buyer,
        row.quantity,
        row.key,
        row.held_at_ms,
        row.expires_at_ms,
        row.state.value,
        row.changed_at_ms,
        row.payment,
    ]
