"""The auditor's own fold of events into units and orders.

It keeps two books of each item. *Flows*: what each event takes from or gives back to ``available``.
*Balances*: ``held`` and ``sold``, from the states of the orders. In a sound history the two agree
at every event (I2). An event that must not have happened is reported, and then takes its effect
all the same: who was told "paid" has the unit, and if another has it too, that is I1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, assert_never

import msgspec

from ticketrush.audit.claims import Units
from ticketrush.audit.report import Findings
from ticketrush.events import (
    AnyEvent,
    Cancelled,
    Expired,
    Held,
    Paid,
    Refunded,
    SaleCreated,
    SaleScheduled,
    StockAdded,
)
from ticketrush.model import Sale, State

_BEFORE: Final = {
    State.PAID: State.HELD,
    State.CANCELLED: State.HELD,
    State.EXPIRED: State.HELD,
    State.REFUNDED: State.PAID,
}


class Book:
    """Flows and balances of one item, and the units of each buyer who is under a limit."""

    __slots__ = ("available", "capacity", "held", "imbalance", "limit", "name", "sold", "units_of", "worst")

    def __init__(self, name: str, capacity: int, limit: int | None) -> None:
        self.name = name
        self.capacity = capacity
        self.available = capacity
        self.held = 0
        self.sold = 0
        self.limit = limit
        self.units_of: dict[str, int] = {}
        self.worst = 0
        self.imbalance = 0

    def units(self, leased: int = 0) -> Units:
        """The levels; the events do not tell which of the available units are leased."""
        return Units(self.capacity, self.available - leased, leased, self.held, self.sold)


class Order(msgspec.Struct, gc=False):
    """The one order of a reservation."""

    held: Held
    book: Book
    state: State


class Fold:
    """Reads events one by one, reports to `findings` what must not be.

    `expected` says of each reservation whether anybody asked for it; None asks no such question.
    """

    def __init__(self, findings: Findings, expected: Callable[[Held], bool] | None) -> None:
        self.seq = 0
        self.books: dict[str, dict[str, Book]] = {}
        self.orders: dict[str, Order] = {}
        self.ever = dict.fromkeys(State, 0)
        self.unexpected = 0
        self.keys: dict[tuple[str, str, str], str] = {}
        self._findings = findings
        self._expected = expected
        self._opening: dict[str, tuple[int | None, int | None]] = {}
        self._hold_ms: dict[str, int] = {}
        self._stock_keys: set[tuple[str, str, str]] = set()
        self._at_ms = 0

    def run(self, events: Iterable[AnyEvent]) -> None:
        """Fold `events`, which follow those folded before."""
        for event in events:
            self.seq += 1
            if event.at_ms < self._at_ms:
                self._broken("I8", f"time runs backwards, from {self._at_ms} to {event.at_ms}")
            else:
                self._at_ms = event.at_ms
            match event:
                case Held():
                    self._held(event)
                case Paid():
                    self._settle(event, State.PAID)
                case Expired():
                    self._settle(event, State.EXPIRED)
                case Cancelled():
                    self._settle(event, State.CANCELLED)
                case Refunded():
                    self._settle(event, State.REFUNDED)
                case StockAdded():
                    self._stock_added(event)
                case SaleCreated():
                    self._sale_created(event.sale)
                case SaleScheduled():
                    self._sale_scheduled(event)
                case _:
                    assert_never(event)

    # --- sales and stock ----------------------------------------------------------------------

    def _sale_created(self, sale: Sale) -> None:
        if sale.id in self._opening:
            self._broken("I5", f"sale {sale.id} is created a second time")
            return
        self._opening[sale.id] = (sale.opens_at_ms, sale.closes_at_ms)
        self._hold_ms[sale.id] = sale.hold_window_ms
        books = self.books.setdefault(sale.id, {})
        for item in sale.items:
            books[item.id] = Book(f"{sale.id}/{item.id}", item.capacity, item.purchase_limit)

    def _sale_scheduled(self, event: SaleScheduled) -> None:
        if event.sale not in self._opening:
            self._broken("I8", f"sale {event.sale} is scheduled but was never created")
            return
        self._opening[event.sale] = (event.opens_at_ms, event.closes_at_ms)

    def _stock_added(self, event: StockAdded) -> None:
        book = self.books.get(event.sale, {}).get(event.item)
        if book is None:
            self._broken("I2", f"{event.units} units are added to {event.sale}/{event.item}, which no sale has")
            return
        if event.units < 1:
            self._broken("I2", f"{event.units} units are added to {book.name}")
        key = (event.sale, event.item, event.key)
        if event.key and key in self._stock_keys:
            self._broken("I5", f"stock is added to {book.name} a second time under key {event.key}")
        self._stock_keys.add(key)
        book.capacity += event.units
        book.available += event.units
        self._weigh(book, f"{event.units} units added")

    # --- reservations and orders --------------------------------------------------------------

    def _held(self, event: Held) -> None:
        if event.id in self.orders:
            self._broken("I3", f"reservation {event.id} has a second order, of buyer {event.buyer}")
            return
        book = self._book(event)
        self.orders[event.id] = Order(event, book, State.HELD)
        self._ask_who_wanted(event)
        if event.quantity < 1:
            self._broken("I2", f"reservation {event.id} holds {event.quantity} units of {book.name}")
        self.ever[State.HELD] += 1
        book.available -= event.quantity
        book.held += event.quantity
        self._give(book, event)
        self._weigh(book, event.id)

    def _book(self, event: Held) -> Book:
        """The book of the event's item; one without capacity if no sale has such an item."""
        books = self.books.get(event.sale)
        if books is None:
            books = self.books[event.sale] = {}
        book = books.get(event.item)
        if book is None:
            book = books[event.item] = Book(f"{event.sale}/{event.item}", 0, None)
        return book

    def _ask_who_wanted(self, event: Held) -> None:
        """One effect for a key (I5), and nothing that nobody asked for or could have (I4)."""
        if event.key:
            key = (event.sale, event.buyer, event.key)
            first = self.keys.setdefault(key, event.id)
            if first != event.id:
                self.unexpected += 1
                self._broken(
                    "I5", f"buyer {event.buyer} with key {event.key} has reservation {event.id} besides {first}"
                )
        if not self._is_open(event):
            self.unexpected += 1
            opens, closes = self._opening[event.sale]
            self._broken(
                "I4",
                f"reservation {event.id} of buyer {event.buyer} was made at {event.at_ms}, "
                f"while {event.sale} was not open ({opens} to {closes})",
            )
        elif self._expected is not None and not self._expected(event):
            self.unexpected += 1
            self._broken("I4", f"nobody asked for reservation {event.id} of buyer {event.buyer}, key {event.key!r}")

    def _is_open(self, event: Held) -> bool:
        """Whether the sale was open when it was made; a sale that nobody created is I1's business.

        What a server has forgotten and was written again has a later event; its hold ends when it was to end.
        """
        opens_at_ms, closes_at_ms = self._opening.get(event.sale, (0, None))
        if opens_at_ms is None or event.at_ms < opens_at_ms:
            return False
        made_at_ms = min(event.at_ms, event.expires_at_ms - self._hold_ms.get(event.sale, 0))
        return closes_at_ms is None or made_at_ms < closes_at_ms

    def _settle(self, event: Paid | Expired | Cancelled | Refunded, to: State) -> None:
        order = self.orders.get(event.id)
        if order is None:
            self._broken("I3", f"reservation {event.id} is {to} but was never held")
            return
        was, held, book = order.state, order.held, order.book
        if was is not _BEFORE[to]:
            self._broken("I3", f"reservation {event.id} of buyer {held.buyer} goes from {was} to {to}")
        if to is State.EXPIRED and event.at_ms < held.expires_at_ms:
            early_ms = held.expires_at_ms - event.at_ms
            self._broken("I3", f"reservation {event.id} of buyer {held.buyer} expired {early_ms} ms too early")
        order.state = to
        self.ever[to] += 1
        if was is State.HELD:
            book.held -= held.quantity
        elif was is State.PAID:
            book.sold -= held.quantity
        if to is State.PAID:
            book.sold += held.quantity
            if was is not State.HELD and was is not State.PAID:
                self._give(book, held)
        else:
            book.available += held.quantity
            if (was is State.HELD or was is State.PAID) and book.limit is not None:
                book.units_of[held.buyer] -= held.quantity
        self._weigh(book, event.id)

    # --- the books ----------------------------------------------------------------------------

    def _give(self, book: Book, held: Held) -> None:
        """Count the units as the buyer's, and check the limit (I6)."""
        if book.limit is None:
            return
        units = book.units_of.get(held.buyer, 0) + held.quantity
        book.units_of[held.buyer] = units
        if units > book.limit:
            self._broken(
                "I6",
                f"buyer {held.buyer} has {units} units of {book.name} with reservation {held.id}, "
                f"the purchase limit is {book.limit}",
            )

    def _weigh(self, book: Book, because: str) -> None:
        """Check I1 and I2 of one item; each is told again only when it has changed for the worse."""
        taken = book.held + book.sold
        over = taken - book.capacity
        if over > book.worst:
            book.worst = over
            self._broken(
                "I1",
                f"{book.name} has {book.held} held + {book.sold} sold = {taken} units "
                f"of a capacity of {book.capacity} ({because})",
            )
        imbalance = book.capacity - book.available - taken
        if imbalance != book.imbalance:
            book.imbalance = imbalance
            if imbalance:
                self._broken(
                    "I2",
                    f"{book.name} has {book.available} available + {book.held} held + {book.sold} sold, "
                    f"which is not its capacity of {book.capacity} ({because})",
                )

    def _broken(self, invariant: str, sentence: str) -> None:
        self._findings.at(invariant, self.seq, sentence)
