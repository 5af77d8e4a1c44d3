"""The embedded ledger is the machine, and a restart or a crash between any two batches changes nothing."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast
from unittest.mock import patch

import pytest
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.property.commands import SALES, Ids, batches, cancels, confirms, expires, refunds, reserves, steps
from tests.property.profiles import PROFILE
from tests.unit.shop import claim
from ticketrush.audit import audit
from ticketrush.errors import LedgerUnavailable
from ticketrush.events import AnyEvent
from ticketrush.ledger import embedded
from ticketrush.ledger.embedded import EmbeddedLedger, read_for_audit
from ticketrush.ledger.machine import Machine
from ticketrush.model import Command, Confirm, CreateSale, Reason, Refused, Reserve

pytestmark = pytest.mark.timeout(400)  # only a failure takes that long: Hypothesis makes it small on real files


class EmbeddedAgainstMachine(RuleBasedStateMachine):
    """A ledger on a real file, and a machine that lives in memory all the time, get the same commands."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="ticketrush-"))
        self.lives = 0
        self.now_ms = 0
        self.machine, self.ids = Machine(), Ids()
        self.events: list[AnyEvent] = []
        self.ledger = self.start(self.path)
        self.send(0, [CreateSale(sale) for sale in SALES])

    @property
    def path(self) -> Path:
        return self.folder / f"life-{self.lives}.db"

    def start(self, path: Path) -> EmbeddedLedger:
        ledger = EmbeddedLedger(path, durability="memory")
        self.runner.run(ledger.start())
        return ledger

    def stop(self, snapshot: bool) -> None:
        with patch.object(embedded, "SNAPSHOT_AFTER", 1 if snapshot else 1_000_000):
            self.runner.run(self.ledger.close())

    def send(self, step_ms: int, batch: Sequence[Command]) -> None:
        self.now_ms = max(0, self.now_ms + step_ms)
        ready = self.ids.settle(batch)
        note(f"at {self.now_ms}: {ready}")
        outcomes, events = self.machine.execute(self.now_ms, ready)
        self.events += events
        self.ids.learn(outcomes)
        assert self.runner.run(self.ledger.execute(self.now_ms, ready)) == outcomes

    @rule(step=steps, batch=batches)
    def send_a_batch(self, step: int, batch: list[Command]) -> None:
        self.send(step, batch)

    @rule(step=steps, asks=st.lists(reserves, min_size=1, max_size=4))
    def reserve(self, step: int, asks: list[Command]) -> None:
        self.send(step, asks)

    @rule(step=steps, change=st.one_of(confirms, cancels, refunds, expires))
    def change(self, step: int, change: Command) -> None:
        self.send(step, [change])

    @rule(snapshot=st.booleans())
    def restart(self, snapshot: bool) -> None:
        self.stop(snapshot)
        self.ledger = self.start(self.path)
        self.all_is_there()

    @rule()
    def crash(self) -> None:
        """Go on with the files as they are on the disk while the ledger has them open."""
        before = self.path
        self.lives += 1
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{before}{suffix}", f"{self.path}{suffix}")
        self.stop(snapshot=False)
        self.ledger = self.start(self.path)
        self.all_is_there()

    @precondition(lambda self: self.events)
    @rule(after=st.integers(0, 60), limit=st.integers(1, 5))
    def read_a_page_of_the_journal(self, after: int, limit: int) -> None:
        page = self.runner.run(self.ledger.events(after, limit))
        assert page == list(enumerate(self.events, 1))[after : after + limit]

    @invariant()
    def stock_agrees(self) -> None:
        assert self.ledger.sales() == self.machine.sales()
        for sale in self.machine.sales():
            assert self.ledger.stock(sale.id) == self.machine.stock(sale.id)
        assert self.ledger.next_expiry_at_ms() == self.machine.next_expiry_at_ms()

    def all_is_there(self) -> None:
        kept = self.runner.run(self.ledger.events(0, len(self.events) + 1))
        assert kept == list(enumerate(self.events, 1))
        state = self.runner.run(self.ledger.state())
        assert state == claim(self.machine)
        for row in self.machine.reservations():
            assert self.runner.run(self.ledger.reservation(row.id)) == row
            first = self.runner.run(self.ledger.reservation_for(row.sale, row.buyer, row.key))
            assert first == (row if row.key else None)
        report = audit((event for _, event in kept), state=state)
        assert report.ok, report.violations

    def teardown(self) -> None:
        try:
            self.all_is_there()
            assert read_for_audit(self.path) == (self.events, claim(self.machine))
            self.stop(snapshot=False)
            assert read_for_audit(self.path) == (self.events, claim(self.machine))
        finally:
            self.runner.run(self.ledger.close())
            self.runner.close()
            shutil.rmtree(self.folder)


TestEmbeddedAgainstMachine = EmbeddedAgainstMachine.TestCase
TestEmbeddedAgainstMachine.settings = settings(PROFILE, max_examples=PROFILE.max_examples // 2)


RAIL = SALES[0]


class NoRoom:
    """A disk that takes no writes."""

    def append(self, events: Sequence[AnyEvent]) -> None:
        raise LedgerUnavailable("no room")


def test_a_batch_that_cannot_be_decided_leaves_nothing_behind(tmp_path: Path) -> None:
    async def story() -> None:
        ledger = EmbeddedLedger(tmp_path / "journal.db", durability="memory")
        await ledger.start()
        await ledger.execute(0, [CreateSale(RAIL)])
        nonsense = cast("Command", "not a command")
        with pytest.raises((KeyError, TypeError, ValueError, LedgerUnavailable)):
            await ledger.execute(1, [Reserve("r1", "rail", "second", "ann", 1, ""), nonsense])
        assert await ledger.reservation("r1") is None
        assert await ledger.execute(2, [Confirm("r1", "p")]) == [Refused(Reason.UNKNOWN_RESERVATION)]
        events = [event for _, event in await ledger.events(0, 100)]
        report = audit(events, state=await ledger.state())
        assert report.ok, report.violations
        await ledger.close()
        again = EmbeddedLedger(tmp_path / "journal.db", durability="memory")
        await again.start()
        await again.close()

    asyncio.run(asyncio.wait_for(story(), 10))


@pytest.mark.timeout(20)  # a loop that never yields cannot be timed out from inside
def test_reading_from_a_ledger_that_failed_and_was_closed_does_not_wait_for_ever(tmp_path: Path) -> None:
    async def story() -> None:
        ledger = EmbeddedLedger(tmp_path / "journal.db", durability="memory")
        await ledger.start()
        with patch.object(ledger._journal, "append", NoRoom().append), pytest.raises(LedgerUnavailable):
            await ledger.execute(0, [CreateSale(RAIL)])
        await ledger.close()
        with pytest.raises(LedgerUnavailable):
            await ledger.reservation("r1")

    asyncio.run(asyncio.wait_for(story(), 10))
