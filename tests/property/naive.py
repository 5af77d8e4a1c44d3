"""The rules of stock once more, as plainly as can be: lists, loops, and everything counted anew each time.

Slow, and meant to be: there is no counter that could go wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from ticketrush import model as m
from ticketrush.model import Level, Outcome, Reason, Refused, Reservation, Sale, SaleChanged, State


class Naive:
    """What a ledger with these commands must answer.

    It does not know in which order a ledger expires the due holds of several sales: `execute` is
    told, and sees to it that only due ones go, the oldest of each sale first, and as many as must.
    """

    def __init__(self) -> None:
        self.now_ms = 0
        self.created: list[Sale] = []
        self.today: list[Sale] = []
        self.additions: list[m.AddStock] = []
        self.rows: list[Reservation] = []

    def execute(self, now_ms: int, commands: Sequence[m.Command], expired: Sequence[str]) -> list[Outcome]:
        """The outcomes of `commands`; `expired` are the ids that the ledger under test expired."""
        now_ms = max(now_ms, self.now_ms)
        left = list(expired)
        outcomes = [self._decide(now_ms, command, left) for command in commands]
        assert not left, f"expired without being due: {left}"
        return outcomes

    def _decide(self, now_ms: int, command: m.Command, expired: list[str]) -> Outcome:
        match command:
            case m.Reserve():
                return self._reserve(now_ms, command)
            case m.Confirm():
                return self._change(now_ms, command.id, State.HELD, State.PAID, command.payment)
            case m.Cancel():
                return self._change(now_ms, command.id, State.HELD, State.CANCELLED)
            case m.Refund():
                return self._change(now_ms, command.id, State.PAID, State.REFUNDED)
            case m.Expire():
                return self._expire(now_ms, command.most, expired)
            case m.AddStock():
                return self._add_stock(now_ms, command)
            case m.CreateSale():
                return self._create(now_ms, command.sale)
            case m.OpenSale():
                return self._schedule(now_ms, command.sale, m.Phase.OPEN)
            case m.CloseSale():
                return self._schedule(now_ms, command.sale, m.Phase.CLOSED)

    # --- reservations -------------------------------------------------------------------------

    def _reserve(self, now_ms: int, ask: m.Reserve) -> Outcome:
        sale = self.sale(ask.sale)
        if sale is None:
            return Refused(Reason.UNKNOWN_SALE)
        for row in self.rows:
            if ask.key and (row.sale, row.buyer, row.key) == (ask.sale, ask.buyer, ask.key):
                if (row.item, row.quantity) == (ask.item, ask.quantity):
                    return m.Reserved(row, replayed=True)
                return Refused(Reason.KEY_REUSED, reservation=row)
        if sale.closes_at_ms is not None and sale.closes_at_ms <= now_ms:
            return Refused(Reason.CLOSED)
        if sale.opens_at_ms is None or now_ms < sale.opens_at_ms:
            return Refused(Reason.NOT_OPEN, sale.opens_at_ms or 0)
        items = [item for item in sale.items if item.id == ask.item]
        if not items:
            return Refused(Reason.UNKNOWN_ITEM)
        limit = items[0].purchase_limit
        if limit is not None and self._units_of(ask.sale, ask.item, ask.buyer) + ask.quantity > limit:
            return Refused(Reason.PURCHASE_LIMIT)
        level = self.level(ask.sale, ask.item)
        if ask.quantity > level.available + level.held:
            return Refused(Reason.SOLD_OUT)
        if ask.quantity > level.available:
            return Refused(Reason.ALL_HELD, min(row.expires_at_ms for row in self.held(ask.sale)))
        row = Reservation(
            id=ask.id,
            sale=ask.sale,
            item=ask.item,
            buyer=ask.buyer,
            quantity=ask.quantity,
            key=ask.key,
            held_at_ms=now_ms,
            expires_at_ms=now_ms + sale.hold_window_ms,
            changed_at_ms=now_ms,
        )
        self.now_ms = now_ms
        self.rows.append(row)
        return m.Reserved(row)

    def _change(self, now_ms: int, id: str, source: State, target: State, payment: str = "") -> Outcome:
        for row in self.rows:
            if row.id == id:
                if row.state is source:
                    return m.Changed(self._write(now_ms, row, target, payment))
                if row.state is target and (not payment or row.payment == payment):
                    return m.Changed(row, repeated=True)
                return Refused(Reason.WRONG_STATE, reservation=row)
        return Refused(Reason.UNKNOWN_RESERVATION)

    def _write(self, now_ms: int, row: Reservation, state: State, payment: str = "") -> Reservation:
        self.now_ms = now_ms
        new = msgspec.structs.replace(row, state=state, changed_at_ms=now_ms, payment=payment or row.payment)
        self.rows = [new if old.id == row.id else old for old in self.rows]
        return new

    def _expire(self, now_ms: int, most: int, expired: list[str]) -> Outcome:
        due = [row for row in self.rows if row.state is State.HELD and row.expires_at_ms <= now_ms]
        count = min(most, len(due))
        for _ in range(count):
            id = expired.pop(0)
            row = next(row for row in due if row.id == id)
            assert not [older for older in self.held(row.sale) if older.expires_at_ms < row.expires_at_ms], (
                f"{id} expired before an older one of its sale"
            )
            self._write(now_ms, row, State.EXPIRED)
        return m.ExpiredSome(count, more=len(due) > count)

    # --- sales --------------------------------------------------------------------------------

    def _create(self, now_ms: int, sale: Sale) -> Outcome:
        if sale in self.created:
            return SaleChanged(self._known(sale.id), repeated=True)
        if self.sale(sale.id) is not None:
            return Refused(Reason.SALE_EXISTS)
        self.now_ms = now_ms
        self.created.append(sale)
        self.today.append(sale)
        return SaleChanged(sale)

    def _schedule(self, now_ms: int, id: str, wanted: m.Phase) -> Outcome:
        sale = self.sale(id)
        if sale is None:
            return Refused(Reason.UNKNOWN_SALE)
        phase = sale.phase(now_ms)
        if phase is wanted:
            return SaleChanged(sale, repeated=True)
        opens, closes = sale.opens_at_ms, sale.closes_at_ms
        if wanted is m.Phase.CLOSED:
            closes = now_ms
        else:
            opens, closes = now_ms, None if phase is m.Phase.CLOSED else closes
        self.now_ms = now_ms
        new = msgspec.structs.replace(sale, opens_at_ms=opens, closes_at_ms=closes)
        self.today = [new if old.id == id else old for old in self.today]
        return SaleChanged(new)

    def _add_stock(self, now_ms: int, ask: m.AddStock) -> Outcome:
        sale = self.sale(ask.sale)
        if sale is None:
            return Refused(Reason.UNKNOWN_SALE)
        if ask.item not in [item.id for item in sale.items]:
            return Refused(Reason.UNKNOWN_ITEM)
        for old in self.additions:
            if (old.sale, old.item, old.key) == (ask.sale, ask.item, ask.key):
                return SaleChanged(sale, repeated=True) if old == ask else Refused(Reason.KEY_REUSED)
        self.now_ms = now_ms
        self.additions.append(ask)
        return SaleChanged(sale)

    # --- counting -----------------------------------------------------------------------------

    def sale(self, id: str) -> Sale | None:
        """The sale as it is today."""
        return next((sale for sale in self.today if sale.id == id), None)

    def _known(self, id: str) -> Sale:
        sale = self.sale(id)
        assert sale is not None
        return sale

    def held(self, sale: str) -> list[Reservation]:
        """The reservations of a sale that are held now."""
        return [row for row in self.rows if row.sale == sale and row.state is State.HELD]

    def level(self, sale: str, item: str) -> Level:
        """The units of an item, counted from the reservations."""
        created = next(of.capacity for of in self._known(sale).items if of.id == item)
        capacity = created + sum(add.units for add in self.additions if (add.sale, add.item) == (sale, item))
        held = self._count(lambda row: (row.sale, row.item) == (sale, item) and row.state is State.HELD)
        sold = self._count(lambda row: (row.sale, row.item) == (sale, item) and row.state is State.PAID)
        return Level(item, capacity, capacity - held - sold, 0, held, sold)

    def levels(self) -> dict[str, dict[str, Level]]:
        """The units of every item."""
        return {sale.id: {item.id: self.level(sale.id, item.id) for item in sale.items} for sale in self.today}

    def _units_of(self, sale: str, item: str, buyer: str) -> int:
        wanted = (sale, item, buyer)
        return self._count(
            lambda row: (row.sale, row.item, row.buyer) == wanted and row.state in {State.HELD, State.PAID}
        )

    def _count(self, wanted: Callable[[Reservation], bool]) -> int:
        return sum(row.quantity for row in self.rows if wanted(row))
