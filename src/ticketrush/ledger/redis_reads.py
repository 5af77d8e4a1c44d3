"""Reading a ledger that is spread over many keys: reservations, the journal, and the state for the auditor.

The journal is one stream a book. An entry's id is the (time, clock) of its first event, so the
streams merge by id into one order (see `redis_node`). Before a page is read, every book promises that
its later events come behind what is read (a barrier): so the numbers of events never change.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from ticketrush import audit
from ticketrush import events as ev
from ticketrush import model as m
from ticketrush.errors import LedgerUnavailable
from ticketrush.events import AnyEvent
from ticketrush.ids import DRAWN
from ticketrush.ledger.redis_decide import reservation_of
from ticketrush.ledger.redis_node import RedisNode, all_of
from ticketrush.ledger.redis_sale import ROUTE, Book, RedisSale
from ticketrush.model import State

SEARCH_S: Final = 1.0
"""How long an id that does not say where it is may wait and be looked for."""

RESTING: Final = 9
"""For how many times as long as a read has searched no other one does: a tenth of the time is for it."""

FOUND_S: Final = 1.0
FOUND_MAX: Final = 1_000
"""How long, and of how many ids at most, it is remembered what a read's search came to."""

ENTRIES_AT_ONCE: Final = 500
RECORDS_AT_ONCE: Final = 1_000
CURSORS_MAX: Final = 256

BOOKS_AT_ONCE: Final = 16
"""Books that are looked at side by side."""

_events_of: Final = msgspec.msgpack.Decoder(list[AnyEvent]).decode

_STATES: Final[dict[type, State]] = {
    ev.Held: State.HELD,
    ev.Paid: State.PAID,
    ev.Cancelled: State.CANCELLED,
    ev.Expired: State.EXPIRED,
    ev.Refunded: State.REFUNDED,
}

Where = tuple[str, int]
"""The sale and book that a reservation is in."""

Position = tuple[int, int]
"""The id of a stream's entry: time and clock."""


class Entry(NamedTuple):
    """One entry of a stream: the events of one batch."""

    at: Position
    stream: str
    events: list[AnyEvent]


class Reads:
    """Reads what all nodes have committed."""

    def __init__(self, node: RedisNode) -> None:
        self._node = node
        self._cursors: dict[int, dict[str, Position]] = {0: {}}
        """Number of events -> where in each stream reading goes on behind them."""
        self._searching = asyncio.Lock()
        self._reading = asyncio.Lock()
        self._search_at_s = 0.0
        """Before this no read searches, monotonic."""
        self._found: dict[str, tuple[float, Where | None]] = {}
        """Id -> until when it is believed, and where it is; oldest first."""

    # --- reservations -----------------------------------------------------------------------

    def route(self, id: str) -> Where | None:
        """The sale and book that an id of this ledger names; None for any other, and for places not known here."""
        drawn, dash, route = id.rpartition(ROUTE)
        return self._node.routes.get(ROUTE + route) if dash and len(drawn) == DRAWN else None

    async def find(self, id: str) -> Where | None:
        """The sale and book that a reservation is in; None if it is nowhere.

        An id that this ledger has made says where to look, though perhaps in a sale that this node has not heard
        of yet. Any other id is looked for in every book.
        """
        return await self._named(id) or await self._search(id)

    async def _named(self, id: str) -> Where | None:
        found = self.route(id)
        if found is None and ROUTE in id:
            await self._node.discover_soon()
            found = self.route(id)
        return found

    async def _search_seldom(self, id: str) -> Where | None:
        """The same as `_search` for a read, which anybody may ask for with any id: in its turn, or from memory.

        Nothing is decided by that. Decisions wait for no turn, and look.
        """
        until_s, where = self._found.get(id, (0.0, None))
        if time.monotonic() < until_s:
            await asyncio.sleep(0)  # who asks in a row must not keep others from their turn
            return where
        try:
            async with asyncio.timeout(SEARCH_S), self._reading:
                await asyncio.sleep(self._search_at_s - time.monotonic())
                began_s = time.monotonic()
                try:
                    where = await self._search(id)
                finally:
                    now_s = time.monotonic()
                    self._search_at_s = now_s + RESTING * (now_s - began_s)
        except TimeoutError:
            raise LedgerUnavailable("an id that says not where it is was not looked for in time") from None
        self._found.pop(id, None)
        self._found[id] = (now_s + FOUND_S, where)
        if len(self._found) > FOUND_MAX:
            del self._found[next(iter(self._found))]
        return where

    async def _search(self, id: str) -> Where | None:
        """Look into every book; for one id at a time, since it may be many, and for a bounded time."""
        try:
            async with asyncio.timeout(SEARCH_S), self._searching:
                for books in _some(self._books()):
                    rows = (self._node.command("hexists", sale.books[number].records, id) for sale, number in books)
                    for (sale, number), is_there in zip(books, await all_of(*rows), strict=True):
                        if is_there:
                            return sale.id, number
        except TimeoutError:
            raise LedgerUnavailable("an id that says not where it is was not found in time") from None
        return None

    async def reservation(self, id: str) -> m.Reservation | None:
        """A committed reservation; None for an unknown id."""
        where = await self._named(id) or await self._search_seldom(id)
        if where is None:
            return None
        sale, number = where
        packed = await self._node.command("hget", self._node.sales[sale].books[number].records, id)
        return None if packed is None else reservation_of(id, sale, packed)

    async def reservation_for(self, sale: str, buyer: str, key: str) -> m.Reservation | None:
        """The committed reservation that `buyer` made in `sale` under `key`; None if there is none."""
        known = self._node.sales.get(sale)
        if known is None or not key:
            return None
        book = known.books[known.book_of(buyer)]
        id = await self._node.command("hget", book.keys[2], f"{buyer} {key}")
        if id is None:
            return None
        packed = await self._node.command("hget", book.records, id)
        return None if packed is None else reservation_of(id.decode(), sale, packed)

    # --- the journal ------------------------------------------------------------------------

    async def events(self, after: int, limit: int) -> list[tuple[int, AnyEvent]]:
        """At most `limit` events with numbers above `after`, in order."""
        barrier = await self._barrier()
        number = max(known for known in self._cursors if known <= after)
        position = dict(self._cursors[number])
        page: list[tuple[int, AnyEvent]] = []
        while len(page) < limit and (entries := await self._entries(position, barrier)):
            for entry in entries:
                page += [(n, event) for n, event in enumerate(entry.events, number + 1) if after < n <= after + limit]
                if number + len(entry.events) > after + limit:
                    self._mark(number, position)
                    return page
                number += len(entry.events)
                position[entry.stream] = entry.at
        self._mark(number, position)
        return page

    def _mark(self, number: int, position: dict[str, Position]) -> None:
        if len(self._cursors) >= CURSORS_MAX:
            for old in sorted(self._cursors)[1::2]:
                del self._cursors[old]
        self._cursors[number] = dict(position)

    async def _entries(self, position: dict[str, Position], barrier: Position) -> list[Entry]:
        """The next entries of all streams behind `position`, in order, as far as it is sure that none is missing."""
        sure, found = barrier, []
        for stream in self._streams():
            entries = await self._range(stream, position.get(stream, (0, 0)), barrier, ENTRIES_AT_ONCE)
            if len(entries) == ENTRIES_AT_ONCE:
                sure = min(sure, entries[-1].at)
            found.append(entries)
        return [entry for entry in heapq.merge(*found) if entry.at <= sure]

    def _streams(self) -> Iterator[str]:
        for sale in self._node.sales.values():
            for book in sale.books:
                yield book.events

    async def _range(self, stream: str, after: Position, to: Position, count: int) -> list[Entry]:
        rows = await self._node.command("xrange", stream, f"({after[0]}-{after[1]}", f"{to[0]}-{to[1]}", count)
        return [Entry(position_of(id), stream, _events_of(fields[b"events"])) for id, fields in rows]

    async def _barrier(self) -> Position:
        """A position that every later event of every book comes behind, and none of those committed before this call.

        First every book says how far it is, then all promise to go on behind the furthest.
        """
        await self._node.discover()
        await self._look(None)
        at = (self._node.seen_ms, self._node.clock)
        await self._look(at)
        return at

    async def _look(self, barrier: Position | None) -> None:
        for books in _some(self._books()):
            await all_of(*(self._node.look(sale, number, barrier) for sale, number in books))

    def _books(self) -> list[tuple[RedisSale, int]]:
        return [(sale, number) for sale in self._node.sales.values() for number in range(len(sale.books))]

    def _all(self) -> list[RedisSale]:
        return list(self._node.sales.values())

    # --- the state --------------------------------------------------------------------------

    async def state(self) -> audit.LedgerState:
        """What the records and counters on the server say, as of one position of the journal.

        Records are read while the sale goes on; the events that came meanwhile are folded into them.
        """
        await self._node.discover()
        began = {book.events: await self._last(sale, k) for sale in self._all() for k, book in enumerate(sale.books)}
        states: dict[str, State] = {}
        for sale in self._all():
            for book in sale.books:
                async for page in self._records(sale, book):
                    states |= {row.id: row.state for row in page}
        barrier = await self._barrier()
        levels: dict[str, dict[str, audit.Units]] = {}
        seq = 0
        for sale in self._all():
            for book in sale.books:
                seq += book.seq
                async for event in self._since(book.events, began.get(book.events, (0, 0)), barrier):
                    if not isinstance(event, ev.SaleCreated | ev.SaleScheduled | ev.StockAdded):
                        states[event.id] = _STATES[type(event)]
            levels[sale.id] = await self.levels(sale)
        return audit.LedgerState.of(seq, levels, ((id, state.value) for id, state in states.items()))

    async def _last(self, sale: RedisSale, number: int) -> Position:
        reply = await self._node.look(sale, number)
        return position_of(reply[8][-1])

    async def pages(self) -> AsyncIterator[list[m.Reservation]]:
        """All committed reservations, some at a time; those made or changed meanwhile may be missing, old or twice."""
        await self._node.discover()
        for sale in self._all():
            for book in sale.books:
                async for page in self._records(sale, book):
                    yield page

    async def _records(self, sale: RedisSale, book: Book) -> AsyncIterator[list[m.Reservation]]:
        cursor = 0
        while True:
            cursor, rows = await self._node.command("hscan", book.records, cursor, None, RECORDS_AT_ONCE)
            yield [reservation_of(id.decode(), sale.id, packed) for id, packed in rows.items()]
            if not cursor:
                return

    async def _since(self, stream: str, after: Position, to: Position) -> AsyncIterator[AnyEvent]:
        while entries := await self._range(stream, after, to, ENTRIES_AT_ONCE):
            for entry in entries:
                for event in entry.events:
                    yield event
            after = entries[-1].at

    async def levels(self, sale: RedisSale) -> dict[str, audit.Units]:
        """Levels from the counters of the stock and the books; sound at any moment, since each counter only grows."""
        spent = [await self._node.command("hgetall", book.leases) for book in sale.books]
        levels = {}
        for item, shelf in sale.shelves.items():
            stock = {name.decode(): value for name, value in (await self._node.command("hgetall", shelf.key)).items()}
            leased = 0
            for name, granted in stock.items():
                if name.startswith("granted "):
                    lease = name.removeprefix("granted ")
                    leased += int(granted) - int(stock.get(f"back {lease}", 0))
                    leased -= sum(int(each.get(f"{lease} {item}".encode(), 0)) for each in spent)
            coming = sum(
                book.released[item] - int(stock.get(f"seen {number}", 0)) for number, book in enumerate(sale.books)
            )
            held, sold = (sum(book.levels[item][which] for book in sale.books) for which in (0, 1))
            levels[item] = audit.Units(
                int(stock.get("capacity", 0)), int(stock.get("available", 0)) + coming, leased, held, sold
            )
        return levels


def _some(books: list[tuple[RedisSale, int]]) -> Iterator[list[tuple[RedisSale, int]]]:
    for first in range(0, len(books), BOOKS_AT_ONCE):
        yield books[first : first + BOOKS_AT_ONCE]


def streams_of(answer: Any) -> list[tuple[str, list[tuple[str, list[AnyEvent]]]]]:
    """[(stream, [(id, events), ...]), ...] of an answer to XREAD."""
    streams = list(answer.items()) if isinstance(answer, dict) else list(answer or ())
    found = []
    for stream, rows in streams:
        if len(rows) == 1 and rows[0] and isinstance(rows[0][0], list | tuple):
            rows = rows[0]  # RESP3 wraps them once more
        found.append((stream.decode(), [(id.decode(), _events_of(fields[b"events"])) for id, fields in rows]))
    return found


def position_of(id: bytes | str) -> Position:
    """The position of a stream's entry."""
    at, _, clock = (id.decode() if isinstance(id, bytes) else id).partition("-")
    return int(at), int(clock)
