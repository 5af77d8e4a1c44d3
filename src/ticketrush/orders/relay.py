"""The relay: publishes what the ledger's streams say to Apache Kafka.

At least once: an entry of a stream is acknowledged when the brokers have all its notices, and is
published again when the relay dies in between. Several relays share the work, and take over from each
other. While Kafka or the ledger is away, nothing is read, nothing is dropped, and it is tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from typing import Final

from ticketrush import logs
from ticketrush.orders.errors import BrokerUnavailable, SourceUnavailable
from ticketrush.orders.patience import Patience, Stopped
from ticketrush.orders.protocol import Source
from ticketrush.orders.publisher import Publisher

BATCH_MAX: Final = 10_000
"""Notices that are published and acknowledged together."""

WAIT_S: Final = 0.5
TELL_S: Final = 10.0
"""How often it logs how far it is, if anything was published."""

log = logs.get("ticketrush.orders.relay")


class Relay:
    """Moves notices from a source to a topic until it is stopped. Neither needs to be open; both are closed."""

    def __init__(self, source: Source, publisher: Publisher, *, batch_max: int = BATCH_MAX) -> None:
        self._source, self._publisher, self._batch_max = source, publisher, batch_max
        self._patience = Patience(log, BrokerUnavailable, SourceUnavailable)
        self._told_s, self._told = time.monotonic(), 0
        self.published = 0
        """Messages that the brokers have, repetitions among them."""

    @property
    def away(self) -> str:
        """Why the ledger or Kafka is waited for; "" while both answer."""
        return self._patience.away

    def stop(self) -> None:
        """Finish the batch under way, unless Kafka does not take it, and return from `run`."""
        self._patience.stopping.set()
        self._publisher.stop()

    async def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Work until `stop`; `started` is called once both are open."""
        try:
            await self._patience.until_answered(self._publisher.open)
            await self._patience.until_answered(self._source.open)
            started()
            while not self._patience.stopping.is_set():
                await self._step()
        except Stopped:
            log.info("stopped_while_away", error=self.away)
        finally:
            await self._publisher.close()
            with contextlib.suppress(SourceUnavailable):
                await self._source.close()

    async def until_signalled(self, started: Callable[[], None]) -> None:
        """Like `run`, until SIGTERM or SIGINT."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        await self.run(started)

    async def _step(self) -> None:
        messages = await self._patience.until_answered(lambda: self._source.next(self._batch_max, WAIT_S))
        if messages:
            for message in messages:
                if message.notice is None:
                    log.warning("not_a_notice", where=message.where, error=message.error)
            await self._patience.until_answered(lambda: self._publisher.publish(messages))
            self.published += len(messages)
            await self._patience.until_answered(self._source.done)
        if time.monotonic() > self._told_s + TELL_S and self.published > self._told:
            log.info("published", messages=self.published - self._told, lag=await self._lag())
            self._told_s, self._told = time.monotonic(), self.published

    async def _lag(self) -> int | None:
        try:
            return await self._source.lag()
        except SourceUnavailable:
            return None
