"""Which nodes die in the middle of a rush, and when: decided by the seed, before the first buyer comes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

import msgspec

EARLIEST: Final = 0.10
LATEST: Final = 0.70
"""The shares of the tickets that are sold by then."""


class Kill(msgspec.Struct, frozen=True):
    """A node that was killed: its number, seconds after the first request, tickets that were paid by then."""

    node: int
    at_s: float
    paid: int


class Doom:
    """Kills nodes as the sale goes on. `left` are those to come: (tickets paid by then, number of the node)."""

    def __init__(self, nodes: int, kills: int, tickets: int, seed: int) -> None:
        """`kills` must leave one alive."""
        assert kills == 0 or kills < nodes
        dice = random.Random(f"{seed}/kill")
        victims = dice.sample(range(nodes), kills)
        moments = sorted(max(1, round(tickets * dice.uniform(EARLIEST, LATEST))) for _ in victims)
        self.left: list[tuple[int, int]] = list(zip(moments, victims, strict=True))
        self.done: list[Kill] = []

    @property
    def milestones(self) -> list[int]:
        """How many tickets are paid whenever a node is to be killed."""
        return [moment for moment, _ in self.left]

    def look(self, paid: int, at_s: float, kill: Callable[[int], None]) -> list[Kill]:
        """`paid` tickets are paid: `kill` those whose moment has come; returns them."""
        before = len(self.done)
        while self.left and self.left[0][0] <= paid:
            _, node = self.left.pop(0)
            kill(node)
            self.done.append(Kill(node, round(at_s, 3), paid))
        return self.done[before:]
