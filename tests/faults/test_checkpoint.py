"""The journal's WAL is brought into the database beside the commits: it stays short, and nothing is lost by it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import apsw

from ticketrush import Item, Sale
from ticketrush.audit import audit
from ticketrush.ledger import journal
from ticketrush.ledger.embedded import EmbeddedLedger, read_for_audit
from ticketrush.model import CreateSale, Reserve

BATCHES, BATCH = 400, 50
BATCHES_MAX = 10 * BATCHES


@dataclass
class Stream:
    """Batch after batch without a pause; lengths are those of the WAL, in pages."""

    sold: int = 0
    longest: int = 0
    written: int = 0

    async def sell(self, path: Path, goes_on: Callable[[], bool] = lambda: False) -> None:
        """Sell `BATCHES`, and more while it `goes_on`."""
        ledger = EmbeddedLedger(path, durability="memory")
        await ledger.start()
        await ledger.execute(0, [CreateSale(Sale("g1", (Item("second", BATCHES_MAX * BATCH),), opens_at_ms=0))])
        assert ledger._journal is not None
        before = self.written = ledger._journal._wal_pages
        for number in range(BATCHES_MAX):
            if number >= BATCHES and not goes_on():
                break
            asks = [Reserve(f"r{number}-{n}", "g1", "second", f"buyer-{n}", 1, f"k{number}-{n}") for n in range(BATCH)]
            await ledger.execute(number + 1, asks)
            pages = ledger._journal._wal_pages
            self.sold += BATCH
            self.longest = max(self.longest, pages)
            self.written += pages - before if pages > before else pages
            before = pages
        await ledger.close()

    def is_long(self) -> bool:
        """Whether half of all that was written was in it at once; so it is for a while after one slow sync."""
        return self.longest > self.written // 2


def test_the_wal_stays_short_under_a_stream_of_commits(tmp_path: Path) -> None:
    path = tmp_path / "tickets.db"
    stream, unkept = Stream(), Stream()
    with patch.object(journal, "CHECKPOINT_PAGES", 20), patch.object(journal, "WAL_PAGES_MAX", 100):
        asyncio.run(asyncio.wait_for(stream.sell(path, stream.is_long), 60))

    with patch.object(journal.Journal, "wants_checkpoint", False):
        asyncio.run(asyncio.wait_for(unkept.sell(tmp_path / "unkept.db"), 60))

    assert stream.longest >= 20
    assert not stream.is_long(), "it began again at its start when it was long"
    assert unkept.is_long()
    events, state = read_for_audit(path)
    assert sum(level.held for level in state.levels["g1"].values()) == stream.sold
    assert audit(events, state=state).ok


def test_a_checkpoint_that_fails_disturbs_no_commit(tmp_path: Path) -> None:
    path = tmp_path / "tickets.db"
    real, failed = apsw.Connection, 0

    def refuse_a_second_writer(name: str, **more: Any) -> apsw.Connection:
        nonlocal failed
        if threading.current_thread().name == "ticketrush-checkpoint":
            failed += 1
            raise apsw.CantOpenError("no")
        return real(name, **more)

    with patch.object(journal, "CHECKPOINT_PAGES", 20), patch.object(apsw, "Connection", refuse_a_second_writer):
        asyncio.run(asyncio.wait_for((stream := Stream()).sell(path), 60))

    assert failed > 1, "it was tried again"
    events, state = read_for_audit(path)
    assert sum(level.held for level in state.levels["g1"].values()) == stream.sold == BATCHES * BATCH
    assert audit(events, state=state).ok
