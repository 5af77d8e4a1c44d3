"""Why a bench run cannot give figures."""

from __future__ import annotations

from ticketrush.errors import TicketrushError


class BenchError(TicketrushError):
    """The bench could not measure, or what it measured was not what it meant to measure."""
