"""What can go wrong with a rush, apart from what it is there to find."""

from __future__ import annotations

from ticketrush.errors import TicketrushError


class CrowdError(TicketrushError):
    """The rush could not be carried out, so nothing can be said of the server. The text says why."""


class OptionError(CrowdError, ValueError):
    """An option has a value that makes no sense; names it, the value, and what it may be."""


class NoAnswer(CrowdError):
    """The server takes no connections, or does not answer."""


class Stopped(CrowdError):
    """Somebody stopped the rush. `signal` is the number of the signal that said so."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.signal = number
