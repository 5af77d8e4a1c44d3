"""What the application serves with, put together from settings or handed in by who embeds it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from ticketrush import logs
from ticketrush.admission.tokens import Tokens
from ticketrush.cashier import Cashier
from ticketrush.engine import Engine
from ticketrush.http.demo import Demo, StatLog
from ticketrush.http.lane import Lane, Limits
from ticketrush.http.purchase import Purchases
from ticketrush.orders.errors import StoreOutdated, StoreUnavailable
from ticketrush.orders.protocol import OrderStore
from ticketrush.payments.protocol import Gateway, Verifies
from ticketrush.payments.wiring import verifier_of

OPEN_AGAIN_S: Final = 1.0
"""How often an order store that is away is tried."""

log = logs.get("ticketrush.http")


@dataclass(frozen=True, slots=True)
class Services:
    """The rooms behind the HTTP API. `tokens` is None in open mode; `webhooks` says whose webhooks are believed."""

    engine: Engine
    cashier: Cashier
    tokens: Tokens | None
    lane: Lane
    webhooks: Verifies
    demo: Demo | None = None
    stat_log: StatLog | None = None
    orders: OrderStore | None = None

    @classmethod
    def of(
        cls,
        engine: Engine,
        gateway: Gateway,
        tokens: Tokens | None,
        *,
        webhooks: Verifies | None = None,
        limits: Limits | None = None,
        demo: Demo | None = None,
        stat_log: StatLog | None = None,
        orders: OrderStore | None = None,
    ) -> Services:
        """Services around an engine that is not started yet."""
        lane = Lane(Purchases(engine, tokens), limits or Limits(), demo)
        return cls(engine, Cashier(engine, gateway), tokens, lane, webhooks or verifier_of(()), demo, stat_log, orders)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start everything, and stop it in the opposite order: nothing accepted is forgotten."""
        async with self.engine, self._reading_orders():
            if self.demo is not None:
                await self.demo.start()
            if self.stat_log is not None:
                self.lane.watch.connections.add(self.stat_log)
            self.lane.watch.start()
            try:
                yield
            finally:
                self.lane.watch.stop()
                await self.cashier.close()
                if self.stat_log is not None:
                    self.stat_log.close()

    @asynccontextmanager
    async def _reading_orders(self) -> AsyncIterator[None]:
        """Orders can be read as soon as their store is there: nobody waits for that who buys."""
        if self.orders is None:
            yield
            return
        opening = asyncio.get_running_loop().create_task(_open(self.orders))
        try:
            yield
        finally:
            opening.cancel()
            await asyncio.wait((opening,))
            await self.orders.close()


async def _open(orders: OrderStore) -> None:
    is_told = False
    while True:
        try:
            await orders.open()
        except Exception as error:  # noqa: BLE001 - whatever it is, purchases go on and it is told
            if not is_told:
                unforeseen = not isinstance(error, StoreUnavailable | StoreOutdated)
                log.warning("orders_away", error=str(error) or repr(error), unforeseen=unforeseen)
            is_told = True
            await asyncio.sleep(OPEN_AGAIN_S)
        else:
            return
