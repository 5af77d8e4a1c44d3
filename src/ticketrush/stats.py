"""Counters of an engine since its start, for /metrics."""

from __future__ import annotations


class Stats:
    """Counters since the start, for /metrics."""

    __slots__ = ("batches", "commands", "commits_failed", "gate_refusals", "overloaded", "unknown")

    def __init__(self) -> None:
        self.batches = self.commands = self.commits_failed = 0
        self.gate_refusals = self.overloaded = self.unknown = 0
