"""What the application serves with, put together from settings or handed in by who embeds it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from ticketrush.admission.tokens import Tokens
from ticketrush.cashier import Cashier
from ticketrush.engine import Engine
from ticketrush.http.demo import Demo, StatLog
from ticketrush.http.lane import Lane, Limits
from ticketrush.http.purchase import Purchases
from ticketrush.payments.protocol import Gateway, Verifies
from ticketrush.payments.wiring import verifier_of


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
    ) -> Services:
        """Services around an engine that is not started yet."""
        lane = Lane(Purchases(engine, tokens), limits or Limits(), demo)
        return cls(engine, Cashier(engine, gateway), tokens, lane, webhooks or verifier_of(()), demo, stat_log)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start everything, and stop it in the opposite order: nothing accepted is forgotten."""
        async with self.engine:
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
