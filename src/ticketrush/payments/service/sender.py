"""Sends the test gateway's webhooks: signed, and again until they are answered 2xx, within bounds."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Final

import aiohttp

from ticketrush import logs
from ticketrush.payments.service.book import Book, Delivery
from ticketrush.payments.signatures import sign
from ticketrush.payments.wording import SILENT, why_silent

AT_ONCE: Final = 64
"""Webhooks under way at a time."""

TIMEOUT_S: Final = 5.0
BACKOFF_S: Final = 0.1
BACKOFF_S_MAX: Final = 10.0
TRIES_MAX: Final = 40
"""Tries before a webhook is given up; with these pauses that takes about five minutes."""

LOOK_S: Final = 1.0
"""How often to look for something to do, whatever one was told."""

log = logs.get("ticketrush.gateway")


class Sender:
    """Delivers what the book says is due. `wake` it when there is something new."""

    def __init__(self, book: Book, urls: Sequence[str], secret: str) -> None:
        self._book = book
        self._urls = list(urls)
        self._secret = secret
        self._under_way: dict[int, asyncio.Task[None]] = {}
        self._woken = asyncio.Event()
        self.delivered = self.retried = self.given_up = 0

    def wake(self) -> None:
        """Look at the book again, now."""
        self._woken.set()

    async def run(self) -> None:
        """Decide and deliver until cancelled."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        connector = aiohttp.TCPConnector(limit=AT_ONCE)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            try:
                while True:
                    try:
                        self._woken.clear()
                        self._book.decide(_now_ms())
                        self._begin(session)
                        await self._rest()
                    except Exception:
                        log.exception("book_fails")  # a disk that is full has room again some day
                        await asyncio.sleep(LOOK_S)
            finally:
                for task in self._under_way.values():
                    task.cancel()
                await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    def _begin(self, session: aiohttp.ClientSession) -> None:
        free = AT_ONCE - len(self._under_way)
        if not free:
            return
        for delivery in self._book.due(_now_ms(), AT_ONCE + free):
            if delivery.seq not in self._under_way and len(self._under_way) < AT_ONCE:
                self._under_way[delivery.seq] = asyncio.create_task(self._deliver(session, delivery))

    async def _rest(self) -> None:
        """Wait for the next thing to do; who delivers wakes us when it has ended."""
        wait_s = LOOK_S
        next_at_ms = self._book.next_at_ms()
        if next_at_ms is not None and len(self._under_way) < AT_ONCE:
            wait_s = min(LOOK_S, max(0.0, (next_at_ms - _now_ms()) / 1_000))
            if self._under_way:
                wait_s = max(wait_s, 0.001)  # the next thing may be one of those
        try:
            async with asyncio.timeout(wait_s):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _deliver(self, session: aiohttp.ClientSession, delivery: Delivery) -> None:
        try:
            is_taken = await self._is_taken(session, delivery)
        except Exception:
            log.exception("webhook_not_sent", webhook=delivery.message)  # ours to mend; the others shall be sent
            is_taken = False
        try:
            self._note(delivery, is_taken)
        except Exception:
            log.exception("book_fails", webhook=delivery.message)
            await asyncio.sleep(LOOK_S)  # it is sent again
        finally:
            del self._under_way[delivery.seq]
            self.wake()

    def _note(self, delivery: Delivery, is_taken: bool) -> None:
        """Delete what was taken or is given up, put off the rest."""
        if is_taken:
            self.delivered += 1
            self._book.done(delivery)
        elif delivery.tries + 1 >= TRIES_MAX:
            self.given_up += 1
            log.error("webhook_given_up", webhook=delivery.message, tries=TRIES_MAX)
            self._book.done(delivery)
        else:
            self.retried += 1
            pause_s = min(BACKOFF_S_MAX, BACKOFF_S * 2.0**delivery.tries) * random.uniform(0.5, 1.0)
            self._book.put_off(delivery, _now_ms() + round(pause_s * 1_000))

    async def _is_taken(self, session: aiohttp.ClientSession, delivery: Delivery) -> bool:
        """Send it once; whether the answer was 2xx. With several URLs, each try goes to the next one."""
        url = self._urls[(delivery.seq + delivery.tries) % len(self._urls)]
        headers = sign(self._secret, delivery.message, int(time.time()), delivery.body)
        headers["content-type"] = "application/json"
        try:
            async with session.post(url, data=delivery.body, headers=headers, allow_redirects=False) as answer:
                if 200 <= answer.status < 300:
                    return True
                said = (await answer.content.read(500)).decode(errors="replace")
                log.warning("webhook_refused", webhook=delivery.message, status=answer.status, said=said)
        except SILENT as error:
            log.info("webhook_unanswered", webhook=delivery.message, error=why_silent(error, TIMEOUT_S))
        return False


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
