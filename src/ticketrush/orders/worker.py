"""The order worker: takes what the event log says and writes it into the order store.

At least once from the log, and once in effect: the store knows a notice again. What the store refuses
becomes a dead letter, and no more than that: a batch that is refused is halved until the guilty one
is alone. A store or a log that is away is waited for, as long as it takes; nothing is dropped, by age
or by number, and while the store is away nothing more is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from ticketrush import logs
from ticketrush.clock import SystemClock
from ticketrush.errors import TicketrushError
from ticketrush.orders.errors import NoticeRefused, SourceUnavailable, StoreOutdated, StoreUnavailable
from ticketrush.orders.model import PAYLOAD_MAX, DeadLetter, Notice
from ticketrush.orders.notices import encode
from ticketrush.orders.patience import RETRY_S, RETRY_S_MAX, Patience, Stopped
from ticketrush.orders.protocol import Message, OrderStore, Source

BATCH_MAX: Final = 10_000
"""Notices that are written in one transaction."""

COLLECT_S: Final = 0.08
"""From one transaction to the next at least, unless there is plenty: a lone order is written at once, and those of a
crowd share the cost: few big transactions touch fewer pages than many small ones."""

WAIT_S: Final = 0.5
"""How long a log with nothing new is listened to before the worker looks whether it shall stop."""

DEFECTS_MAX: Final = 3
"""How often a batch that fails for no reason that we know is tried before it is taken apart."""

LAG_S: Final = 1.0
"""How often the lag is asked for, unless that is expensive."""

LAG_COST: Final = 20
"""How many times as long as an answer takes it is not asked for again: with 10,000 sales it takes half a second."""

MARK: Final = 8
"""Characters of a payload's checksum in the name of a dead letter."""

_R = TypeVar("_R")

log = logs.get("ticketrush.orders")


class OrderWorker:
    """Moves notices from a source to a store until it is stopped."""

    def __init__(self, source: Source, store: OrderStore, *, batch_max: int = BATCH_MAX) -> None:
        """Both are open already, and the caller closes them."""
        self._source, self._store, self._batch_max = source, store, batch_max
        self._clock = SystemClock()
        self._patience = Patience(log, StoreUnavailable, StoreOutdated, SourceUnavailable)
        self.stored = 0
        """Notices written, repetitions among them."""
        self.dead = 0
        """Messages that became dead letters."""
        self.lag: int | None = None
        """Messages that wait in the log, as of a moment ago (see `LAG_S`); None while that is not known."""

    @property
    def away(self) -> str:
        """Why the log or the store is waited for; "" while both answer."""
        return self._patience.away

    def stop(self) -> None:
        """Finish the batch under way and return from `run`."""
        self._patience.stopping.set()

    async def run(self) -> None:
        """Work until `stop`. Whatever was read and not written by then will be sent again."""
        asking = asyncio.create_task(self._ask_for_lag())
        try:
            with contextlib.suppress(Stopped):
                while not self._patience.stopping.is_set():
                    begun_s = time.monotonic()
                    if 0 < await self._step() < self._batch_max // 2:
                        await self._patience.sleep(
                            begun_s + COLLECT_S - time.monotonic()
                        )  # few big ones touch fewer pages
        finally:
            asking.cancel()
            await asyncio.wait((asking,))

    @property
    def is_level(self) -> bool:
        """Whether nothing waits in the log, as far as it is known, and log and store answer."""
        return self.lag == 0 and not self.away

    async def _ask_for_lag(self) -> None:
        """Beside the work, which does not wait for it."""
        while True:
            began_s = time.monotonic()
            try:
                self.lag = await self._source.lag()
                wait_s = max(LAG_S, LAG_COST * (time.monotonic() - began_s))
            except TicketrushError:  # the work finds out as well
                self.lag, wait_s = None, RETRY_S_MAX
            except Exception:  # orders are made all the same
                log.exception("defect")
                self.lag, wait_s = None, RETRY_S_MAX
            await asyncio.sleep(wait_s)

    # --- steps ------------------------------------------------------------------------------

    async def _step(self) -> int:
        """Read once, and write what came; how many messages that were."""
        messages = await self._patiently(lambda: self._source.next(self._batch_max, WAIT_S))
        if messages:
            await self._write(messages, self._source.position())
            await self._patiently(self._source.done)
        return len(messages)

    async def _write(self, messages: Sequence[Message], position: tuple[str, str] | None) -> None:
        """Write messages; those that are refused become dead letters."""
        notices = [message.notice for message in messages if message.notice is not None]
        dead = [self._letter(message, message.error) for message in messages if message.notice is None]
        refused = await self._put(notices, dead, position)
        if refused is None:
            return
        if len(messages) == 1:
            await self._put([], [self._letter(messages[0], refused)], position)
            return
        half = len(messages) // 2
        await self._write(messages[:half], None)
        await self._write(messages[half:], position)

    async def _put(
        self, notices: Sequence[Notice], dead: Sequence[DeadLetter], position: tuple[str, str] | None
    ) -> str | None:
        """Put, and wait for a store that is away; why it refuses, or None when it is done.

        Without notices it is not refused: dead letters are tried until they are written, or `stop`.
        """
        wait_s = RETRY_S
        for attempt in itertools.count(1):
            try:
                await self._patiently(lambda: self._store.put(notices, dead=dead, position=position))
            except NoticeRefused as error:
                return str(error)
            except Stopped:
                raise
            except Exception as error:  # nothing that we foresee; the rest of the batch shall not wait for it
                log.exception("defect")
                why = f"{type(error).__name__}: {error}"
                if notices and attempt == DEFECTS_MAX:
                    return why
                await self._patience.pause(wait_s, why)
                wait_s = min(2 * wait_s, RETRY_S_MAX)
            else:
                break
        self.stored += len(notices)
        self.dead += len(dead)
        for letter in dead:
            log.warning("dead_letter", where=letter.where, error=letter.error)
        return None

    async def _patiently(self, call: Callable[[], Awaitable[_R]]) -> _R:
        """What `call` returns, asked for again while the log or the store is away. Raises Stopped."""
        return await self._patience.until_answered(call, self._on_away)

    def _on_away(self, error: Exception) -> None:
        if isinstance(error, SourceUnavailable):
            self.lag = None

    def _letter(self, message: Message, error: str) -> DeadLetter:
        """The place alone does not tell them apart: a topic or a file that is made anew counts from its start again."""
        payload = message.payload or (encode(message.notice) if message.notice is not None else b"")
        mark = hashlib.sha256(payload).hexdigest()[:MARK]
        return DeadLetter(f"{message.where}/{mark}", payload[:PAYLOAD_MAX], error, self._clock.now_ms())
