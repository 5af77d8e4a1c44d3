"""The reservations of a ledger in Redis or Valkey, read from its books."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from ticketrush import logs
from ticketrush import model as m
from ticketrush.errors import LedgerUnavailable
from ticketrush.ids import DRAWN
from ticketrush.ledger.redis_decide import reservation_of
from ticketrush.ledger.redis_link import Link
from ticketrush.ledger.redis_sale import PREFIX, ROUTE, SALES, RedisSale, meta_of
from ticketrush.orders.notices import Prices

COMPARING: Final = PREFIX + "comparing"
"""Who compares orders with this ledger now; lapses when it is another one's turn."""

ROWS: Final = 1_000
AT_ONCE: Final = 256
"""Commands that are sent together."""

SCANS_AT_ONCE: Final = 16
"""The same of those whose answers are long."""

_sale_of: Final = msgspec.msgpack.Decoder(m.Sale).decode

_T = TypeVar("_T")

log = logs.get("ticketrush.orders")


class _Book(NamedTuple):
    sale: str
    records: str
    """Its key."""


class RedisRecords:
    """`Records` of the ledger at `url`. It writes nothing but whose turn it is."""

    def __init__(self, url: str, name: str) -> None:
        """`name` is that of this reader."""
        self.prices = Prices()
        self._name = name
        self._link = Link(url)
        self._sales: set[bytes] = set()
        self._books: dict[str, _Book] = {}
        """How the ids of a book end -> the book."""

    async def open(self) -> None:
        """Connect. Raises LedgerUnavailable."""
        await self._link.open()

    async def close(self) -> None:
        """Let the server go. May be called twice."""
        await self._link.close()

    async def turn(self, within_s: float) -> bool:
        """See `Records.turn`."""
        return bool(await self._link.command("set", COMPARING, self._name, None, max(1, round(within_s * 1_000)), True))

    async def pages(self) -> AsyncIterator[Sequence[m.Reservation]]:
        """See `Records.pages`."""
        await self._learn()
        page: list[m.Reservation] = []
        for books in _some(list(self._books.values()), SCANS_AT_ONCE):
            cursors = dict.fromkeys(books, 0)
            while cursors:
                calls = [("hscan", book.records, cursor, None, ROWS) for book, cursor in cursors.items()]
                replies = zip(list(cursors), await self._together(calls), strict=True)
                for book, (cursor, rows) in replies:
                    page += [reservation_of(id.decode(), book.sale, packed) for id, packed in rows.items()]
                    if cursor:
                        cursors[book] = cursor
                    else:
                        del cursors[book]
                while len(page) >= ROWS:
                    yield page[:ROWS]
                    del page[:ROWS]
        if page:
            yield page

    async def reservations(self, ids: Collection[str]) -> Mapping[str, m.Reservation]:
        """See `Records.reservations`."""
        if not all(map(self._book_of, ids)):
            await self._learn()
        places: defaultdict[_Book, list[str]] = defaultdict(list)
        for id in ids:
            book = self._book_of(id)
            for place in (book,) if book is not None else self._books.values():
                places[place].append(id)
        found: dict[str, m.Reservation] = {}
        for some in _some(list(places.items()), AT_ONCE):
            replies = await self._together([("hmget", book.records, wanted) for book, wanted in some])
            for (book, wanted), rows in zip(some, replies, strict=True):
                for id, packed in zip(wanted, rows, strict=True):
                    if packed is not None:
                        found[id] = reservation_of(id, book.sale, packed)
        return found

    def _book_of(self, id: str) -> _Book | None:
        """The book that an id names; None if it was not drawn by this ledger: then it may be in any."""
        drawn, _, route = id.rpartition(ROUTE)
        return self._books.get(ROUTE + route) if len(drawn) == DRAWN else None

    async def _learn(self) -> None:
        """Read the sales that are new."""
        numbers: dict[bytes, bytes] = await self._link.command("hgetall", SALES)
        unknown = sorted(numbers.keys() - self._sales, key=lambda sale: int(numbers[sale]))
        for some in _some(unknown, AT_ONCE):
            replies = await self._together([("hmget", meta_of(id.decode()), "created", "shards") for id in some])
            for id, (blob, shards) in zip(some, replies, strict=True):
                if blob is not None:  # else it is still being made
                    self._take(id, blob, int(numbers[id]), int(shards))

    def _take(self, id: bytes, blob: bytes, number: int, shards: int) -> None:
        self._sales.add(id)
        try:
            created = _sale_of(blob)
        except (msgspec.DecodeError, ValueError):
            log.exception("sale_unreadable", sale=id.decode())
            return
        self.prices.learn(created)
        sale = RedisSale(created, number, shards, "")
        for route, book in zip(sale.routes, sale.books, strict=True):
            self._books[route] = _Book(sale.id, book.records)

    async def _together(self, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The replies of commands that are sent together. Raises LedgerUnavailable if one of them has none."""
        replies = await self._link.commands(calls)
        for reply in replies:
            if isinstance(reply, Exception):
                raise LedgerUnavailable(f"no answer from {self._link.shown}: {reply}") from reply
        return replies


def _some(all_of_them: Sequence[_T], most: int) -> Iterator[Sequence[_T]]:
    for begin in range(0, len(all_of_them), most):
        yield all_of_them[begin : begin + most]
