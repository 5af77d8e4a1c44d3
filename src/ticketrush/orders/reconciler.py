"""Compares the order store with the ledger, and puts right what the event log did not bring.

Both move on while they are compared. So what changed a moment ago is left alone (it is in flight), and a
difference counts only if it is there when both are asked again. The ledger is right about what happened;
a store that is behind gets the missing notices, each with a repair that says why. What contradicts, or
what only the store knows (the ledger's server has forgotten it), is reported, never papered over.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Final, Protocol, TypeAlias

import msgspec

from ticketrush import logs
from ticketrush import model as m
from ticketrush.clock import iso
from ticketrush.orders.errors import NoticeRefused
from ticketrush.orders.model import Claim, Kind, Notice, Order, OrderState, Repair
from ticketrush.orders.notices import Prices
from ticketrush.orders.protocol import OrderStore

IN_FLIGHT_MS: Final = 10_000
"""What changed in the ledger within this time may still be on its way to the store."""

PAGE: Final = 1_000
TOLD_MAX: Final = 1_000
"""Ids that a report names; more are only counted."""

_RANK: Final = {
    OrderState.INCOMPLETE: -1,
    OrderState.HELD: 0,
    OrderState.PAID: 1,
    OrderState.CANCELLED: 1,
    OrderState.EXPIRED: 1,
    OrderState.REFUNDED: 2,
}

_Behind: TypeAlias = tuple[m.Reservation, OrderState | None]
"""What the ledger has, and what the store has of it."""

log = logs.get("ticketrush.orders")


class Records(Protocol):
    """The reservations of a ledger, for comparison."""

    prices: Prices
    """Of all sales that pages have been about."""

    async def open(self) -> None:
        """Connect. Raises LedgerUnavailable."""

    async def close(self) -> None:
        """Let the ledger go. May be called twice."""

    def pages(self) -> AsyncIterator[Sequence[m.Reservation]]:
        """All committed reservations, a page at a time; those made or changed meanwhile may be missing or old."""

    async def reservations(self, ids: Collection[str]) -> Mapping[str, m.Reservation]:
        """Those of the ids that the ledger has a reservation for, as they are now."""

    async def turn(self, within_s: float) -> bool:
        """Whether nobody else had a turn within this time; from now on, this one had."""


class Differences(msgspec.Struct):
    """What a comparison found. Lists name at most `TOLD_MAX` orders, the counts count all."""

    compared: int = 0
    in_flight: int = 0
    repaired: int = 0
    """The store was behind, and is not any more; or still is, if nothing was to be mended."""
    contradictions: int = 0
    """Ended in one way in the ledger and in another in the store."""
    forgotten: int = 0
    """In the store, but the ledger does not know them, or knows less."""
    repaired_orders: list[str] = msgspec.field(default_factory=list)
    contradicting_orders: list[str] = msgspec.field(default_factory=list)
    contradicting_words: list[str] = msgspec.field(default_factory=list)
    """Of each of these: what the ledger says, and what the store."""
    forgotten_orders: list[str] = msgspec.field(default_factory=list)

    @property
    def is_well(self) -> bool:
        """Whether ledger and store agree, once what is behind is repaired."""
        return not self.contradictions and not self.forgotten


class Reconciler:
    """Compares one ledger with one store."""

    def __init__(self, records: Records, store: OrderStore) -> None:
        self._records, self._store = records, store

    async def run(self, now_ms: int, *, mend: bool = True, in_flight_ms: int = IN_FLIGHT_MS) -> Differences:
        """Compare everything that has rested for `in_flight_ms`, and repair the store if `mend`.

        Raises:
            StoreUnavailable: the store did not answer; run it again.
            LedgerUnavailable: the ledger did not answer; run it again.
        """
        found = Differences()
        async for page in self._records.pages():
            rested = [row for row in page if row.changed_at_ms <= now_ms - in_flight_ms]
            found.in_flight += len(page) - len(rested)
            found.compared += len(rested)
            await self._compare(rested, now_ms, found, mend=mend, until_ms=now_ms - in_flight_ms)
        await self._unknown(found, now_ms - in_flight_ms)
        if found.contradictions:
            first, words = found.contradicting_orders[0], found.contradicting_words[0]
            log.warning("orders_contradict", orders=found.contradictions, first=first, words=words)
        log.info("orders_compared", **{name: getattr(found, name) for name in _COUNTS})
        return found

    async def _compare(
        self, rows: Sequence[m.Reservation], now_ms: int, found: Differences, *, mend: bool, until_ms: int
    ) -> None:
        states = await self._store.states([row.id for row in rows])
        rows = [row for row in rows if states.get(row.id) != row.state.value]
        if not rows:
            return
        # The ledger is asked last: what it does meanwhile makes it younger than the store, never older.
        states = await self._store.states([row.id for row in rows])
        now = await self._records.reservations([row.id for row in rows])
        behind: list[_Behind] = []
        for row in rows:
            known, fresh = states.get(row.id), now.get(row.id, row)
            wanted = OrderState(fresh.state.value)
            if known is wanted:
                continue
            if fresh.changed_at_ms > until_ms:
                found.compared -= 1
                found.in_flight += 1
                continue
            if known is not None and _RANK[known] > _RANK[wanted]:
                _tell(found, "forgotten", row.id)
            elif known is not None and _RANK[known] == _RANK[wanted]:
                await self._tell_contradiction(found, fresh)
            elif mend:
                behind.append((fresh, known))
            else:
                _tell(found, "repaired", row.id)
        if behind:
            await self._repair(behind, now_ms, found)

    async def _repair(self, behind: Sequence[_Behind], now_ms: int, found: Differences) -> None:
        """Write what the store lacks in one transaction; what is refused, in halves until the guilty one is alone."""
        notices = [notice for row, _ in behind for notice in notices_of(row, self._records.prices)]
        repairs = [_repair_of(row, known, now_ms) for row, known in behind]
        try:
            await self._store.put(notices, repairs=repairs)
        except NoticeRefused as error:
            if len(behind) > 1:
                half = len(behind) // 2
                await self._repair(behind[:half], now_ms, found)
                await self._repair(behind[half:], now_ms, found)
                return
            await self._tell_contradiction(found, behind[0][0], str(error))
        else:
            first = repairs[0]
            log.warning(
                "orders_repaired", orders=len(repairs), first=first.order, before=first.before, after=first.after
            )
            for each in repairs:
                _tell(found, "repaired", each.order)

    async def _tell_contradiction(self, found: Differences, row: m.Reservation, why: str = "") -> None:
        """Count it, and say what contradicts; `why` is what the store says to the ledger's record, if it was told."""
        if len(found.contradicting_words) < TOLD_MAX:
            order = await self._store.order(row.id)  # None: there was none, and the store refuses to write it
            found.contradicting_words.append(_contradiction(row, order, why))
        _tell(found, "contradict", row.id)

    async def _unknown(self, found: Differences, until_ms: int) -> None:
        """Orders of reservations that the ledger does not have."""
        after = 0
        while page := await self._store.page(after, PAGE):
            rested = [order.id for order in page if (order.held_at_ms or 0) <= until_ms]
            known = await self._records.reservations(rested)
            for id in rested:
                if id not in known:
                    _tell(found, "forgotten", id)
            after = page[-1].number


_COUNTS: Final = ("compared", "in_flight", "repaired", "contradictions", "forgotten")

_LISTS: Final = {
    "repaired": ("repaired", "repaired_orders"),
    "contradict": ("contradictions", "contradicting_orders"),
    "forgotten": ("forgotten", "forgotten_orders"),
}


def _tell(found: Differences, what: str, id: str) -> None:
    count, names = _LISTS[what]
    setattr(found, count, getattr(found, count) + 1)
    if len(getattr(found, names)) < TOLD_MAX:
        getattr(found, names).append(id)


def _repair_of(row: m.Reservation, known: OrderState | None, now_ms: int) -> Repair:
    before = "missing" if known is None else known.value
    reason = f"the ledger has it {row.state.value} since {iso(row.changed_at_ms)}, the event log had not brought that"
    return Repair(row.id, before, row.state.value, reason, now_ms)


def _contradiction(row: m.Reservation, order: Order | None, why: str) -> str:
    words = f"the ledger has it {row.state.value} ({_facts(row.changed_at_ms, row.payment)}), the store "
    words += _as_stored(order) if order is not None else "has no such order"
    return f"{words}: {why}" if why else words


def _as_stored(order: Order) -> str:
    ends = order.paid_at_ms, order.cancelled_at_ms, order.expired_at_ms, order.refunded_at_ms
    at_ms = max((end for end in ends if end is not None), default=order.held_at_ms or 0)
    return f"{order.state.value} ({_facts(at_ms, order.payment)})"


def _facts(at_ms: int, payment: str) -> str:
    return f"{iso(at_ms)}, payment {payment}" if payment else iso(at_ms)


def notices_of(row: m.Reservation, prices: Prices) -> list[Notice]:
    """All that the ledger's record says of an order; when a refunded one was paid it does not say."""
    price_minor, currency = prices.of(row.sale, row.item)
    amount_minor = price_minor * row.quantity
    claim = Claim(row.sale, row.item, row.buyer, row.quantity, row.expires_at_ms, amount_minor, currency, row.key)
    notices = [Notice(row.id, Kind.HELD, row.held_at_ms, claim)]
    if row.payment:
        notices.append(Notice(row.id, Kind.PAID, row.changed_at_ms, payment=row.payment))
    if row.state not in {m.State.HELD, m.State.PAID}:
        notices.append(Notice(row.id, Kind(row.state.value), row.changed_at_ms))
    return notices
