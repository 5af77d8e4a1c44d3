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
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.property.commands import SALES
from tests.property.profiles import PROFILE
from tests.property.story import LedgerAgainstMachine
from tests.unit.shop import claim
from ticketrush.audit import audit
from ticketrush.errors import LedgerUnavailable
from ticketrush.events import AnyEvent
from ticketrush.ledger import embedded
from ticketrush.ledger.embedded import EmbeddedLedger, read_for_audit
from ticketrush.model import Command, Confirm, CreateSale, Reason, Refused, Reserve

pytestmark = pytest.mark.timeout(400)  # only a failure takes that long: Hypothesis makes it small on real files


class EmbeddedAgainstMachine(LedgerAgainstMachine):
    """The ledger on a real file."""

    ledger: EmbeddedLedger

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ticketrush-"))
        self.lives = 0
        super().__init__()

    @property
    def path(self) -> Path:
        return self.folder / f"life-{self.lives}.db"

    def open(self) -> None:
        self.ledger = EmbeddedLedger(self.path, durability="memory")
        self.runner.run(self.ledger.start())

    def stop(self, snapshot: bool) -> None:
        with patch.object(embedded, "SNAPSHOT_AFTER", 1 if snapshot else 1_000_000):
            self.runner.run(self.ledger.close())

    @rule(snapshot=st.booleans())
    def restart(self, snapshot: bool) -> None:
        self.stop(snapshot)
        self.open()
        self.all_is_there()

    @rule()
    def crash(self) -> None:
        """Go on with the files as they are on the disk while the ledger has them open."""
        before = self.path
        self.lives += 1
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{before}{suffix}", f"{self.path}{suffix}")
        self.stop(snapshot=False)
        self.open()
        self.all_is_there()

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
