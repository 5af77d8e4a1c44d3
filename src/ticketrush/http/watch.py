"""Looks after connections once a second: the date, the slow, the idle.

One timer for all connections, instead of one for each: a request costs no timer, and time is
measured in whole ticks, which is exact enough for closing connections.
"""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from typing import Final, Protocol

from ticketrush import logs

TICK_S: Final = 1.0

log = logs.get("ticketrush.http")


class Watched(Protocol):
    """A connection that is looked after."""

    def on_tick(self, tick: int) -> None:
        """Called once a second with the number of the second."""
        ...


class Watch:
    """The clock of all connections of a server."""

    def __init__(self) -> None:
        self.tick = 0
        """Seconds since the watch began."""
        self.connections: set[Watched] = set()
        self.date_line = b""
        self._handle: asyncio.TimerHandle | None = None
        self._set_date()

    def start(self) -> None:
        """Begin to tick, on the running event loop."""
        self._handle = asyncio.get_running_loop().call_later(TICK_S, self._on_tick)

    def stop(self) -> None:
        """End it."""
        if self._handle is not None:
            self._handle.cancel()

    def _on_tick(self) -> None:
        self.start()
        self.tick += 1
        self._set_date()
        for connection in list(self.connections):
            try:
                connection.on_tick(self.tick)
            except Exception:
                log.exception("tick_failed")  # one connection must not stop the watch over the others

    def _set_date(self) -> None:
        self.date_line = b"date: " + formatdate(usegmt=True).encode("ascii") + b"\r\n"
