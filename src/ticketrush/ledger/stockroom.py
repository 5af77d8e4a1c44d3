"""The state that the rules of stock decide on: how events fold into it, and how it is read.

`Stockroom` holds every sale, its shelves and its reservations. Only `apply` changes it. It can be
written down whole as a `Snapshot` and restored from it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self

import msgspec

from ticketrush import events as ev
from ticketrush import model as m
from ticketrush.model import State


class Shelf:
    """The stock of one item. ``available`` is what is left of ``capacity - held - sold``."""

    __slots__ = ("available", "bought", "capacity", "held", "item", "limit", "sold")

    def __init__(self, item: m.Item) -> None:
        self.item = item
        self.limit = item.purchase_limit
        self.capacity = self.available = item.capacity
        self.held = self.sold = 0
        self.bought: dict[str, int] = {}
        """Units each buyer holds and owns; kept only where there is a purchase limit."""

    def level(self) -> m.Level:
        return m.Level(self.item.id, self.capacity, self.available, 0, self.held, self.sold)


class Counter:
    """One sale: its shelves, the keys it has seen, and the holds that will fall due."""

    __slots__ = ("created", "due", "keys", "restocked", "sale", "shared_keys", "shelves", "version")

    def __init__(self, sale: m.Sale, version: int = 0) -> None:
        self.created = self.sale = sale
        self.version = version
        self.shelves = {item.id: Shelf(item) for item in sale.items}
        self.keys: dict[str, str] = {}
        """Idempotency key -> id of the first reservation made with it."""
        self.shared_keys: dict[tuple[str, str], str] = {}
        """Key and buyer -> id, for buyers who chose a key that another buyer had used already."""
        self.restocked: dict[tuple[str, str], int] = {}
        """Item and key of each addition of stock -> its units."""
        self.due: deque[str] = deque()
        """Ids of holds in the order in which they fall due; may begin with some that are no longer held."""


class Standing(msgspec.Struct, frozen=True):
    """A sale in a snapshot: what reservations alone do not tell."""

    created: m.Sale
    sale: m.Sale
    version: int
    capacities: dict[str, int]
    restocked: list[tuple[str, str, int]]


class Snapshot(msgspec.Struct, frozen=True):
    """The whole state after event number `seq`."""

    seq: int
    now_ms: int
    sales: list[Standing]
    reservations: list[m.Reservation]


class Stockroom:
    """The state of all sales, and the only place where it changes.

    Not thread-safe: one owner calls it, one command at a time.
    """

    __slots__ = ("_counters", "_reservations", "_ticking", "changed", "now_ms", "seq")

    def __init__(self) -> None:
        self.seq = 0
        """Number of the last event applied."""
        self.now_ms = 0
        """Time of the last event; time never runs backwards here."""
        self.changed: dict[str, None] = {}
        """Sales that events were applied to, in that order; whoever reads it empties it."""
        self._counters: dict[str, Counter] = {}
        self._reservations: dict[str, m.Reservation] = {}
        self._ticking: dict[str, Counter] = {}

    # --- folding events in ------------------------------------------------------------------

    def apply(self, event: ev.AnyEvent) -> None:
        """Fold one event into the state. Events come from this machine, or from a journal it wrote."""
        _APPLY[type(event)](self, event)

    def replay(self, events: Iterable[ev.AnyEvent]) -> None:
        """Fold a journal into the state, in its order."""
        for event in events:
            _APPLY[type(event)](self, event)

    def _step(self, event: ev.AnyEvent, sale: str) -> Counter:
        self.now_ms = event.at_ms
        self.seq += 1
        self.changed[sale] = None
        counter = self._counters[sale]
        counter.version = self.seq
        return counter

    def _on_sale_created(self, event: ev.SaleCreated) -> None:
        self._counters[event.sale.id] = Counter(event.sale)
        self._step(event, event.sale.id)

    def _on_sale_scheduled(self, event: ev.SaleScheduled) -> None:
        counter = self._step(event, event.sale)
        counter.sale = msgspec.structs.replace(
            counter.sale, opens_at_ms=event.opens_at_ms, closes_at_ms=event.closes_at_ms
        )

    def _on_stock_added(self, event: ev.StockAdded) -> None:
        counter = self._step(event, event.sale)
        counter.restocked[event.item, event.key] = event.units
        shelf = counter.shelves[event.item]
        shelf.capacity += event.units
        shelf.available += event.units

    def _on_held(self, event: ev.Held) -> m.Reservation:
        counter = self._step(event, event.sale)
        reservation = m.Reservation(
            event.id,
            event.sale,
            event.item,
            event.buyer,
            event.quantity,
            event.key,
            event.at_ms,
            event.expires_at_ms,
            State.HELD,
            event.at_ms,
        )
        shelf = counter.shelves[event.item]
        shelf.available -= event.quantity
        shelf.held += event.quantity
        self._admit(counter, shelf, reservation)
        return reservation

    def _admit(self, counter: Counter, shelf: Shelf, reservation: m.Reservation) -> None:
        """Enter a reservation that takes its units into the indexes."""
        self._reservations[reservation.id] = reservation
        key = reservation.key
        if key and counter.keys.setdefault(key, reservation.id) != reservation.id:
            counter.shared_keys[key, reservation.buyer] = reservation.id
        if shelf.limit is not None:
            bought = shelf.bought
            bought[reservation.buyer] = bought.get(reservation.buyer, 0) + reservation.quantity
        if not counter.due:
            self._ticking[reservation.sale] = counter
        counter.due.append(reservation.id)

    def _on_paid(self, event: ev.Paid) -> None:
        _, shelf, quantity = self._move(event, State.PAID, event.payment)
        shelf.held -= quantity
        shelf.sold += quantity

    def _on_released(self, event: ev.Cancelled | ev.Expired) -> None:
        buyer, shelf, quantity = self._move(event, _RELEASED[type(event)])
        shelf.held -= quantity
        self._return(shelf, buyer, quantity)

    def _on_refunded(self, event: ev.Refunded) -> None:
        buyer, shelf, quantity = self._move(event, State.REFUNDED)
        shelf.sold -= quantity
        self._return(shelf, buyer, quantity)

    def _move(
        self, event: ev.Paid | ev.Cancelled | ev.Expired | ev.Refunded, state: State, payment: str | None = None
    ) -> tuple[str, Shelf, int]:
        old = self._reservations[event.id]
        self._reservations[event.id] = m.Reservation(
            old.id,
            old.sale,
            old.item,
            old.buyer,
            old.quantity,
            old.key,
            old.held_at_ms,
            old.expires_at_ms,
            state,
            event.at_ms,
            old.payment if payment is None else payment,
        )
        counter = self._step(event, old.sale)
        return old.buyer, counter.shelves[old.item], old.quantity

    @staticmethod
    def _return(shelf: Shelf, buyer: str, quantity: int) -> None:
        shelf.available += quantity
        if shelf.limit is not None:
            rest = shelf.bought[buyer] - quantity
            if rest:
                shelf.bought[buyer] = rest
            else:
                del shelf.bought[buyer]

    # --- reading ----------------------------------------------------------------------------

    def _next_expiry(self, counter: Counter) -> int | None:
        due, reservations = counter.due, self._reservations
        while due:
            reservation = reservations[due[0]]
            if reservation.state is State.HELD:
                return reservation.expires_at_ms
            due.popleft()
        self._ticking.pop(counter.sale.id, None)
        return None

    def next_expiry_at_ms(self) -> int | None:
        """When the first hold falls due; None while nothing is held."""
        return min((at_ms for at_ms, _ in self._due_first()), default=None)

    def _due_first(self) -> list[tuple[int, Counter]]:
        """For each sale with holds, when the first of them falls due."""
        counters = list(self._ticking.values())
        return [(at_ms, counter) for counter in counters if (at_ms := self._next_expiry(counter)) is not None]

    def sales(self) -> list[m.Sale]:
        """All sales, in the order in which they were created."""
        return [counter.sale for counter in self._counters.values()]

    def stock(self, sale: str) -> m.Stock | None:
        """The levels of a sale; None for an unknown one."""
        counter = self._counters.get(sale)
        if counter is None:
            return None
        levels = tuple(shelf.level() for shelf in counter.shelves.values())
        return m.Stock(counter.sale, counter.version, levels, self._next_expiry(counter))

    def reservation(self, id: str) -> m.Reservation | None:
        """A reservation by its id; None for an unknown one."""
        return self._reservations.get(id)

    def reservation_for(self, sale: str, buyer: str, key: str) -> m.Reservation | None:
        """The reservation that `buyer` made in `sale` under `key`; None if there is none."""
        counter = self._counters.get(sale)
        return self._first(counter, buyer, key) if counter else None

    def _first(self, counter: Counter, buyer: str, key: str) -> m.Reservation | None:
        id = counter.keys.get(key)
        if id is None:
            return None
        reservation = self._reservations[id]
        if reservation.buyer == buyer:
            return reservation
        id = counter.shared_keys.get((key, buyer))
        return self._reservations[id] if id else None

    def remembers(self, sale: str, key: str) -> bool:
        """Whether anybody made a reservation in `sale` under `key`."""
        counter = self._counters.get(sale)
        return counter is not None and key in counter.keys

    def reservations(self) -> Iterator[m.Reservation]:
        """All reservations, in the order in which they were made."""
        return iter(self._reservations.values())

    # --- snapshots --------------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """The whole state as one value."""
        sales = [
            Standing(
                counter.created,
                counter.sale,
                counter.version,
                {id: shelf.capacity for id, shelf in counter.shelves.items()},
                [(item, key, units) for (item, key), units in counter.restocked.items()],
            )
            for counter in self._counters.values()
        ]
        return Snapshot(self.seq, self.now_ms, sales, list(self._reservations.values()))

    @classmethod
    def restore(cls, snapshot: Snapshot) -> Self:
        """A stockroom in the state of `snapshot`. All that can be derived is derived again."""
        self = cls()
        for standing in snapshot.sales:
            counter = self._counters[standing.sale.id] = Counter(standing.created, standing.version)
            self.changed[standing.sale.id] = None
            counter.sale = standing.sale
            counter.restocked = {(item, key): units for item, key, units in standing.restocked}
            for id, capacity in standing.capacities.items():
                counter.shelves[id].capacity = counter.shelves[id].available = capacity
        for reservation in snapshot.reservations:
            counter = self._counters[reservation.sale]
            shelf, quantity = counter.shelves[reservation.item], reservation.quantity
            self._admit(counter, shelf, reservation)
            shelf.available -= quantity
            if reservation.state is State.HELD:
                shelf.held += quantity
            elif reservation.state is State.PAID:
                shelf.sold += quantity
            else:
                self._return(shelf, reservation.buyer, quantity)
        self.seq, self.now_ms = snapshot.seq, snapshot.now_ms
        return self


_RELEASED = {ev.Cancelled: State.CANCELLED, ev.Expired: State.EXPIRED}

_APPLY: dict[type, Callable[[Stockroom, Any], object]] = {
    ev.SaleCreated: Stockroom._on_sale_created,
    ev.SaleScheduled: Stockroom._on_sale_scheduled,
    ev.StockAdded: Stockroom._on_stock_added,
    ev.Held: Stockroom._on_held,
    ev.Paid: Stockroom._on_paid,
    ev.Cancelled: Stockroom._on_released,
    ev.Expired: Stockroom._on_released,
    ev.Refunded: Stockroom._on_refunded,
}
