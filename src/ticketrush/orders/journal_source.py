"""The journal of an embedded ledger as an event log, read by another process than the one that owns it.

How far it was read is kept by the store, in the transaction that wrote the orders: number of the last
event and the checksum of its batch, under the checksum of the journal's first batch, so that several
journals may be read into one store. A journal that does not have that event (a backup was put back,
or a power cut took its end, also while we read) is read again from its start, which is harmless.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from ticketrush import events as ev
from ticketrush import logs
from ticketrush.errors import JournalError
from ticketrush.events import AnyEvent
from ticketrush.ledger.tail import Tail
from ticketrush.ledger.worker import Worker
from ticketrush.orders.errors import SourceUnavailable
from ticketrush.orders.notices import Prices, notice_of
from ticketrush.orders.protocol import Message, OrderStore

POLL_S: Final = 0.02
"""How often a journal that has nothing new is looked at."""

PAGE: Final = 10_000

_P = ParamSpec("_P")
_R = TypeVar("_R")

log = logs.get("ticketrush.orders")


class JournalSource:
    """A `Source`. One process owns the journal and writes it; this one only reads it."""

    def __init__(self, path: Path, store: OrderStore) -> None:
        self._path, self._store = path, store
        self._journal: Tail | None = None
        self._thread = Worker("journal-source")
        self._prices = Prices()
        self._file = (0, 0)
        self._first = 0
        """The checksum of the journal's first batch; 0 before there is one."""
        self._seq = self._chain = 0
        """How far it was read."""
        self._done = 0
        """How far it was read and stored."""
        self._is_told = False
        """Something was returned that is not done."""

    @property
    def name(self) -> str:
        """See `Source.name`: which journal it is."""
        return f"journal/{self._first:08x}"

    async def open(self) -> None:
        """See `Source.open`."""
        await self._call(self._meet)
        said = await self._store.position(self.name) if self._first else None
        seq, _, chain = (said or "0/0").partition("/")
        self._seq, self._chain = int(seq), int(chain)
        self._done = self._seq

    async def close(self) -> None:
        """See `Source.close`."""
        if self._journal is not None:
            await self._thread.call(self._journal.close)
            self._journal = None
        self._thread.stop()

    async def next(self, most: int, wait_s: float) -> Sequence[Message]:
        """See `Source.next`."""
        until_s = time.monotonic() + wait_s
        while True:
            events = await self._call(self._read, most)
            messages = list(self._messages(events))
            if messages:
                self._is_told = True
            elif not self._is_told:
                self._done = self._seq
            if messages or time.monotonic() >= until_s:
                return messages
            if not events:
                await asyncio.sleep(POLL_S)

    def position(self) -> tuple[str, str] | None:
        """See `Source.position`."""
        return (self.name, f"{self._seq}/{self._chain}") if self._seq else None

    async def done(self) -> None:
        """See `Source.done`. The store keeps the position."""
        self._done, self._is_told = self._seq, False

    async def lag(self) -> int:
        """See `Source.lag`. Events, of which most are notices."""
        return await self._call(self._lag)

    # --- in the thread ----------------------------------------------------------------------

    async def _call(self, function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return await self._thread.call(function, *args, **kwargs)
        except JournalError as error:
            raise SourceUnavailable(str(error)) from error

    def _meet(self) -> None:
        self._first = self._there().chain_of(1) or 0

    def _there(self) -> Tail:
        """The journal that is at the path now; an open one may have been moved away since."""
        try:
            status = self._path.stat()
        except OSError as error:
            if isinstance(error, FileNotFoundError) and self._journal is None:
                serve = f"`ticketrush serve --ledger sqlite:///{self._path}`"
                raise JournalError(f"there is no journal {self._path}: waiting for {serve} to make it") from error
            raise JournalError(f"cannot read the journal {self._path}: {error.strerror}") from error
        file = (status.st_dev, status.st_ino)
        if self._journal is not None and file != self._file:
            self._journal.close()
            self._journal = None
        if self._journal is None:
            self._journal, self._file = Tail(self._path), file
        return self._journal

    def _begin_again_in_another(self, journal: Tail) -> None:
        if self._seq and journal.chain_of(self._seq) != self._chain:
            hint = "it is read from its start"
            log.warning("another_journal", path=str(self._path), at_event=self._seq, hint=hint)
            self._seq = self._chain = self._done = 0

    def _read(self, most: int) -> list[tuple[int, AnyEvent]]:
        journal = self._there()
        with journal.still():
            self._begin_again_in_another(journal)
            events = journal.read(self._seq, most)
            if events:
                self._learn(journal, events)
                last = events[-1][0]
                chain = journal.chain_of(last)
                assert chain is not None, "it was read a moment ago"
                self._first = journal.chain_of(1) or 0
                self._seq, self._chain = last, chain
        return events

    def _lag(self) -> int:
        journal = self._there()
        with journal.still():
            is_another = self._seq and journal.chain_of(self._seq) != self._chain
            return journal.last_seq() - (0 if is_another else self._done)

    def _learn(self, journal: Tail, events: Sequence[tuple[int, AnyEvent]]) -> None:
        """Know the prices of all sales that these events are about; those before where reading began are looked up."""
        wanted = {event.sale for _, event in events if isinstance(event, ev.Held)}
        for _, event in events:
            if isinstance(event, ev.SaleCreated):
                self._prices.learn(event.sale)
        before = 0
        while not all(map(self._prices.knows, wanted)):
            page = journal.read(before, PAGE)
            if not page:
                return
            before = page[-1][0]
            for _, event in page:
                if isinstance(event, ev.SaleCreated):
                    self._prices.learn(event.sale)

    def _messages(self, events: Sequence[tuple[int, AnyEvent]]) -> Iterator[Message]:
        name, prices = self.name, self._prices
        for seq, event in events:
            try:
                notice = notice_of(event, prices)
            except (KeyError, ValueError) as error:
                yield Message(f"{name}/{seq}", repr(event).encode(), None, f"{type(error).__name__}: {error}")
            else:
                if notice is not None:
                    yield Message(f"{name}/{seq}", b"", notice)
