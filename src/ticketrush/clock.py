"""Wall time and monotonic time, never mixed.

Wall time dates what happened (``*_at_ms``: UTC, milliseconds since 1970) and is what people and
other machines see. Monotonic time measures how long something took (``*_s``) and means nothing
outside this process. No value of one kind is ever compared with, or added to, one of the other.
"""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Protocol


@lru_cache(maxsize=4_096)
def iso(at_ms: int) -> str:
    """A moment as ISO 8601 in UTC with milliseconds, such as 2026-11-22T10:00:00.123Z."""
    return datetime.fromtimestamp(at_ms / 1_000, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def iso_or_none(at_ms: int | None) -> str | None:
    """The same; None stays None."""
    return None if at_ms is None else iso(at_ms)


class Clock(Protocol):
    """Where every layer gets its time from; tests pass one that they move by hand."""

    def now_ms(self) -> int:
        """Wall time: UTC, whole milliseconds since 1970. Never less than an earlier answer."""
        ...

    def not_before(self, at_ms: int) -> None:
        """Answer no wall time below `at_ms` from now on, and go on from there."""
        ...

    def monotonic_s(self) -> float:
        """Seconds since some fixed moment. Only differences mean anything."""
        ...


class SystemClock:
    """The machine's clock, except that wall time never goes backwards.

    When an operator or NTP sets the machine's clock back, wall time goes on at the pace of
    monotonic time from where it was: holds expire when they were promised to, and the events of a
    journal stay in order. When the machine's clock is set forward (or the machine slept), wall time
    follows at once.

    `not_before_ms` is the earliest wall time to answer: a journal passes its last event's time, so
    that time does not go backwards across a restart either. Safe to share between threads.
    """

    __slots__ = ("_lock", "_offset_ns")

    def __init__(self, *, not_before_ms: int = 0) -> None:
        self._lock = threading.Lock()
        self._offset_ns = not_before_ms * 1_000_000 - time.monotonic_ns()

    def now_ms(self) -> int:
        """Wall time: UTC, whole milliseconds since 1970. Never less than an earlier answer."""
        # Wall time is read first: a pause between the two readings then makes the offset too small,
        # which the next reading mends, and never too large, which would last.
        wall_ns = time.time_ns()
        monotonic_ns = time.monotonic_ns()
        if wall_ns - monotonic_ns > self._offset_ns:
            with self._lock:
                self._offset_ns = max(self._offset_ns, wall_ns - monotonic_ns)
        return (monotonic_ns + self._offset_ns) // 1_000_000

    def not_before(self, at_ms: int) -> None:
        """Answer no wall time below `at_ms` from now on, and go on from there at the pace of monotonic time."""
        with self._lock:
            self._offset_ns = max(self._offset_ns, at_ms * 1_000_000 - time.monotonic_ns())

    def monotonic_s(self) -> float:
        """Seconds since some fixed moment. Only differences mean anything."""
        return time.monotonic()
