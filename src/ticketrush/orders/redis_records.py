"""The reservations of a ledger in Redis or Valkey, read from its books."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Final

from ticketrush import model as m
from ticketrush.ledger.redis import RedisLedger
from ticketrush.orders.notices import Prices

ROWS: Final = 1_000
AT_ONCE: Final = 32


class RedisRecords:
    """`Records` of the ledger at `url`."""

    def __init__(self, url: str, name: str) -> None:
        """`name` is that of this reader, in the server's logs."""
        self.prices = Prices()
        self._ledger = RedisLedger(url, durability="memory", node=name)  # it reads whatever the server promises

    async def open(self) -> None:
        """Connect. Raises LedgerUnavailable."""
        await self._ledger.open_for_operator()

    async def close(self) -> None:
        """Let the server go. May be called twice."""
        await self._ledger.close()

    async def pages(self) -> AsyncIterator[Sequence[m.Reservation]]:
        """See `Records.pages`."""
        async for page in self._ledger.reservations():
            for sale in self._ledger.sales():
                if not self.prices.knows(sale.id):
                    self.prices.learn(sale)
            for begin in range(0, len(page), ROWS):
                yield page[begin : begin + ROWS]

    async def reservation(self, id: str) -> m.Reservation | None:
        """See `Records.reservation`."""
        return await self._ledger.reservation(id)

    async def known(self, ids: Collection[str]) -> Collection[str]:
        """See `Records.known`."""
        found: set[str] = set()
        wanted = list(ids)
        for begin in range(0, len(wanted), AT_ONCE):
            some = wanted[begin : begin + AT_ONCE]
            rows = await asyncio.gather(*map(self.reservation, some))
            found |= {id for id, row in zip(some, rows, strict=True) if row is not None}
        return found
