"""Books of sales as the ledger keeps them on Redis or Valkey, written without a ledger: many events, or wrong ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from redis import Redis, RedisCluster

from ticketrush import events as ev
from ticketrush import model as m
from ticketrush.events import AnyEvent
from ticketrush.ledger.redis_sale import SALES, Book, RedisSale

AT_MS: Final = 1_700_000_000_000
PRICE_MINOR: Final = 55_300

_pack: Final = msgspec.msgpack.Encoder().encode


def client_of(url: str) -> Redis | RedisCluster:
    """A connection to the server, or the cluster, that a ledger's URL names."""
    if url.startswith("redis+cluster://"):
        return RedisCluster.from_url(url.replace("+cluster", ""))
    return Redis.from_url(url)


class Books:
    """The books of one sale."""

    def __init__(self, url: str, sale: str, books: int = 1) -> None:
        self.client = client_of(url)
        self.sale = m.Sale(sale, (m.Item("second", 1_000_000, price_minor=PRICE_MINOR),), opens_at_ms=1)
        self.books: list[Book] = RedisSale(self.sale, 0, books, "test").books
        self._clocks = [0] * books
        self._buyers = 0

    def create(self) -> Books:
        """Put the sale there, as its first event."""
        self.client.hset(SALES, self.sale.id, 1)
        about = {"created": _pack(self.sale), "number": 1, "shards": len(self.books)}
        for book in self.books:
            self.client.hset(book.meta, mapping=about)  # type: ignore[arg-type]
        self.write([ev.SaleCreated(AT_MS, self.sale)])
        return self

    def write(self, events: Sequence[AnyEvent] | bytes, book: int = 0) -> str:
        """One entry: events, or what is in their place."""
        return self.write_fields(
            {"seq": 1, "events": events if isinstance(events, bytes) else _pack(list(events))}, book
        )

    def write_fields(self, fields: dict[str, bytes | int], book: int = 0) -> str:
        """One entry of any fields; its id."""
        self._clocks[book] += 1
        id = f"{AT_MS}-{self._clocks[book]}"
        self.client.xadd(self.books[book].events, fields, id)  # type: ignore[arg-type]
        return id

    def held(self, count: int) -> list[ev.Held]:
        """So many reservations that were not made before, one a buyer."""
        first, self._buyers = self._buyers, self._buyers + count
        name = self.sale.id
        return [
            ev.Held(AT_MS, f"{name}-{n}", name, "second", f"buyer-{n}", 1, f"key-{n}", AT_MS + 60_000)
            for n in range(first, first + count)
        ]

    def sell(self, count: int, each: int = 100) -> list[str]:
        """`count` reservations, `each` in an entry, round the books; their ids."""
        ids = []
        for number, begin in enumerate(range(0, count, each)):
            events = self.held(min(each, count - begin))
            self.write(events, number % len(self.books))
            ids += [event.id for event in events]
        return ids
