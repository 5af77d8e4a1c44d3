"""What can go wrong with a rush, apart from what it is there to find."""

from __future__ import annotations

from ticketrush.errors import TicketrushError


class CrowdError(TicketrushError):
    """The rush could not be carried out, so nothing can be said of the server. The text says why."""


class OptionError(CrowdError, ValueError):
    """An option has a value that makes no sense; names it, the value, and what it may be."""
