"""How long a journal without a snapshot takes to open, in a process of its own as at a server's start."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from ticketrush import events as ev
from ticketrush import model as m
from ticketrush.bench.errors import BenchError
from ticketrush.bench.result import Replay
from ticketrush.bench.target import ITEM, SALE
from ticketrush.ledger.embedded import EmbeddedLedger
from ticketrush.ledger.journal import Journal

BATCH: Final = 128
"""Reservations a commit; under load a batch is about a hundred."""
BUYERS: Final = 200_000
TIMEOUT_S: Final = 300


class _Opened(msgspec.Struct, frozen=True):
    """What the opening process reports."""

    held: int
    seconds: float
    rss_mb: float


def replay(folder: Path, reservations: int) -> Replay:
    """Write a journal of `reservations` into `folder` (not counted), open it, say how long that took.

    Raises:
        BenchError: it does not open, or not with all of its reservations.
    """
    file = folder / "replay.db"
    write(file, reservations)
    journal_mb = sum(part.stat().st_size for part in folder.glob("replay.db*")) / 1e6
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(file)], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )
    if done.returncode:
        raise BenchError(f"the journal does not open: {done.stderr.strip()[-1_000:]}")
    opened = msgspec.json.decode(done.stdout.splitlines()[-1], type=_Opened)  # log lines may come before
    if opened.held != reservations:
        raise BenchError(f"a journal of {reservations} reservations opens with {opened.held}")
    return Replay(reservations, opened.seconds, journal_mb, opened.rss_mb)


def write(file: Path, reservations: int) -> None:
    """A journal of one sale with `reservations` holds and no snapshot, as a server would have written it."""
    journal, now_ms = Journal(file, durability="memory"), time.time_ns() // 1_000_000
    try:
        for _ in journal.load()[1]:
            raise BenchError(f"{file} is not empty")
        item = m.Item(ITEM, m.CAPACITY_MAX, purchase_limit=m.CAPACITY_MAX)
        sale = m.Sale(SALE, (item,), opens_at_ms=now_ms, hold_window_ms=m.HOLD_WINDOW_MS_MAX)
        journal.append([ev.SaleCreated(now_ms, sale)])
        for start in range(0, reservations, BATCH):
            numbers = range(start, min(start + BATCH, reservations))
            journal.append([_held(number, now_ms) for number in numbers])
    finally:
        journal.close()


def _held(number: int, now_ms: int) -> ev.Held:
    """Ids and keys as long as real ones, and in no order."""
    scattered = (number * 0x9E3779B97F4A7C15F39CC0605CEDC835) & ((1 << 128) - 1)
    id, buyer = f"{scattered:032x}", f"buyer-{number % BUYERS:07d}"
    return ev.Held(now_ms, id, SALE, ITEM, buyer, 1, f"key-{id}", now_ms + m.HOLD_WINDOW_MS_MAX)


async def _open(file: Path) -> _Opened:
    """Open the journal. It is left without `close`, which would write a snapshot that nobody needs."""
    began_s = time.perf_counter()
    ledger = EmbeddedLedger(file)
    await ledger.start()
    seconds = time.perf_counter() - began_s
    stock = ledger.stock(SALE)
    return _Opened(stock.levels[0].held if stock else 0, seconds, _peak_rss_mb())


def _peak_rss_mb() -> float:
    """From the kernel's high-water mark of this program; ``ru_maxrss`` begins with that of the parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1_024 / 1e6


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(_open(Path(sys.argv[1])))) + b"\n")
