"""Follows the events of sales that cannot be bought from here, so that a closed gate knows every key that has won.

All of them are read in a few calls. What gives units back is news: the sale is looked at then, whether or
not the message that says so has arrived.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from redis.asyncio import RedisCluster

from ticketrush.events import AnyEvent, Cancelled, Expired, Held, Refunded, StockAdded
from ticketrush.ledger.redis_node import RedisNode
from ticketrush.ledger.redis_reads import streams_of
from ticketrush.ledger.redis_sale import Book, RedisSale

BLOCK_MS: Final = 250
"""How long a call waits for events, if one call is enough for all streams."""

ENTRIES: Final = 1_000
"""Entries of one stream that a call brings."""

STREAMS_MAX: Final = 100
"""Streams that one call reads."""

_RELEASED: Final = (Cancelled, Expired, Refunded, StockAdded)


class Following:
    """The sales that one node follows."""

    def __init__(self, node: RedisNode, news: Callable[[str], None]) -> None:
        """`news` is told the sales to look at."""
        self._node, self._news = node, news
        self._followed: dict[str, RedisSale] = {}
        self.stopping = False

    def consider(self, sale: RedisSale) -> None:
        """Follow a sale while one of its items cannot be bought here."""
        if any(sale.free(item) == 0 for item in sale.shelves):
            self._followed[sale.id] = sale
        elif self._followed.pop(sale.id, None) is not None:
            sale.following = False

    async def read(self) -> None:
        """Learn what happens in the followed sales; returns when it is time for a pause."""
        try:
            while (followed := self._books()) and not self.stopping and not await self._next(followed):
                pass
        except BaseException:
            for sale in self._followed.values():
                sale.following = False
            raise

    def _books(self) -> list[tuple[RedisSale, Book]]:
        return [(sale, book) for sale in self._followed.values() for book in sale.books]

    async def _next(self, followed: list[tuple[RedisSale, Book]]) -> bool:
        """Read once behind what is known of each book; True if it is time for a pause."""
        is_cluster = isinstance(self._node.link.client, RedisCluster)
        at_once = 1 if is_cluster else STREAMS_MAX  # the streams of a cluster are on several servers
        is_waiting = not is_cluster and len(followed) <= at_once
        behind: set[str] = set()
        for first in range(0, len(followed), at_once):
            behind |= await self._some(followed[first : first + at_once], is_waiting=is_waiting)
        for sale, _ in followed:
            if sale.id not in behind and not sale.following and sale.id in self._followed:
                sale.following = True
                self._node.changed.add(sale.id)
        if self._node.changed:
            self._node.on_change()
        return not is_waiting and not behind

    async def _some(self, books: list[tuple[RedisSale, Book]], *, is_waiting: bool) -> set[str]:
        """Read these in one call; the sales of which there is more."""
        streams = {book.events: book.read_to for _, book in books}
        answer = await self._node.command("xread", streams, ENTRIES, BLOCK_MS if is_waiting else None)
        entries = dict(streams_of(answer))
        behind = set()
        for sale, book in books:
            rows = entries.get(book.events, [])
            for id, events in rows:
                self._learn(sale, events)
                book.read_to = id
            if len(rows) == ENTRIES:
                behind.add(sale.id)
        return behind

    def _learn(self, sale: RedisSale, events: list[AnyEvent]) -> None:
        sale.keys.update(event.key for event in events if isinstance(event, Held) and event.key)
        if any(isinstance(event, _RELEASED) for event in events):
            self._news(sale.id)
