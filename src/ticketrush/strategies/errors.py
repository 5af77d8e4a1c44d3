"""What can go wrong with a comparison, apart from what it is there to measure."""

from __future__ import annotations

from ticketrush.errors import TicketrushError


class StrategyError(TicketrushError):
    """The comparison could not be carried out, so nothing can be said of the strategies. The text says why."""


class StoreBusy(StrategyError):
    """The database did not answer in time, or not at all; whether it did what was asked is not known."""
