"""A clock that moves only when a test says so."""

from __future__ import annotations


class ManualClock:
    """Wall time and monotonic time, moved by hand; wall time can be set without the other moving."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._now_ms = now_ms
        self._monotonic_s = 0.0

    def now_ms(self) -> int:
        """Wall time: UTC, whole milliseconds since 1970."""
        return self._now_ms

    def monotonic_s(self) -> float:
        """Seconds since the clock was made."""
        return self._monotonic_s

    def not_before(self, at_ms: int) -> None:
        """Answer no wall time below `at_ms` from now on."""
        self._now_ms = max(self._now_ms, at_ms)

    def advance(self, *, ms: int) -> None:
        """Let `ms` milliseconds pass."""
        assert ms >= 0, "time does not go backwards"
        self._now_ms += ms
        self._monotonic_s += ms / 1_000
