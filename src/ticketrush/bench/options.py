"""What a bench run may be told."""

from __future__ import annotations

import dataclasses
from pathlib import Path


@dataclasses.dataclass(frozen=True, slots=True)
class BenchOptions:
    """How long and how hard to measure.

    Every round measures each case once, for `seconds` after a warm-up of `warm_up_s`; a figure is the
    median of `rounds`. `folder` is where journals are written: a folder on a real disk, None finds one.
    `redis_details` also measures the ledger in Valkey with other settings than the defaults.
    """

    rounds: int = 3
    seconds: int = 4
    warm_up_s: int = 1
    connections: int = 200
    buyers: int = 20_000
    lone_requests: int = 2_000
    replay_reservations: int = 1_000_000
    folder: Path | None = None
    redis_details: bool = False

    def __post_init__(self) -> None:
        for name in ("rounds", "seconds", "warm_up_s", "connections", "buyers", "lone_requests", "replay_reservations"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")

    @classmethod
    def quick(cls, folder: Path | None = None) -> BenchOptions:
        """One round of two seconds: shows that all works, too short to quote."""
        return cls(rounds=1, seconds=2, folder=folder)
