"""Journals to be damaged, and what starting from a damaged one may lead to."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unittest.mock import patch

import apsw

from tests.faults.starts import fingerprint
from ticketrush.audit import LedgerState
from ticketrush.errors import JournalError
from ticketrush.events import AnyEvent
from ticketrush.ledger import embedded
from ticketrush.ledger.embedded import EmbeddedLedger, claim_of, read_for_audit
from ticketrush.ledger.machine import Machine
from ticketrush.model import Cancel, Command, Confirm, CreateSale, Item, Reserve, Sale

BATCHES: Final = 120
_SALE: Final = Sale("g", (Item("second", 10_000),), opens_at_ms=0, hold_window_ms=60_000)


def batches(count: int, first: int = 0) -> Iterator[list[Command]]:
    """A sale in many small commits."""
    if first == 0:
        yield [CreateSale(_SALE)]
    for n in range(first, first + count):
        reserved = [Reserve(f"{n:04x}{each}", "g", "second", f"buyer-{n}", 1, f"key-{n}-{each}") for each in range(3)]
        yield [*reserved, Confirm(reserved[0].id, f"payment-{n}"), Cancel(reserved[1].id)]


@dataclass(frozen=True)
class Made:
    """A sound journal and all that it tells."""

    path: Path
    events: list[AnyEvent]
    state: LedgerState

    @property
    def wal(self) -> Path:
        return self.path.with_name(self.path.name + "-wal")

    def copy(self, folder: Path) -> Made:
        """The same in another folder, to be damaged."""
        folder.mkdir(parents=True)
        for each in (self.path, self.wal):
            if each.exists():
                shutil.copyfile(each, folder / each.name)
        return Made(folder / self.path.name, self.events, self.state)


def foreign(path: Path) -> Made:
    """A file that somebody else wrote."""
    return Made(path, [], LedgerState(0, {}, ""))


def make(path: Path, *, count: int = BATCHES, snapshot: bool = False) -> Made:
    """A journal that was closed well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with patch.object(embedded, "SNAPSHOT_AFTER", 1 if snapshot else 10**9):
        asyncio.run(_write(path, 0, count))
    return Made(path, *read_for_audit(path))


def crash(path: Path, *, count: int = BATCHES, tidied: int = 0) -> Made:
    """A journal as ``kill -9`` leaves it, its newest part in the WAL; the first `tidied` batches are in the file."""
    living = path.parent / "living" / path.name
    living.parent.mkdir(parents=True)
    if tidied:
        asyncio.run(_write(living, 0, tidied))
    asyncio.run(_write(living, tidied, count - tidied, crashed=path))
    state = read_for_audit(living)
    shutil.rmtree(living.parent)
    return Made(path, *state)


async def _write(path: Path, first: int, count: int, *, crashed: Path | None = None) -> None:
    ledger = EmbeddedLedger(path, durability="memory")
    await ledger.start()
    for n, batch in enumerate(batches(count, first), first):
        await ledger.execute(1_000 + n, batch)
    if crashed is not None:
        for suffix in ("", "-wal"):
            shutil.copyfile(f"{path}{suffix}", f"{crashed}{suffix}")
    await ledger.close()


@contextlib.contextmanager
def sql(path: Path) -> Iterator[apsw.Connection]:
    """The journal's tables, to be altered; it is one file afterwards."""
    connection = apsw.Connection(str(path))
    try:
        yield connection
        connection.pragma("wal_checkpoint(truncate)")
    finally:
        connection.close()


def flip(data: bytes, dice: random.Random) -> bytes:
    """The same with one bit changed."""
    changed = bytearray(data)
    changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
    return bytes(changed)


async def _start(path: Path) -> LedgerState:
    ledger = EmbeddedLedger(path)
    try:
        await ledger.start()
        return await ledger.state()
    finally:
        await ledger.close()


def start(made: Made) -> JournalError | int:
    """Start a ledger on a damaged journal: its refusal, or the number of events that it believes.

    A refusal must be a clear one and leave the file as it was; what is believed must be a whole
    beginning of what was written, and nothing else.
    """
    before = fingerprint(made.path)
    audited = _audit(made)
    assert fingerprint(made.path) == before, "an audit wrote to the journal"
    claimed = _claim(made.path)
    if isinstance(claimed, JournalError):
        assert str(made.path) in str(claimed), f"it does not name the file: {claimed}"
        assert fingerprint(made.path) == before, f"refused, but written to: {claimed}"
        assert isinstance(audited, JournalError), "the audit believes what a start refuses"
        return claimed
    assert audited == claimed.seq, f"the audit says {audited}"
    machine = Machine()
    machine.replay(made.events[: claimed.seq])
    assert claimed == claim_of(machine)(), f"half believed: {claimed.seq} events"
    return claimed.seq


def _claim(path: Path) -> JournalError | LedgerState:
    try:
        return asyncio.run(_start(path))
    except JournalError as error:
        return error


def _audit(made: Made) -> JournalError | int:
    try:
        events, _ = read_for_audit(made.path)
    except JournalError as error:
        return error
    assert events == made.events[: len(events)], "the audit reads events that nobody wrote"
    return len(events)
