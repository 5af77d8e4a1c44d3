"""The ledger of one process: the state machine in memory, the journal on disk.

A batch is applied to the machine, its events are committed to the journal in one transaction,
and only then does `execute` return. The commit runs in a thread of its own, so the process goes
on taking requests meanwhile: they form the next batch.

If a commit fails, what is in memory can no longer be trusted: the state is built again from the
journal, and writing is refused until the disk takes writes again.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from ticketrush import audit, logs
from ticketrush import model as m
from ticketrush.errors import JournalCorrupt, LedgerRefused, LedgerUnavailable
from ticketrush.events import AnyEvent
from ticketrush.ids import Ids
from ticketrush.ledger.journal import Journal
from ticketrush.ledger.machine import Machine
from ticketrush.ledger.worker import Worker

PROBE_EVERY_S: Final = 0.25
"""The longest time after which a disk that refused a write is asked again."""

SNAPSHOT_AFTER: Final = 50_000
"""Events since the last snapshot that are worth a new one when the ledger closes."""

_R = TypeVar("_R")

log = logs.get("ticketrush.ledger")


def load(journal: Journal) -> tuple[Machine, int]:
    """The machine that `journal` tells of, and how many of its events are younger than the snapshot.

    Raises:
        JournalCorrupt: the journal does not add up.
    """
    collecting = gc.isenabled()
    gc.disable()  # nothing here is garbage, and a million reservations are slow to look through
    try:
        snapshot, batches = journal.load()
        machine = Machine.restore(snapshot) if snapshot else Machine()
        known = machine.seq
        for events in batches:
            machine.replay(events)
    except (LookupError, ValueError, TypeError, AttributeError) as error:
        raise JournalCorrupt(
            f"journal {journal.path} contradicts itself ({error}); restore it from a backup"
        ) from error
    finally:
        if collecting:
            gc.enable()
    return machine, machine.seq - known


class EmbeddedLedger:
    """A `Ledger` in this process. `durability` is "fsync" or "memory" (see `journal`).

    One event loop owns it. `events` and `state` may run while commits go on.
    """

    overlap = 1

    def __init__(self, path: str | Path, *, durability: str = "fsync") -> None:
        self._path = Path(path)
        self._durability = durability
        self._machine = Machine()
        self._journal: Journal | None = None
        self._writer = Worker("ticketrush-journal")
        self._reader = Worker("ticketrush-reader")
        self._keeper = Worker("ticketrush-checkpoint")
        self._keeping: asyncio.Task[None] | None = None
        self._settled = asyncio.Event()
        self._refuse_until_s = 0.0
        self._failed = self._stale = False
        self._failures = self._since_snapshot = 0
        self._rebuilding: asyncio.Task[None] | None = None
        self._stock: dict[str, m.Stock] = {}
        self._changed: set[str] = set()
        self._ids = Ids()

    async def start(self) -> None:
        """See `Ledger.start`."""
        self._journal = await self._writer.call(Journal, self._path, durability=self._durability)
        try:
            began_s = time.monotonic()
            self._machine, self._since_snapshot = await self._writer.call(load, self._journal)
        except BaseException:
            await self.close()
            raise
        self._publish()
        self._settled.set()
        log.info(
            "journal_loaded",
            path=str(self._path),
            events=self._machine.seq,
            replayed=self._since_snapshot,
            seconds=round(time.monotonic() - began_s, 3),
        )

    async def close(self) -> None:
        """See `Ledger.close`. Leaves a snapshot if replaying would take long."""
        journal, self._journal = self._journal, None
        if self._keeping is not None:
            await self._keeping
        if journal is not None:
            if self._since_snapshot >= SNAPSHOT_AFTER and not self._stale:
                try:
                    await self._writer.call(journal.save_snapshot, self._machine.snapshot())
                except LedgerUnavailable as error:
                    log.warning("snapshot_failed", error=str(error))
            await self._writer.call(journal.close)
        self._writer.stop()
        self._reader.stop()
        self._keeper.stop()

    async def execute(self, now_ms: int, commands: Sequence[m.Command]) -> list[m.Outcome]:
        """See `Ledger.execute`: one transaction for the whole batch."""
        journal = self._journal
        if journal is None:
            raise LedgerRefused("the ledger is closed")
        if self._failed:
            await self._recover(journal)
        self._settled.clear()
        try:
            outcomes, events = self._machine.execute(now_ms, commands)
            if events:
                await self._writer.call(journal.append, events)
                self._since_snapshot += len(events)
                self._publish()
                if self._keeping is None and journal.wants_checkpoint:
                    self._keeping = asyncio.get_running_loop().create_task(self._checkpoint(journal))
            return outcomes
        except BaseException:
            self._failed = self._stale = True
            self._failures += 1
            raise
        finally:
            self._settled.set()

    async def _checkpoint(self, journal: Journal) -> None:
        """Keep the WAL short, beside the commits: a commit that had to do it would make everybody wait."""
        try:
            if await self._keeper.call(journal.checkpoint):
                await self._writer.call(journal.rewind)
        finally:
            self._keeping = None

    async def _recover(self, journal: Journal) -> None:
        """Build the state again after a failed commit, and see whether the disk takes writes again."""
        now_s = time.monotonic()
        if now_s < self._refuse_until_s:
            raise LedgerRefused(f"journal {self._path} could not be written a moment ago")
        self._refuse_until_s = now_s + PROBE_EVERY_S
        await self._rebuild(journal)
        try:
            await self._writer.call(journal.probe)
        except LedgerUnavailable as error:
            raise LedgerRefused(str(error)) from error
        self._failed = False
        log.info("journal_writable_again", path=str(self._path), events=self._machine.seq)

    async def _rebuild(self, journal: Journal) -> None:
        """Build the state again, once for all who wait for it, and also if they wait no longer."""
        if self._stale:
            if self._rebuilding is None:
                self._rebuilding = asyncio.get_running_loop().create_task(self._reload(journal))
            await asyncio.shield(self._rebuilding)

    async def _reload(self, journal: Journal) -> None:
        try:
            self._machine, self._since_snapshot = await self._writer.call(load, journal)
            self._publish()
            self._stale = False
        finally:
            self._rebuilding = None

    def _publish(self) -> None:
        """Show what has been committed."""
        changed = self._machine.changed
        for sale in changed:
            stock = self._machine.stock(sale)
            if stock is not None:
                self._stock[sale] = stock
        self._changed.update(changed)
        changed.clear()

    async def _committed(self, look: Callable[[Machine], _R]) -> _R:
        """What `look` sees in the machine, once all it can have seen is in the journal.

        That is so when the commit that was under way has succeeded: a stream of commits without a
        pause does not keep a reader waiting.
        """
        while True:
            if self._stale and self._settled.is_set():
                if self._journal is None:
                    raise LedgerUnavailable("the ledger was closed after a failed commit")
                await self._rebuild(self._journal)
            failures, seen = self._failures, look(self._machine)
            if not self._stale:
                if self._settled.is_set():
                    return seen
                await self._settled.wait()
                if failures == self._failures:
                    return seen
            else:
                await self._settled.wait()

    def sales(self) -> list[m.Sale]:
        """See `Ledger.sales`."""
        return [stock.sale for stock in self._stock.values()]

    def stock(self, sale: str) -> m.Stock | None:
        """See `Ledger.stock`."""
        return self._stock.get(sale)

    def changes(self) -> set[str]:
        """See `Ledger.changes`."""
        changed, self._changed = self._changed, set()
        return changed

    @property
    def ready(self) -> bool:
        """See `Ledger.ready`."""
        return True

    def watch(self, changed: Callable[[], None]) -> None:
        """See `Ledger.watch`: nobody else changes a journal."""

    def new_id(self, sale: str, buyer: str) -> str:
        """See `Ledger.new_id`."""
        return self._ids.draw()

    def remembers(self, sale: str, key: str) -> bool:
        """See `Ledger.remembers`."""
        return self._machine.remembers(sale, key)

    def next_expiry_at_ms(self) -> int | None:
        """See `Ledger.next_expiry_at_ms`."""
        return self._machine.next_expiry_at_ms()

    def last_event_at_ms(self) -> int:
        """See `Ledger.last_event_at_ms`."""
        return self._machine.now_ms

    async def reservation(self, id: str) -> m.Reservation | None:
        """See `Ledger.reservation`."""
        return await self._committed(lambda machine: machine.reservation(id))

    async def reservation_for(self, sale: str, buyer: str, key: str) -> m.Reservation | None:
        """See `Ledger.reservation_for`."""
        return await self._committed(lambda machine: machine.reservation_for(sale, buyer, key))

    async def events(self, after: int, limit: int) -> list[tuple[int, AnyEvent]]:
        """See `Ledger.events`. Reads from the disk, on a connection of its own."""
        return await self._reader.call(read, self._path, after, limit)

    def calls(self) -> Mapping[str, int]:
        """See `Ledger.calls`: there is no server."""
        return {}

    async def state(self) -> audit.LedgerState:
        """See `Ledger.state`."""
        return await self._reader.call(await self._committed(claim_of))


def claim_of(machine: Machine) -> Callable[[], audit.LedgerState]:
    """What `machine` holds to be true now; the slow part of saying it may run later, in a thread."""
    seq, reservations = machine.seq, list(machine.reservations())
    levels: dict[str, dict[str, m.Level]] = {}
    for sale in machine.sales():
        stock = machine.stock(sale.id)
        levels[sale.id] = {level.item: level for level in stock.levels} if stock else {}
    return lambda: audit.LedgerState.of(seq, levels, ((each.id, each.state.value) for each in reservations))


def read(path: Path, after: int, limit: int) -> list[tuple[int, AnyEvent]]:
    """At most `limit` committed events of the journal at `path` after number `after`, with their numbers.

    Needs no ownership: the owner may go on writing.
    """
    journal = Journal(path, read_only=True)
    try:
        return journal.read(after, limit)
    finally:
        journal.close()


def read_for_audit(path: str | Path) -> tuple[list[AnyEvent], audit.LedgerState]:
    """All events of the journal at `path`, and the state that starting from it would give.

    Needs no ownership; if the owner is writing, it is the journal as it was at one moment.

    Raises:
        JournalError: it cannot be read, or does not add up.
    """
    journal = Journal(Path(path), read_only=True)
    try:
        with journal.still():
            machine, _ = load(journal)
            events = [event for _, event in journal.read(0, machine.seq)]
        return events, claim_of(machine)()
    finally:
        journal.close()
