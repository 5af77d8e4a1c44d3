"""What tests change inside a server process: planted bugs, and thresholds that make rare things frequent.

The functions run in the child, before the server starts. Nothing of this is in the product.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from unittest.mock import patch

from ticketrush import model as m
from ticketrush.errors import LedgerUnavailable
from ticketrush.events import AnyEvent, Held
from ticketrush.ledger import embedded
from ticketrush.ledger.embedded import EmbeddedLedger
from ticketrush.ledger.journal import Journal
from ticketrush.ledger.machine import Machine

LATE_S = 2.0
"""Longer than a crash takes, so that nothing of it depends on how fast the machine is."""


def snapshot_often() -> None:
    """Leave a snapshot at every stop that had a few events."""
    patch.object(embedded, "SNAPSHOT_AFTER", 50).start()


def answer_before_commit() -> None:
    """A bug: buyers are told of success while the commit is still to come."""

    async def execute(self: EmbeddedLedger, now_ms: int, commands: Sequence[m.Command]) -> list[m.Outcome]:
        outcomes, events = self._machine.execute(now_ms, commands)
        self._publish()
        journal = self._journal
        if events and journal is not None:
            asyncio.get_running_loop().call_later(LATE_S, self._writer.call, journal.append, events)
        return outcomes

    patch.object(EmbeddedLedger, "execute", execute).start()


def forget_who_is_due() -> None:
    """A bug: a restart brings the holds back, but not their expiry."""
    load = embedded.load

    def forgetful(journal: Journal) -> tuple[Machine, int]:
        machine, replayed = load(journal)
        machine._ticking.clear()
        return machine, replayed

    patch.object(embedded, "load", forgetful).start()


def swallow_failed_commits() -> None:
    """A bug: a commit that failed counts as one that succeeded."""
    append = Journal.append

    def careless(self: Journal, events: Sequence[AnyEvent]) -> None:
        with contextlib.suppress(LedgerUnavailable):
            append(self, events)

    patch.object(Journal, "append", careless).start()


def hang_at_ann() -> None:
    """A disk that never answers again once Ann reserves."""
    append = Journal.append

    def hanging(self: Journal, events: Sequence[AnyEvent]) -> None:
        if any(isinstance(event, Held) and event.buyer == "ann" for event in events):
            time.sleep(600)
        append(self, events)

    patch.object(Journal, "append", hanging).start()
