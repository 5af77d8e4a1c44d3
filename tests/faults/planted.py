"""What tests change inside a server process: planted bugs, and thresholds that make rare things frequent.

The functions run in the child, before the server starts. Nothing of this is in the product.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from unittest.mock import patch

from ticketrush import model as m
from ticketrush.ledger import embedded
from ticketrush.ledger.embedded import EmbeddedLedger
from ticketrush.ledger.journal import Journal
from ticketrush.ledger.machine import Machine

LATE_S = 0.05


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
            loop = asyncio.get_running_loop()
            loop.call_later(LATE_S, loop.run_in_executor, self._writer, journal.append, events)
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
