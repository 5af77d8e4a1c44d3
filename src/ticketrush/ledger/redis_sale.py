"""What a node knows of one sale: its books, the levels last heard of, and its own local stock.

Keys, each group in one hash slot:

- ``ticketrush:{sale:k}:…`` the book k (see lua/book.lua); book 0 also keeps the sale itself,
- ``ticketrush:{sale:item}:stock`` the stock of an item (see lua/stock.lua).
"""

from __future__ import annotations

import asyncio
import zlib
from typing import Any, Final

import msgspec

from ticketrush import model as m
from ticketrush.ledger.local_stock import LocalStock

PREFIX: Final = "ticketrush:"
SALES: Final = PREFIX + "sales"
"""Hash: sale -> its number, in the order in which they were created."""

NUMBERS: Final = PREFIX + "numbers"
"""The last number that a sale was given."""

LEASES: Final = PREFIX + "leases"
"""Set of "sale item": the items whose stock has leases, for the reaper to look at."""

CHANGED: Final = PREFIX + "changed"
"""Channel: "node sale", when units have come back or a sale has changed."""

ROUTE: Final = "-"
"""What stands between the random part of an id and the numbers of its sale and book."""

blob_of: Final = msgspec.msgpack.Encoder().encode
"""A sale as the ledger keeps it."""

KEYS_MS: Final = 3_600_000
"""How long after the last hold of a sale has ended a node keeps the winners' keys in its memory."""

AHEAD_MAX: Final = 64
"""Answers that may be ahead of the one that is waited for; with more, others buy here too."""

_BOOK_KEYS: Final = ("meta", "records", "keys", "bought", "due", "events", "leases")


class Book:
    """One book: a share of the buyers of a sale."""

    __slots__ = (
        "ahead",
        "epoch",
        "keys",
        "known_seq",
        "levels",
        "next_due_ms",
        "read_to",
        "released",
        "seq",
        "version",
    )

    def __init__(self, sale: str, number: int, items: list[str]) -> None:
        self.keys = tuple(f"{PREFIX}{{{sale}:{number}}}:{name}" for name in _BOOK_KEYS)
        self.epoch = self.seq = self.version = 0
        """As last heard. Events are counted anew in each epoch: a recovery may know fewer of them."""
        self.known_seq = 0
        """Events up to which this node knows the winners' keys."""
        self.ahead: dict[int, int] = {}
        """What answers have said of the events behind those: number before -> number after."""
        self.read_to = "0-0"
        """The stream's entry up to which that is so."""
        self.next_due_ms: int | None = None
        self.levels = dict.fromkeys(items, (0, 0))
        """Item -> units held and sold, as last heard."""
        self.released = dict.fromkeys(items, 0)

    def follow(self, before: int, seq: int) -> None:
        """Somebody has told of the events between these two numbers. Answers may overtake each other."""
        self.ahead[before] = max(seq, self.ahead.get(before, 0))
        while self.known_seq in self.ahead:
            self.known_seq = self.ahead.pop(self.known_seq)
        if len(self.ahead) > AHEAD_MAX:
            self.ahead.clear()

    def enter(self, epoch: int) -> None:
        """A recovery has begun another epoch, perhaps on a server that has forgotten the newest events."""
        self.epoch, self.seq, self.known_seq, self.read_to = epoch, 0, 0, "0-0"
        self.ahead.clear()

    @property
    def meta(self) -> str:
        return self.keys[0]

    @property
    def records(self) -> str:
        return self.keys[1]

    @property
    def due(self) -> str:
        return self.keys[4]

    @property
    def events(self) -> str:
        return self.keys[5]

    @property
    def leases(self) -> str:
        return self.keys[6]


class Shelf:
    """The stock of one item, as last heard, and what of it is in this node."""

    __slots__ = ("available", "capacity", "item", "key", "local", "lock", "seen")

    def __init__(self, sale: str, item: m.Item, node: str) -> None:
        self.item = item
        self.key = f"{PREFIX}{{{sale}:{item.id}}}:stock"
        self.capacity = self.available = item.capacity
        self.seen: dict[int, int] = {}
        """Book -> its released units that the stock has taken over."""
        self.local = LocalStock(node)
        self.lock = asyncio.Lock()
        """Held during an exchange with the stock."""


class RedisSale:
    """One sale, as a node knows it."""

    def __init__(self, created: m.Sale, number: int, shards: int, node: str) -> None:
        self.created = self.sale = created
        self.number = number
        self.scheduled_at = 0
        """The clock of when it was last opened or closed; 0 if it never was."""
        self.epoch = 1
        self.is_whole = True
        """Whether it is selling, and not being recovered."""
        self.torn_s = 0.0
        """Since when it has been neither, monotonic; 0 if it is sound."""
        items = [item.id for item in created.items]
        self.books = [Book(created.id, k, items) for k in range(shards)]
        self.shelves = {item.id: Shelf(created.id, item, node) for item in created.items}
        self.routes = [f"{ROUTE}{number:x}.{k:x}" for k in range(shards)]
        """How the ids of each book's reservations end, so that they are found again."""
        self.keys: set[str] = set()
        """Idempotency keys that have won, as far as this node knows; of a sale that is long over, none are kept."""
        self.has_keys = True
        self.following = False
        """The events of other nodes arrive here as they happen."""
        self.used_s = 0.0
        """When somebody last asked for this sale, monotonic."""

    @property
    def id(self) -> str:
        return self.created.id

    def book_of(self, buyer: str) -> int:
        """Which book a buyer is in."""
        return zlib.crc32(buyer.encode()) % len(self.books) if len(self.books) > 1 else 0

    def schedule(self, opens_at_ms: int | None, closes_at_ms: int | None) -> None:
        """The sale opens and closes at other times."""
        if (opens_at_ms, closes_at_ms) != (self.sale.opens_at_ms, self.sale.closes_at_ms):
            self.sale = msgspec.structs.replace(self.sale, opens_at_ms=opens_at_ms, closes_at_ms=closes_at_ms)

    def rest(self, now_ms: int) -> None:
        """Let go of the winners' keys when the sale has been over for a while; from then on the books are asked."""
        closes_at_ms = self.sale.closes_at_ms
        if closes_at_ms is not None and now_ms > closes_at_ms + self.sale.hold_window_ms + KEYS_MS:
            self.has_keys = False
            self.keys.clear()

    def remembers(self, key: str) -> bool:
        """Whether `key` has won, or may have and only the books can tell."""
        return key in self.keys or not self.has_keys

    def released(self, item: str) -> dict[int, int]:
        """For each book, the units of `item` that it has released, as last heard."""
        return {number: book.released[item] for number, book in enumerate(self.books) if book.released[item]}

    def free(self, item: str) -> int:
        """Units that this node may still get: available, released, or in its local stock."""
        shelf = self.shelves[item]
        coming = sum(max(0, total - shelf.seen.get(number, 0)) for number, total in self.released(item).items())
        return shelf.available + coming + shelf.local.units + shelf.local.returning

    def elsewhere(self, item: str) -> int:
        """Units that other nodes have leased, as far as this one can tell."""
        return self._level(item).leased

    def _level(self, item: str) -> m.Level:
        shelf = self.shelves[item]
        held = sum(book.levels[item][0] for book in self.books)
        sold = sum(book.levels[item][1] for book in self.books)
        available = min(self.free(item), shelf.capacity - held - sold)
        return m.Level(item, shelf.capacity, available, shelf.capacity - available - held - sold, held, sold)

    @property
    def is_settled(self) -> bool:
        """Whether this node knows every key that has won, so that a closed gate forgets nobody."""
        return self.following or all(book.known_seq == book.seq for book in self.books)

    def next_due_ms(self) -> int | None:
        """When the first hold of the sale falls due."""
        return min((book.next_due_ms for book in self.books if book.next_due_ms), default=None)

    def stock(self) -> m.Stock:
        """The levels, as far as this node knows; what it may still get itself counts as available."""
        levels = tuple(self._level(item) for item in self.shelves)
        version = max(book.version for book in self.books)
        return m.Stock(self.sale, version, levels, self.next_due_ms(), self.is_settled)


def meta_of(sale: str) -> str:
    """The key of the first book's meta, where the sale itself is."""
    return f"{PREFIX}{{{sale}:0}}:meta"


def definition(sale: RedisSale, *, epoch: int, whole: int) -> dict[str, Any]:
    """What lua/sale.lua is told to make a book of `sale`, as it was created."""
    of = sale.created
    return {
        "op": "create",
        "place": sale.number,
        "shards": len(sale.books),
        "hold": of.hold_window_ms,
        "items": [[item.id, item.capacity, item.purchase_limit] for item in of.items],
        "opens": of.opens_at_ms,
        "closes": of.closes_at_ms,
        "epoch": epoch,
        "whole": whole,
    }
