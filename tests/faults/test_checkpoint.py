"""The journal's WAL is brought into the database beside the commits: it stays short, and nothing is lost by it."""

from __future__ import annotations

import asyncio
import threading
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
PAGE_BYTES = 4_096 + 24


async def sell(path: Path) -> int:
    """Sell batch after batch without a pause; the longest that the WAL was, in pages."""
    ledger = EmbeddedLedger(path, durability="memory")
    await ledger.start()
    await ledger.execute(0, [CreateSale(Sale("g1", (Item("second", BATCHES * BATCH),), opens_at_ms=0))])
    longest = 0
    for number in range(BATCHES):
        batch = [Reserve(f"r{number}-{n}", "g1", "second", f"buyer-{n}", 1, f"k{number}-{n}") for n in range(BATCH)]
        await ledger.execute(number + 1, batch)
        longest = max(longest, path.with_name(path.name + "-wal").stat().st_size // PAGE_BYTES)
    await ledger.close()
    return longest


def test_the_wal_stays_short_under_a_stream_of_commits(tmp_path: Path) -> None:
    path = tmp_path / "tickets.db"
    with patch.object(journal, "CHECKPOINT_PAGES", 20), patch.object(journal, "WAL_PAGES_MAX", 100):
        longest = asyncio.run(asyncio.wait_for(sell(path), 60))

    with patch.object(journal.Journal, "wants_checkpoint", False):
        unkept = asyncio.run(asyncio.wait_for(sell(tmp_path / "unkept.db"), 60))

    assert 20 <= longest <= unkept // 2, "it began again at its start when it was long"
    events, state = read_for_audit(path)
    assert sum(level.held for level in state.levels["g1"].values()) == BATCHES * BATCH
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
        asyncio.run(asyncio.wait_for(sell(path), 60))

    assert failed > 1, "it was tried again"
    events, state = read_for_audit(path)
    assert sum(level.held for level in state.levels["g1"].values()) == BATCHES * BATCH
    assert audit(events, state=state).ok
