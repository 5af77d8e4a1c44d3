"""After a failover or a restart: the ledger is made whole before anybody buys.

A server that comes back, or another in its place, may have forgotten the last of what it was told:
reservations that buyers were told of, units that were added, and units that nodes had leased. So, for
every sale, `SALES_AT_ONCE` of them side by side:

1. *Fence*: raise the epoch of every book and mark it "restoring": no lease of before can be spent.
2. *Restore*: each node writes again, with the same ids, what it acknowledged in the last minute and
   the books have forgotten (`redis_restore`). What finds no room is tried again when all nodes have
   restored; what has no place then is reported, never papered over.
3. *Build*: when every living node has restored (`redis_roll` says who lives), one of them raises the
   epoch again, reads what is taken, and builds the stock of each item as capacity less what is taken.
4. *Open*: the books sell again, under new leases.

At the end the server's identity is kept in the data set. A node that starts on any other server does
all this first. Every step may be repeated, and any node may die between any two.
tests/property/lease_model.py goes through the states of fencing, building and opening, with several
nodes at it; that data is lost and written again is not in that model, but in tests/faults.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import msgspec

from ticketrush import logs
from ticketrush.errors import LedgerUnavailable
from ticketrush.ledger.redis_decide import Memory
from ticketrush.ledger.redis_node import Moved, RedisNode, all_of
from ticketrush.ledger.redis_reaper import Reaper
from ticketrush.ledger.redis_restore import GIVEN_UP, ROWS_AT_ONCE, Opened, Restorer, Told
from ticketrush.ledger.redis_roll import RESTORED, SETTLED, WAIT_S, WHOLE, Roll
from ticketrush.ledger.redis_sale import SALES, RedisSale, blob_of, definition

SALES_AT_ONCE: Final = 16

OPENED_MAX: Final = 3
"""How often a sale may be opened by others while it is being restored."""

log = logs.get("ticketrush.ledger.redis")


class Found(msgspec.Struct):
    """What a recovery did: reservations written again, and those that buyers were told of and that are lost."""

    restored: int = 0
    lost: list[str] = msgspec.field(default_factory=list)
    sales: int = 0
    seconds: float = 0.0


class Recovery:
    """Makes the ledger whole again, for one node."""

    def __init__(self, node: RedisNode, memory: Memory, reaper: Reaper) -> None:
        self._node, self._reaper = node, reaper
        self.roll = Roll(node)
        self.restorer = Restorer(node, memory)
        self.identity = ""
        """The server that this node has last seen whole."""

    async def run(self, identity: str, *, always: bool = False) -> Found:
        """Make every sale whole on the server `identity`, and sell again.

        Sales that others have made whole there already, with all that this node remembers, are left alone;
        unless `always`.

        Raises:
            LedgerUnavailable: the server went away meanwhile; run it again.
        """
        began_s, found = time.monotonic(), Found()
        before = self.restorer.restored
        async with self.roll.recovering(identity):
            await self._node.discover()
            was_whole = not always and await self.roll.is_whole_on(identity)
            left: dict[str, Told] = {}

            async def fence(sale: RedisSale) -> None:
                if not (was_whole and await self._is_made_whole(sale)):
                    await self._fence(sale)
                    left[sale.id] = await self._restore(sale, self.restorer.remembered(sale))

            async def settle(sale: RedisSale) -> None:
                found.lost += await self._settle(sale, left[sale.id])

            await each(self._node.sales.values(), fence)
            sales = [self._node.sales[id] for id in left]
            await self.roll.meet(RESTORED)
            await each(sales, settle)
            await self.roll.meet(SETTLED)
            until_s = time.monotonic() + WAIT_S
            await each(sales, lambda sale: self._build(sale, until_s))
            await self.roll.keep_whole(identity)
        await self.roll.announce()
        self.identity = identity
        found.sales, found.restored = len(self._node.sales), self.restorer.restored - before
        found.seconds = round(time.monotonic() - began_s, 3)
        log.warning(
            "ledger_made_whole",
            sales=len(sales),
            restored=found.restored,
            lost=len(found.lost),
            lost_ids=found.lost[:20],
            seconds=found.seconds,
        )
        return found

    async def mend(self, sale: RedisSale) -> None:
        """A sale whose stock is of another epoch than its books, or is missing: a node died on the way. Go on.

        While somebody makes the ledger whole, it is left to them.
        """
        if await self.roll.is_anybody_before(WHOLE):
            return
        epoch, _ = await self._progress(sale, 0)
        if epoch < sale.epoch:  # the server has forgotten, and nobody saw it happen
            await self._fence(sale)
            left = await self._restore(sale, self.restorer.remembered(sale))
            lost = await self._settle(sale, left)
            log.warning("sale_made_whole", sale=sale.id, lost=len(lost), lost_ids=lost[:20])
        elif epoch > sale.epoch:
            self._node.moved(sale, epoch)
        built = [await self._node.command("hget", shelf.key, "epoch") for shelf in sale.shelves.values()]
        is_sound = all(at is not None and int(at) == sale.epoch for at in built) and await self._is_open(sale)
        if not is_sound and await self._reaper.is_due():
            await self._build_it(sale)
            self._node.moved(sale, (await self._progress(sale, 0))[0])

    async def _is_made_whole(self, sale: RedisSale) -> bool:
        """Whether others have made the sale whole since, and nothing that this node remembers is missing in it."""
        books = [await self._progress(sale, number) for number in range(len(sale.books))]
        epoch = books[0][0]
        if epoch <= sale.epoch or any(book != (epoch, "1") for book in books):
            return False
        self._forget_seen(sale)
        known = {item: shelf.capacity for item, shelf in sale.shelves.items()}
        fields = [f"capacity:{item}" for item in known]
        found = await self._node.command("hmget", sale.books[0].meta, fields)
        is_less = any(int(units) < most for units, most in zip(found, known.values(), strict=True))
        if is_less or await self.restorer.is_missing(sale, self.restorer.remembered(sale)):
            return False
        await self._look_again(sale)
        return True

    # --- fence ------------------------------------------------------------------------------

    async def _fence(self, sale: RedisSale) -> None:
        self._forget_seen(sale)
        for number in range(len(sale.books)):
            epoch, whole = await self._progress(sale, number)
            if whole is None:
                await self._make_again(sale, number)
                epoch, whole = await self._progress(sale, number)
            if whole != "0" or epoch < sale.epoch:
                await self._take(sale, number, max(epoch, sale.epoch) + 1, 0)
        await self._schedule_again(sale)
        await self.restorer.add_again(sale)
        self._node.moved(sale, (await self._progress(sale, 0))[0])

    @staticmethod
    def _forget_seen(sale: RedisSale) -> None:
        """The server may know less of the sale than it did."""
        for book in sale.books:
            book.seq = book.known_seq = 0
            book.ahead.clear()
            book.read_to = "0-0"

    async def _progress(self, sale: RedisSale, number: int) -> tuple[int, str | None]:
        """A book's epoch, and how far its recovery is; None if the book is forgotten."""
        epoch, whole = await self._node.command("hmget", sale.books[number].meta, "epoch", "whole")
        return (0, None) if epoch is None else (int(epoch), whole.decode())

    async def _take(self, sale: RedisSale, number: int, epoch: int, whole: int) -> bool:
        """Take a book to an epoch; False if it is further already."""
        reply = await self._node.book(sale, number, "book_epoch", epoch=epoch, whole=whole, items=list(sale.shelves))
        return bool(reply[0] == "ok")

    async def _make_again(self, sale: RedisSale, number: int) -> None:
        """The server has forgotten the book altogether, or the whole sale: as it was when this node last knew it."""
        of = sale.created
        asks = definition(sale, epoch=sale.epoch + 1, whole=0)
        await self._node.book(sale, number, "sale", blob_of(of), silent=number > 0, **asks)
        if number == 0:
            await self._node.command("hset", SALES, sale.id, sale.number)

    async def _schedule_again(self, sale: RedisSale) -> None:
        """Open or close it again, where the server has forgotten that."""
        opens, closes, at = sale.sale.opens_at_ms, sale.sale.closes_at_ms, sale.scheduled_at
        for number, book in enumerate(sale.books):
            if int(await self._node.command("hget", book.meta, "scheduled") or 0) < at:
                await self._node.book(
                    sale, number, "sale", op="copy", silent=number > 0, at=at, opens=opens, closes=closes
                )

    # --- restore ----------------------------------------------------------------------------

    async def _restore(self, sale: RedisSale, told: Told) -> Told:
        """Write again what is missing; returns what had no place."""
        for _ in range(OPENED_MAX):
            try:
                return await self.restorer.write(sale, told)
            except Opened:  # without us, and we have something to add
                await self._fence(sale)
        raise LedgerUnavailable(f"sale {sale.id!r} is opened again and again while it is being restored")

    async def _settle(self, sale: RedisSale, left: Told) -> list[str]:
        """Try once more what had no place; the ids of what is lost.

        What others have restored, and what has fallen due unpaid, may have made room. What was given up and has
        no place is no loss to anybody.
        """
        for number in range(len(sale.books)):
            while (await self._node.book(sale, number, "expire", most=ROWS_AT_ONCE, due_by=wall_ms()))[8]:
                pass
        lost = await self._restore(sale, left)
        return [row.id for rows in lost.values() for row in rows if row.state not in GIVEN_UP]

    # --- build ------------------------------------------------------------------------------

    async def _build(self, sale: RedisSale, until_s: float) -> None:
        """Build the stock, or see another node do it until then (monotonic)."""
        while not await self._is_open(sale):
            is_mine = await self._reaper.is_due() and not await self.roll.is_anybody_before(SETTLED)
            if is_mine or time.monotonic() > until_s:
                await self._build_it(sale)
            else:
                await asyncio.sleep(0.05)
        await self._look_again(sale)

    async def _look_again(self, sale: RedisSale) -> None:
        self._node.moved(sale, (await self._progress(sale, 0))[0])
        for number in range(len(sale.books)):
            await self._node.look(sale, number)
        with contextlib.suppress(Moved):  # a node that comes late has closed it again, and will open it
            await self._node.stocks(sale)

    async def _is_open(self, sale: RedisSale) -> bool:
        books: list[Any] = [await self._progress(sale, number) for number in range(len(sale.books))]
        return all(book[1] == "1" and book[0] == books[0][0] for book in books)

    async def _build_it(self, sale: RedisSale) -> None:
        epoch = 1 + max([(await self._progress(sale, number))[0] for number in range(len(sale.books))])
        for number in range(len(sale.books)):
            if not await self._take(sale, number, epoch, 2):
                return  # another node is ahead
        await self._node.look(sale, 0)  # what others have added
        for item, shelf in sale.shelves.items():
            taken = sum(sum(book.levels[item]) for book in sale.books)
            ask = self._node.ask(
                sale.id,
                epoch=epoch,
                capacity=shelf.capacity,
                taken=taken,
                released={str(number): total for number, total in sale.released(item).items()},
            )
            left = await self._node.link.run("stock_build", (shelf.key,), ask | {"now": self._node.seen_ms}, keep=True)
            if left is not None and left < 0:
                log.error("oversold", sale=sale.id, item=item, units=-left)
        for number in reversed(range(len(sale.books))):  # the first book, which all look at, last
            await self._take(sale, number, epoch, 1)


async def each(sales: Iterable[RedisSale], work: Callable[[RedisSale], Awaitable[None]]) -> None:
    """Do `work` for each, `SALES_AT_ONCE` side by side; after an error no other one is begun."""
    waiting = list(sales)[::-1]

    async def go_on() -> None:
        while waiting:
            sale = waiting.pop()
            try:
                await work(sale)
            except BaseException:
                waiting.clear()
                raise

    await all_of(*(go_on() for _ in range(SALES_AT_ONCE)))


def wall_ms() -> int:
    """The time by which holds have fallen due."""
    return int(time.time() * 1_000)
