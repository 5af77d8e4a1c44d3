"""One node's knowledge of the cluster, and the calls that change it: scripts go out, what they say is kept.

Time: every call carries the newest event time and clock that this node has seen, every reply brings
those of its key (a hybrid logical clock, Kulkarni et al. 2014). So the events of all books, ordered by
(time, clock), are in the order of cause and effect, and time never runs backwards in them.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from ticketrush import logs
from ticketrush import model as m
from ticketrush.errors import LedgerRefused, LedgerUnavailable
from ticketrush.ledger.redis_due import Due
from ticketrush.ledger.redis_link import Link
from ticketrush.ledger.redis_sale import CHANGED, LEASES, SALES, RedisSale, Shelf, meta_of

LEASE_MS: Final = 3_000
"""How long a lease lives without a heartbeat."""

AHEAD: Final = 4
"""How many batches a busy node leases in advance, as long as there is plenty."""

ADDITIONS_MAX: Final = 1_000

DISCOVER_S: Final = 0.05
"""How often buyers of a sale that nobody knows may cause a look for it."""

_ATTEMPTS: Final = 6

_sale_of: Final = msgspec.msgpack.Decoder(m.Sale).decode

log = logs.get("ticketrush.ledger.redis")


class Moved(LedgerRefused):
    """The sale has another epoch: leases of the old one are void. Nothing was done."""


class RedisNode:
    """What this node knows; everything here belongs to one event loop."""

    def __init__(self, link: Link, name: str, shards: int, ahead: int = AHEAD) -> None:
        self.link, self.name, self.shards, self.ahead = link, name, shards, ahead
        self.sales: dict[str, RedisSale] = {}
        self.routes: dict[str, tuple[str, int]] = {}
        """How ids end -> the sale and book that they are in."""
        self.changed: set[str] = set()
        self.on_change: Callable[[], None] = lambda: None
        self.seen_ms = 0
        """Time of the newest event that this node knows of."""
        self.clock = 0
        self.now_ms = 0
        """The time of the command under way."""
        self.dropped: list[tuple[RedisSale, str, str]] = []
        """Leases (sale, item, lease) given up by this node, to be reclaimed."""
        self.added: deque[m.AddStock] = deque(maxlen=ADDITIONS_MAX)
        """Units that this node has added, so that it can add them again where they were forgotten."""
        self.moved_on: set[str] = set()
        """Sales that have a new epoch, for the log."""
        self.due = Due()
        self.lent: dict[str, tuple[RedisSale, Shelf]] = {}
        """Stocks (by their keys) that have units here; some of those that are named may have none any more."""
        self._leased: set[tuple[str, str]] = set()
        self._looked_s = self._discovered_s = 0.0

    # --- calls ------------------------------------------------------------------------------

    def ask(self, sale: str, **more: object) -> dict[str, object]:
        """What every script is told, and `more`."""
        total = sum(book.seq for each in self.sales.values() for book in each.books) if len(self.sales) < 100 else 0
        return {
            "now": max(self.now_ms, self.seen_ms),
            "clock": self.clock,
            "total": total,
            "node": self.name,
            "channel": CHANGED,
            "sale": sale,
            **more,
        }

    def heard(self, at_ms: int, clock: int) -> None:
        """A key has seen an event of this time and clock."""
        self.seen_ms, self.clock = max(self.seen_ms, at_ms), max(self.clock, clock)

    async def book(self, sale: RedisSale, number: int, script: str, blob: bytes = b"", **more: object) -> list[Any]:
        """Run a script on a book, and learn from what it says; its reply is [status, ...].

        Raises:
            LedgerUnavailable: see `Link.run`; or the server has forgotten the book.
        """
        book = sale.books[number]
        args = (self.ask(sale.id, **more), blob) if blob else (self.ask(sale.id, **more),)
        reply: list[Any] = await self.link.run(script, book.keys, *args, keep=script != "look")
        if reply[0] == "missing":
            raise LedgerUnavailable(f"{self.link.shown} has forgotten sale {sale.id!r}")
        if len(reply) > 3:
            self._learn(sale, number, reply)
        return reply

    def _learn(self, sale: RedisSale, number: int, reply: list[Any]) -> None:
        book = sale.books[number]
        _, at_ms, clock, before, seq, version, due, levels, _, epoch = reply
        self.heard(at_ms, clock)
        if epoch > book.epoch:
            book.enter(epoch)
            sale.following = False
        if epoch == book.epoch:
            book.follow(before, seq)
        if (epoch, seq) < (book.epoch, book.seq):
            return  # an older answer that was overtaken
        if seq != book.seq or version != book.version or (due or None) != book.next_due_ms:
            self.changed.add(sale.id)
        book.seq, book.version = seq, version
        if (due or None) != book.next_due_ms:
            book.next_due_ms = due or None
            if self.sales.get(sale.id) is sale:
                self.due.put(sale, number)
        for item, (held, sold, released, _) in levels.items() if levels else ():
            book.levels[item] = (held, sold)
            book.released[item] = released

    async def stock(self, sale: RedisSale, shelf: Shelf, want: int = 0, ahead: int = 0, *, make: bool = False) -> None:
        """Exchange with the stock of an item: give what was given back, get `want` units and up to `ahead` more.

        Raises:
            Moved: the stock has another epoch.
            LedgerUnavailable: see `Link.run`; the lease stands, what it was granted is learned later.
        """
        async with shelf.lock:  # an answer must not be overtaken by an older one
            await self._exchange(sale, shelf, want, ahead, make=make)

    async def _exchange(self, sale: RedisSale, shelf: Shelf, want: int, ahead: int, *, make: bool) -> None:
        for _ in range(_ATTEMPTS):
            local, lease, back = shelf.local, shelf.local.lease, shelf.local.back
            if want:
                local.asked = True
                await self._announce(sale.id, shelf.item.id)
            reply = await self.link.run(
                "stock",
                (shelf.key,),
                self.ask(
                    sale.id,
                    epoch=sale.epoch,
                    lease=lease,
                    want=want,
                    ahead=ahead,
                    back=back,
                    ttl_ms=LEASE_MS if want or local.units else 0,
                    capacity=shelf.capacity,
                    books=len(sale.books),
                    released={str(number): total for number, total in sale.released(shelf.item.id).items()},
                    make=make,
                )
                | {"now": self.seen_ms},
                keep=True,
            )
            if reply[0] in {"missing", "epoch"}:
                raise Moved(f"the stock of {sale.id}/{shelf.item.id} is {reply}, this node is at epoch {sale.epoch}")
            status, at_ms, clock, available, capacity, granted, seen = reply
            self.heard(at_ms, clock)
            shelf.available, shelf.capacity = available, max(shelf.capacity, capacity)
            shelf.seen = {int(number): total for number, total in seen.items()} if seen else {}
            self.changed.add(sale.id)
            if status == "ok":
                local.heard(lease, granted, back)
                if local.units:
                    self.lent[shelf.key] = (sale, shelf)
                return
            if lease == local.lease:
                self.drop(sale, shelf, reclaim=False)
        raise LedgerUnavailable(f"the stock of {sale.id}/{shelf.item.id} refuses every lease")

    async def _announce(self, sale: str, item: str) -> None:
        """Tell the reaper that the item has leases, before it has any."""
        if (sale, item) not in self._leased:
            await self.command("sadd", LEASES, f"{sale} {item}")
            self._leased.add((sale, item))

    def drop(self, sale: RedisSale, shelf: Shelf, *, reclaim: bool = True) -> None:
        """Give up a lease that is in doubt, and take a new one."""
        old = shelf.local.drop()
        if old is not None and reclaim:
            self.dropped.append((sale, shelf.item.id, old))

    async def command(self, name: str, *args: Any) -> Any:
        """A plain command, with the bounds and errors of a script."""
        return await self.link.command(name, *args)

    # --- sales ------------------------------------------------------------------------------

    async def discover(self) -> None:
        """Learn of sales that other nodes have created."""
        if await self.command("hlen", SALES) == len(self.sales):
            return  # all of them, as a rule; they are many
        numbers: dict[bytes, bytes] = await self.command("hgetall", SALES)
        unknown = [sale.decode() for sale in numbers if sale.decode() not in self.sales]
        failed: LedgerUnavailable | None = None
        for sale in sorted(unknown, key=lambda each: int(numbers[each.encode()])):
            try:
                await self.load(sale)
            except LedgerUnavailable as error:  # one sick sale must not hide the others
                failed = error
        if failed is not None:
            raise failed

    async def sale(self, id: str) -> RedisSale | None:
        """A sale that somebody asks for; one that another node has created a moment ago is looked for."""
        sale = self.sales.get(id)
        if sale is None and time.monotonic() > self._looked_s + DISCOVER_S:
            self._looked_s = time.monotonic()
            sale = await self.load(id)
        if sale is not None:
            sale.used_s = time.monotonic()
        return sale

    async def discover_soon(self) -> None:
        """Learn of new sales because somebody asks for what is not known here; not more often than is bearable."""
        if time.monotonic() > self._discovered_s + DISCOVER_S:
            self._discovered_s = time.monotonic()
            await self.discover()

    async def known(self, id: str) -> RedisSale | None:
        """A sale; None if the server has none of this name either."""
        return self.sales.get(id) or await self.load(id)

    async def load(self, id: str) -> RedisSale | None:
        """Learn of one sale; None if it is not there (yet)."""
        blob, number, shards = await self.command("hmget", meta_of(id), ("created", "number", "shards"))
        if blob is None:
            return None
        try:
            sale = RedisSale(_sale_of(blob), int(number), int(shards), self.name)
        except (msgspec.DecodeError, ValueError, TypeError) as error:
            raise LedgerUnavailable(f"sale {id!r} cannot be read; has another version made it? {error}") from error
        for book in range(len(sale.books)):
            await self.look(sale, book)
        if id in self.sales:  # learned of meanwhile, and perhaps selling: there is one local stock of an item
            return self.sales[id]
        self.add(sale)
        self.sales = dict(sorted(self.sales.items(), key=lambda each: each[1].number))
        with contextlib.suppress(Moved):  # it is being made, or built anew
            await self.stocks(sale)
        return sale

    def add(self, sale: RedisSale) -> None:
        """A sale is known from now on."""
        self.sales[sale.id] = sale
        self.routes.update({route: (sale.id, number) for number, route in enumerate(sale.routes)})
        self.changed.add(sale.id)
        for number in range(len(sale.books)):
            self.due.put(sale, number)

    async def stocks(self, sale: RedisSale) -> None:
        """Hear of every stock of a sale; renews its leases."""
        for shelf in sale.shelves.values():
            await self.stock(sale, shelf)

    async def look(self, sale: RedisSale, number: int, barrier: tuple[int, int] | None = None) -> list[Any]:
        """Hear of a book, and of the sale from its first one. The reply is that of the script."""
        reply = await self.book(sale, number, "look", items=list(sale.shelves), barrier=barrier, now=0, clock=0)
        if reply[0] == "ok" and number == 0 and (reply[9], reply[4]) >= (sale.books[0].epoch, sale.books[0].seq):
            epoch, opens, closes, whole, scheduled, *capacities, _ = reply[8]
            sale.is_whole = whole == "1"
            if int(epoch) != sale.epoch:
                self.moved(sale, int(epoch))
            before = sale.sale
            sale.rest(max(self.now_ms, self.seen_ms))
            if int(scheduled or 0) >= sale.scheduled_at:  # else the server has forgotten that it was opened or closed
                sale.schedule(*(int(each) if each else None for each in (opens, closes)))
                sale.scheduled_at = int(scheduled or 0)
            if sale.sale is not before:
                self.changed.add(sale.id)
            for shelf, capacity in zip(sale.shelves.values(), capacities, strict=True):
                shelf.capacity = max(shelf.capacity, int(capacity))
        return reply

    def moved(self, sale: RedisSale, epoch: int) -> None:
        """The sale has a new epoch: all leases are void. Of a lower one, which is out of date, nothing is heard.

        At the epoch that was known they are given up: what they were granted is reclaimed.
        """
        if epoch < sale.epoch:
            return
        for shelf in sale.shelves.values():
            if epoch == sale.epoch:
                self.drop(sale, shelf)
            else:
                shelf.local.drop()
            shelf.seen = {}
        if epoch > sale.epoch:
            sale.epoch = epoch
            self.moved_on.add(sale.id)

    async def leave(self) -> None:
        """Part with every lease, for a stop: they are to be reclaimed by `dropped`."""
        for sale in self.sales.values():
            for shelf in sale.shelves.values():
                if shelf.local.asked:
                    self.drop(sale, shelf)

    async def idle(self, at_s: float) -> None:
        """Give back units that nobody has used since `at_s`."""
        for key, (sale, shelf) in list(self.lent.items()):
            if not shelf.local.units:
                self.lent.pop(key, None)  # those that a call has taken are named again when it puts them back
            elif shelf.local.used_s <= at_s:
                shelf.local.give_back()
                await self.stock(sale, shelf)


def using(shelves: Iterable[Shelf]) -> None:
    """The local stock of these is being used now."""
    now_s = time.monotonic()
    for shelf in shelves:
        shelf.local.used_s = now_s


async def all_of(*calls: Any) -> list[Any]:
    """The results of calls made side by side; the first error once all have ended."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    errors = [result for result in results if isinstance(result, BaseException)]
    if errors:
        if len(errors) == len(results) and all(isinstance(error, LedgerRefused) for error in errors):
            raise errors[0]
        unclear = [error for error in errors if not isinstance(error, LedgerRefused)]
        raise unclear[0] if unclear else LedgerUnavailable(f"done in part: {errors[0]}")
    return results
