"""Ids that nobody can guess: 128 random bits in hex."""

from __future__ import annotations

import os
from typing import Final

DRAWN: Final = 32
"""Hex digits of an id."""

_AT_ONCE: Final = 256


class Ids:
    """Draws ids, many at once: asking the system for each would cost more than the rest of a purchase."""

    __slots__ = ("_drawn",)

    def __init__(self) -> None:
        self._drawn: list[str] = []

    def draw(self) -> str:
        """A new id: 32 hex digits."""
        if not self._drawn:
            drawn = os.urandom(16 * _AT_ONCE).hex()
            self._drawn = [drawn[i : i + DRAWN] for i in range(0, len(drawn), DRAWN)]
        return self._drawn.pop()
