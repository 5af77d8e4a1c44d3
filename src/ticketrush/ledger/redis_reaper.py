"""Brings back what dead nodes left: units of leases whose deadline has passed.

Three steps a lease: close it on the stock, close it on every book (which tells what was spent, for
good), put the rest back. Each may be repeated, and whoever does them may die between any two: the
next one finds the lease closing and goes on. One node at a time looks for dead leases, by a lease of
its own; that is for economy, not for safety.

What stays of a lease is its number, in the fence of the node that had it. What was spent of it is
forgotten by the books later, when no failover can bring it back any more.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Final

from ticketrush import logs
from ticketrush.errors import LedgerUnavailable
from ticketrush.ledger.redis_node import RedisNode
from ticketrush.ledger.redis_sale import LEASES, PREFIX, RedisSale

REAPER: Final = PREFIX + "reaper"
"""Key: the node that looks for dead leases now."""

REAPER_MS: Final = 2_000

FORGET_S: Final = 120.0
"""After how long a book forgets what was spent of a lease that was reclaimed."""

_OVERSPENT: Final = -2

log = logs.get("ticketrush.ledger.redis")


class Reaper:
    """Reclaims leases for one node."""

    def __init__(self, node: RedisNode) -> None:
        self._node = node
        self.reclaimed = 0
        """Units brought back so far."""
        self._spent: deque[tuple[float, RedisSale, str]] = deque()
        """What the books may forget: since when, and where."""
        self._overspent: set[str] = set()
        """Leases that were reported."""

    async def is_due(self) -> bool:
        """Whether this node is the one that looks now; it stays so while it goes on asking."""
        me = self._node.name
        if await self._node.command("set", REAPER, me, None, REAPER_MS, True):
            return True
        owner = await self._node.command("get", REAPER)
        if owner is None or owner.decode() != me:
            return False
        await self._node.command("pexpire", REAPER, REAPER_MS)
        return True

    async def dead(self) -> None:
        """Reclaim every lease whose deadline has passed, of all items that have any."""
        failed: LedgerUnavailable | None = None
        for name in await self._node.command("smembers", LEASES):
            id, _, item = name.decode().partition(" ")
            sale = self._node.sales.get(id)
            if sale is not None and item in sale.shelves:
                try:
                    await self.reclaim(sale, item)
                except LedgerUnavailable as error:  # one sick sale must not keep the others' units
                    failed = error
        if failed is not None:
            raise failed
        await self._forget()

    async def dropped(self) -> None:
        """Reclaim the leases that this node gave up in doubt; one that fails is tried again the next time."""
        failed: LedgerUnavailable | None = None
        for each in list(self._node.dropped):
            try:
                await self.reclaim(*each)
                self._node.dropped.remove(each)
            except LedgerUnavailable as error:
                failed = error
        if failed is not None:
            raise failed

    async def reclaim(self, sale: RedisSale, item: str, lease: str | None = None, *, every: bool = False) -> None:
        """Reclaim one lease of an item, or all that are past their deadline or half reclaimed, or `every` one."""
        shelf = sale.shelves[item]
        which = {"lease": lease or False, "every": every}
        closing = await self._node.link.run("stock_close", (shelf.key,), which, keep=True)
        for name, _ in closing:
            spent = 0
            for book in sale.books:
                spent += await self._node.link.run("book_close", (book.leases,), name, item, keep=True)
            ask = self._node.ask(sale.id, epoch=sale.epoch, lease=name, spent=spent) | {"now": self._node.seen_ms}
            units, granted, back = await self._node.link.run("stock_reclaim", (shelf.key,), ask, keep=True)
            if units >= 0:
                self._spent.append((time.monotonic(), sale, f"{name} {item}"))
            if units > 0:
                self.reclaimed += units
                log.info("lease_reclaimed", sale=sale.id, item=item, lease=name, units=units, spent=spent)
            if units == _OVERSPENT and name not in self._overspent:
                self._overspent.add(name)
                log.error(
                    "lease_overspent", sale=sale.id, item=item, lease=name, granted=granted, back=back, spent=spent
                )
        if closing:
            await self._node.stock(sale, shelf)

    async def _forget(self) -> None:
        """Strike out on the books what was spent of leases that were reclaimed a while ago; their fences stay."""
        while self._spent and self._spent[0][0] <= time.monotonic() - FORGET_S:
            _, sale, field = self._spent[0]
            for book in sale.books:
                await self._node.command("hdel", book.leases, field)
            self._spent.popleft()
