"""What is away is asked again, as long as it takes, until one is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from structlog.stdlib import BoundLogger

RETRY_S: Final = 0.05
RETRY_S_MAX: Final = 2.0
"""How long what is away is left alone: doubled each time, up to the second figure."""

_R = TypeVar("_R")


class Stopped(Exception):
    """One shall stop while something is away."""


class Patience:
    """Asks again, and says in the log once that something is away, and once that it is back.

    Args:
        log: where to.
        away: the errors that mean that something is away; all others are raised.
    """

    def __init__(self, log: BoundLogger, *away: type[Exception]) -> None:
        self._log, self._errors = log, away
        self.stopping = asyncio.Event()
        """Set it to be done with waiting."""
        self.away = ""
        """Why something is waited for; "" while all answer."""

    async def until_answered(
        self, call: Callable[[], Awaitable[_R]], on_away: Callable[[Exception], None] = lambda _: None
    ) -> _R:
        """What `call` returns, in the end; `on_away` hears of each error that it was asked again for.

        Raises:
            Stopped: `stopping` was set while it was away.
        """
        wait_s = RETRY_S
        while True:
            try:
                result = await call()
            except self._errors as error:
                if not self.away:
                    self._log.warning("away", error=str(error))
                on_away(error)
                await self.pause(wait_s, str(error))
                wait_s = min(2 * wait_s, RETRY_S_MAX)
            else:
                if self.away:
                    self._log.info("back")
                    self.away = ""
                return result

    async def pause(self, wait_s: float, why: str) -> None:
        """Leave what is away alone for a while. Raises Stopped."""
        self.away = why
        await self.sleep(wait_s)
        if self.stopping.is_set():
            raise Stopped

    async def sleep(self, wait_s: float) -> None:
        """Wait, though not longer than until `stopping` is set."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self.stopping.wait()
