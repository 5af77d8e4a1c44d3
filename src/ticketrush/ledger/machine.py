"""The rules of stock: a pure state machine. No clock, no I/O, no randomness.

Commands go in with their time, outcomes and events come out. A decision never changes the state
itself: it emits an event, and `Stockroom.apply` folds the event in. Replaying a journal is the
same fold, so a live machine and a replayed one cannot differ (I8).

The rules, in the order in which a reservation meets them:

1. the same buyer with the same key gets the first reservation again (I5), whatever else changed;
2. the sale is open;
3. the buyer stays within the purchase limit (I6);
4. all units asked for are available, or none is taken (I1). If they are not, the answer is
   ALL_HELD when unpaid holds that may still come back would suffice, else SOLD_OUT.

A refused or repeated request changes nothing: it burns no unit.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any

from ticketrush import events as ev
from ticketrush import model as m
from ticketrush.ledger.stockroom import Stockroom
from ticketrush.model import Reason, Refused, State

_UNKNOWN_SALE = Refused(Reason.UNKNOWN_SALE)
_UNKNOWN_ITEM = Refused(Reason.UNKNOWN_ITEM)
_UNKNOWN_RESERVATION = Refused(Reason.UNKNOWN_RESERVATION)
_PURCHASE_LIMIT = Refused(Reason.PURCHASE_LIMIT)
_SOLD_OUT = Refused(Reason.SOLD_OUT)
_CLOSED = Refused(Reason.CLOSED)


class Machine(Stockroom):
    """Decides commands over its state.

    Not thread-safe: one owner calls it, one command at a time.
    """

    __slots__ = ()

    def execute(self, now_ms: int, commands: Sequence[m.Command]) -> tuple[list[m.Outcome], list[ev.AnyEvent]]:
        """Decide `commands` in their order, each seeing the effects of those before it.

        Returns an outcome for each, and the events of all of them, which are already applied here
        and must be made durable before anybody is told of an outcome.
        """
        now_ms = max(now_ms, self.now_ms)
        events: list[ev.AnyEvent] = []
        outcomes = [_DECIDE[type(command)](self, now_ms, command, events) for command in commands]
        return outcomes, events

    def _reserve(self, now_ms: int, command: m.Reserve, events: list[ev.AnyEvent]) -> m.Outcome:
        counter = self._counters.get(command.sale)
        if counter is None:
            return _UNKNOWN_SALE
        buyer, quantity, key = command.buyer, command.quantity, command.key
        if key and key in counter.keys:
            first = self._first(counter, buyer, key)
            if first is not None:
                if first.item != command.item or first.quantity != quantity:
                    return Refused(Reason.KEY_REUSED, reservation=first)
                return m.Reserved(first, replayed=True)
        sale = counter.sale
        phase = sale.phase(now_ms)
        if phase is not m.Phase.OPEN:
            return _CLOSED if phase is m.Phase.CLOSED else Refused(Reason.NOT_OPEN, sale.opens_at_ms or 0)
        shelf = counter.shelves.get(command.item)
        if shelf is None:
            return _UNKNOWN_ITEM
        if shelf.limit is not None and shelf.bought.get(buyer, 0) + quantity > shelf.limit:
            return _PURCHASE_LIMIT
        if quantity > shelf.available:
            if quantity <= shelf.available + shelf.held:
                return Refused(Reason.ALL_HELD, self._next_expiry(counter) or now_ms)
            return _SOLD_OUT
        assert command.id not in self._reservations, "an id was given to two reservations"
        event = ev.Held(
            now_ms,
            command.id,
            sale.id,
            shelf.item.id,  # not the command's: equal texts of a million purchases shall be one
            buyer,
            quantity,
            key,
            now_ms + sale.hold_window_ms,
        )
        events.append(event)
        return m.Reserved(self._on_held(event))

    def _confirm(self, now_ms: int, command: m.Confirm, events: list[ev.AnyEvent]) -> m.Outcome:
        reservation = self._reservations.get(command.id)
        if reservation is None:
            return _UNKNOWN_RESERVATION
        if reservation.state is State.HELD:
            return self._change(ev.Paid(now_ms, command.id, command.payment), events)
        if reservation.state is State.PAID and reservation.payment == command.payment:
            return m.Changed(reservation, repeated=True)
        return Refused(Reason.WRONG_STATE, reservation=reservation)

    def _cancel(self, now_ms: int, command: m.Cancel, events: list[ev.AnyEvent]) -> m.Outcome:
        return self._leave(State.HELD, State.CANCELLED, ev.Cancelled(now_ms, command.id), events)

    def _refund(self, now_ms: int, command: m.Refund, events: list[ev.AnyEvent]) -> m.Outcome:
        return self._leave(State.PAID, State.REFUNDED, ev.Refunded(now_ms, command.id), events)

    def _leave(
        self, source: State, target: State, event: ev.Cancelled | ev.Refunded, events: list[ev.AnyEvent]
    ) -> m.Outcome:
        reservation = self._reservations.get(event.id)
        if reservation is None:
            return _UNKNOWN_RESERVATION
        if reservation.state is source:
            return self._change(event, events)
        if reservation.state is target:
            return m.Changed(reservation, repeated=True)
        return Refused(Reason.WRONG_STATE, reservation=reservation)

    def _change(self, event: ev.Paid | ev.Cancelled | ev.Refunded, events: list[ev.AnyEvent]) -> m.Changed:
        events.append(event)
        self.apply(event)
        return m.Changed(self._reservations[event.id])

    def _expire(self, now_ms: int, command: m.Expire, events: list[ev.AnyEvent]) -> m.Outcome:
        count = 0
        due = [(at_ms, counter.sale.id) for at_ms, counter in self._due_first() if at_ms <= now_ms]
        heapq.heapify(due)
        while due:
            if count == command.most:
                return m.ExpiredSome(count, more=True)
            counter = self._counters[due[0][1]]
            event = ev.Expired(now_ms, counter.due.popleft())
            events.append(event)
            self.apply(event)
            count += 1
            at_ms = self._next_expiry(counter)
            if at_ms is not None and at_ms <= now_ms:
                heapq.heapreplace(due, (at_ms, counter.sale.id))
            else:
                heapq.heappop(due)
        return m.ExpiredSome(count, more=False)

    def _create_sale(self, now_ms: int, command: m.CreateSale, events: list[ev.AnyEvent]) -> m.Outcome:
        counter = self._counters.get(command.sale.id)
        if counter is not None:
            if counter.created == command.sale:
                return m.SaleChanged(counter.sale, repeated=True)
            return Refused(Reason.SALE_EXISTS)
        if len(self._counters) >= m.SALES_MAX:
            return Refused(Reason.LIMIT_EXCEEDED)
        event = ev.SaleCreated(now_ms, command.sale)
        events.append(event)
        self.apply(event)
        return m.SaleChanged(command.sale)

    def _open_sale(self, now_ms: int, command: m.OpenSale, events: list[ev.AnyEvent]) -> m.Outcome:
        counter = self._counters.get(command.sale)
        if counter is None:
            return _UNKNOWN_SALE
        sale = counter.sale
        phase = sale.phase(now_ms)
        if phase is m.Phase.OPEN:
            return m.SaleChanged(sale, repeated=True)
        closes_at_ms = None if phase is m.Phase.CLOSED else sale.closes_at_ms
        return self._schedule(ev.SaleScheduled(now_ms, sale.id, now_ms, closes_at_ms), events)

    def _close_sale(self, now_ms: int, command: m.CloseSale, events: list[ev.AnyEvent]) -> m.Outcome:
        counter = self._counters.get(command.sale)
        if counter is None:
            return _UNKNOWN_SALE
        sale = counter.sale
        if sale.phase(now_ms) is m.Phase.CLOSED:
            return m.SaleChanged(sale, repeated=True)
        return self._schedule(ev.SaleScheduled(now_ms, sale.id, sale.opens_at_ms, now_ms), events)

    def _schedule(self, event: ev.SaleScheduled, events: list[ev.AnyEvent]) -> m.SaleChanged:
        events.append(event)
        self.apply(event)
        return m.SaleChanged(self._counters[event.sale].sale)

    def _add_stock(self, now_ms: int, command: m.AddStock, events: list[ev.AnyEvent]) -> m.Outcome:
        counter = self._counters.get(command.sale)
        if counter is None:
            return _UNKNOWN_SALE
        shelf = counter.shelves.get(command.item)
        if shelf is None:
            return _UNKNOWN_ITEM
        units = counter.restocked.get((command.item, command.key))
        if units is not None:
            same = units == command.units
            return m.SaleChanged(counter.sale, repeated=True) if same else Refused(Reason.KEY_REUSED)
        if shelf.capacity + command.units > m.CAPACITY_MAX:
            return Refused(Reason.LIMIT_EXCEEDED)
        event = ev.StockAdded(now_ms, command.sale, command.item, command.units, command.key)
        events.append(event)
        self.apply(event)
        return m.SaleChanged(counter.sale)


_DECIDE: dict[type, Callable[[Machine, int, Any, list[ev.AnyEvent]], m.Outcome]] = {
    m.Reserve: Machine._reserve,
    m.Confirm: Machine._confirm,
    m.Cancel: Machine._cancel,
    m.Refund: Machine._refund,
    m.Expire: Machine._expire,
    m.CreateSale: Machine._create_sale,
    m.OpenSale: Machine._open_sale,
    m.CloseSale: Machine._close_sale,
    m.AddStock: Machine._add_stock,
}
