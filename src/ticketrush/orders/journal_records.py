"""The reservations of an embedded ledger, folded from its journal by another process than its owner."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from ticketrush import events as ev
from ticketrush import model as m
from ticketrush.errors import JournalError, LedgerUnavailable
from ticketrush.events import AnyEvent
from ticketrush.ledger.tail import Tail
from ticketrush.ledger.worker import Worker
from ticketrush.orders.notices import Prices

PAGE: Final = 10_000
ROWS: Final = 1_000

_STATES: Final[dict[type, m.State]] = {
    ev.Paid: m.State.PAID,
    ev.Cancelled: m.State.CANCELLED,
    ev.Expired: m.State.EXPIRED,
    ev.Refunded: m.State.REFUNDED,
}


class JournalRecords:
    """`Records` of the journal at `path`; about 700 bytes of memory a reservation."""

    def __init__(self, path: Path) -> None:
        self.prices = Prices()
        self._path = path
        self._thread = Worker("journal-records")
        self._tail: Tail | None = None
        self._rows: dict[str, m.Reservation] = {}
        self._seq = 0

    async def open(self) -> None:
        """See `Records.open`."""
        await self._catch_up()

    async def close(self) -> None:
        """Let the journal go. May be called twice."""
        if self._tail is not None:
            await self._thread.call(self._tail.close)
            self._tail = None
        self._thread.stop()

    async def pages(self) -> AsyncIterator[Sequence[m.Reservation]]:
        """See `Records.pages`."""
        await self._catch_up()
        rows = iter(list(self._rows.values()))
        while page := list(islice(rows, ROWS)):
            yield page

    async def reservations(self, ids: Collection[str]) -> Mapping[str, m.Reservation]:
        """See `Records.reservations`."""
        await self._catch_up()
        return {id: self._rows[id] for id in ids if id in self._rows}

    async def turn(self, within_s: float) -> bool:
        """See `Records.turn`: there is one worker beside a file."""
        return True

    async def _catch_up(self) -> None:
        try:
            while await self._thread.call(self._read):
                pass
        except JournalError as error:
            raise LedgerUnavailable(str(error)) from error

    def _read(self) -> bool:
        """Fold the next events; False if there are none."""
        if self._tail is None:
            self._tail = Tail(self._path)
        events = self._tail.read(self._seq, PAGE)
        for seq, event in events:
            self._fold(event)
            self._seq = seq
        return len(events) == PAGE

    def _fold(self, event: AnyEvent) -> None:
        if isinstance(event, ev.SaleCreated):
            self.prices.learn(event.sale)
        elif isinstance(event, ev.Held):
            self._rows[event.id] = m.Reservation(
                event.id,
                event.sale,
                event.item,
                event.buyer,
                event.quantity,
                event.key,
                event.at_ms,
                event.expires_at_ms,
                changed_at_ms=event.at_ms,
            )
        elif not isinstance(event, ev.SaleScheduled | ev.StockAdded):
            payment = event.payment if isinstance(event, ev.Paid) else self._rows[event.id].payment
            self._rows[event.id] = msgspec.structs.replace(
                self._rows[event.id], state=_STATES[type(event)], changed_at_ms=event.at_ms, payment=payment
            )
