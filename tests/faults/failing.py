"""A journal whose commits fail as a test says, and a desk that sells from it, in this process."""

from __future__ import annotations

import contextlib
import enum
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Final
from unittest.mock import patch

from ticketrush.clock import Clock
from ticketrush.engine import Engine
from ticketrush.errors import LedgerUnavailable
from ticketrush.events import AnyEvent
from ticketrush.ledger import embedded
from ticketrush.ledger.embedded import EmbeddedLedger, read_for_audit
from ticketrush.ledger.journal import Journal
from ticketrush.model import Item, Sale, SaleChanged

PATIENCE_S: Final = 0.3
HANG_S: Final = 20.0
"""The longest that a hung commit hangs, should a test forget to free it."""


class How(enum.Enum):
    """What a commit does."""

    WELL = enum.auto()
    FAIL_BEFORE = enum.auto()
    """It is not written."""
    FAIL_AFTER = enum.auto()
    """It is written, and reported as failed."""
    HANG = enum.auto()
    """It is written when `Fate.free` is called."""


class Fate:
    """Decides how the next commits go; `times` of them, then all is well again."""

    def __init__(self) -> None:
        self._how, self._times = How.WELL, 0
        self._freed = threading.Event()
        self.broken_disk = False
        """Whether probing the disk fails too."""
        self.appended = 0

    def next(self, how: How, times: int = 1) -> None:
        """Let the next `times` commits go as `how` says."""
        self._how, self._times = how, times
        self._freed.clear()

    def free(self) -> None:
        """Let a hung commit go on."""
        self._freed.set()

    @contextlib.contextmanager
    def around_append(self) -> Iterator[None]:
        """Called by the journal around every commit, in its thread."""
        how, self._times = (self._how, self._times - 1) if self._times > 0 else (How.WELL, 0)
        if how is How.FAIL_BEFORE:
            raise LedgerUnavailable("planted: the disk refused")
        if how is How.HANG:
            self._freed.wait(HANG_S)
        yield
        self.appended += 1
        if how is How.FAIL_AFTER:
            raise LedgerUnavailable("planted: the disk gave no answer")


def journal_of(fate: Fate) -> Callable[..., Journal]:
    """A journal class whose commits go as `fate` says."""

    class Failing(Journal):
        def append(self, events: Sequence[AnyEvent]) -> None:
            with fate.around_append():
                super().append(events)

        def probe(self) -> None:
            if fate.broken_disk:
                raise LedgerUnavailable("planted: the disk is still broken")
            super().probe()

    return Failing


@contextlib.asynccontextmanager
async def desk_on(
    path: Path, fate: Fate, *, capacity: int = 100, hold_ms: int = 60_000, clock: Clock | None = None
) -> AsyncIterator[Engine]:
    """A desk with the open sale "g" of "second"; at its end what is in memory must be what is on the disk.

    A commit waits for no sync: on a disk that others use, one may take longer than the patience.
    """
    with patch.object(embedded, "Journal", journal_of(fate)):
        ledger = EmbeddedLedger(path, durability="memory")
        async with Engine(ledger, clock=clock, patience_s=PATIENCE_S) as desk:
            sale = Sale("g", (Item("second", capacity, 4),), opens_at_ms=0, hold_window_ms=hold_ms)
            assert isinstance(await desk.create_sale(sale), SaleChanged)
            try:
                yield desk
            finally:
                fate.free()
            state = await desk.state()
            events, replayed = read_for_audit(path)
            assert state == replayed
            report = await desk.audit()
            assert report.ok, report.violations
            assert len(events) == report.events
