"""The units of one item that a node has leased and not spent: its local stock.

Totals only grow, so every message about them may be lost, late or repeated (the protocol is checked
exhaustively by tests/property/lease_model.py). A lease whose state is in doubt is dropped, never
guessed at: the node takes a new one under a new incarnation, and the old one is reclaimed.
"""

from __future__ import annotations

import secrets
from typing import Final

IDLE_S: Final = 0.1
"""How long units may lie unused before they go back."""


class LocalStock:
    """One lease of one item, as its node sees it."""

    __slots__ = ("_known_back", "_known_granted", "_life", "_number", "asked", "back", "lease", "units", "used_s")

    def __init__(self, node: str) -> None:
        self._life = f"{node}.{secrets.token_hex(4)}"
        """The node, and chance, so that one of the same name is another."""
        self._number = 0
        self.used_s = 0.0
        """When it was used last, monotonic."""
        self._renew()

    def _renew(self) -> None:
        self._number += 1
        self.lease = f"{self._life}.{self._number}"
        """The lease. Those of one life are numbered in order, so that one number closes all before it."""
        self.units = 0
        """Units that may be spent."""
        self.back = 0
        """Units given back so far, in all."""
        self._known_granted = self._known_back = 0
        self.asked = False
        """Whether the stock was ever asked for units under this lease; it may have granted some."""

    def heard(self, lease: str, granted: int, back: int) -> None:
        """The stock has said how many units `lease` was granted, and knows of so many given back, in all."""
        if lease != self.lease:
            return
        if granted > self._known_granted:
            self.units += granted - self._known_granted
            self._known_granted = granted
        self._known_back = max(self._known_back, back)

    @property
    def returning(self) -> int:
        """Units on their way back to the stock."""
        return self.back - self._known_back

    def take(self, units: int) -> int:
        """Take at most `units` out, to be spent by one call; what is not spent comes back by `put`."""
        taken = min(units, self.units)
        self.units -= taken
        return taken

    def put(self, lease: str, units: int) -> None:
        """Units of `lease` that a call, which was answered, did not spend."""
        if lease == self.lease:
            self.units += units

    def give_back(self) -> int:
        """Part with all units; the total to tell the stock."""
        self.back += self.units
        self.units = 0
        return self.back

    def drop(self) -> str | None:
        """Take a new lease; the old one, if it may still have units, is to be reclaimed."""
        old = self.lease if self.asked else None
        self._renew()
        return old
