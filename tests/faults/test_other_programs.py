"""A backup, or any other program that looks into the journal, takes nothing from those who sell."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ticketrush.events import Held
from ticketrush.ledger.embedded import read_for_audit

SELLER = '''
import asyncio, contextlib, os, signal, subprocess, sys
import ticketrush
from ticketrush import Item, Sale

path, before = sys.argv[1:]
BACKUP = """
import sqlite3, sys
journal, copy = map(sqlite3.connect, sys.argv[1:])
journal.backup(copy)
copy.close()
journal.close()
"""

async def main():
    desk = ticketrush.open(f"sqlite:///{path}")
    await desk.start()
    await desk.create_sale(Sale("g1", (Item("second", 1_000),), opens_at_ms=0))
    await desk.reserve("g1", "second", "ada", key="before")
    if before == "events":
        await desk.events(0, 10)
    elif before == "audit":
        assert (await desk.audit()).ok
    elif before == "second owner":
        with contextlib.suppress(ticketrush.JournalLocked):
            await ticketrush.open(f"sqlite:///{path}").start()
    subprocess.run([sys.executable, "-c", BACKUP, path, path + ".copy"], check=True)
    for n in range(5):
        outcome = await desk.reserve("g1", "second", "bob", key=f"after-{n}")
        print(outcome.reservation.id, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
'''


@pytest.mark.parametrize("before", ["nothing", "events", "audit", "second owner"])
def test_what_is_sold_after_a_backup_survives_kill_9(tmp_path: Path, before: str) -> None:
    path = tmp_path / "tickets.db"
    seller = subprocess.run(
        [sys.executable, "-c", SELLER, str(path), before], capture_output=True, text=True, timeout=60, check=False
    )
    assert seller.returncode == -signal.SIGKILL, seller.stderr
    told = seller.stdout.split()
    assert len(told) == 5
    events, _ = read_for_audit(path)
    kept = {event.id for event in events if isinstance(event, Held)}
    assert set(told) <= kept
    assert len(kept) == 6
