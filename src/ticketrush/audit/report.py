"""What an audit found."""

from __future__ import annotations

from typing import Final

import msgspec

INVARIANTS: Final = ("I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8")

SENTENCES_MAX: Final = 12
"""Violations told of each invariant, the first ones; with eight invariants fewer than 100 in all."""


class AuditReport(msgspec.Struct, frozen=True):
    """The verdict on each invariant, and the numbers behind it.

    ``vacuous`` names the invariants that hold only because there was nothing to check them with.
    ``violations`` are sentences, the first few of each invariant; ``counts`` says how many there
    were of each. ``oversold``, ``undersold``, ``held``, ``sold`` are units, all others count
    reservations: ``paid``, ``expired``, ``cancelled`` and ``refunded`` those that ever came into
    that state, ``unknown`` those that a buyer could not know of. ``orders`` are those in the order
    store, None if there was none to look into.
    """

    I1: bool
    I2: bool
    I3: bool
    I4: bool
    I5: bool
    I6: bool
    I7: bool
    I8: bool
    vacuous: list[str]
    violations: list[str]
    counts: dict[str, int]
    oversold: int
    undersold: int
    lost: int
    unexpected: int
    unknown: int
    events: int
    reservations: int
    held: int
    sold: int
    paid: int
    expired: int
    cancelled: int
    refunded: int
    orders: int | None = None

    @property
    def ok(self) -> bool:
        """Whether all eight hold."""
        return not self.broken

    @property
    def broken(self) -> list[str]:
        """The invariants that do not hold, in their order."""
        return [name for name, holds in self.invariants().items() if not holds]

    def invariants(self) -> dict[str, bool]:
        """{"I1": True, ..., "I8": True}"""
        return {name: bool(getattr(self, name)) for name in INVARIANTS}

    def to_dict(self) -> dict[str, object]:
        """All of it as plain values, ready for JSON."""
        plain: dict[str, object] = msgspec.to_builtins(self)
        return plain


class Findings:
    """Collects violations: counts all of them, keeps the first sentences of each invariant."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.sentences: list[str] = []

    def add(self, invariant: str, sentence: str) -> None:
        seen = self.counts.get(invariant, 0)
        self.counts[invariant] = seen + 1
        if seen < SENTENCES_MAX:
            self.sentences.append(f"{invariant} {sentence}")

    def at(self, invariant: str, seq: int, sentence: str) -> None:
        """As `add`, for what is seen at event number `seq`."""
        self.add(invariant, f"at event {seq}: {sentence}")
