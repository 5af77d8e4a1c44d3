"""A machine with a small sale, and short words for what tests do with it."""

from __future__ import annotations

from collections.abc import Sequence

from ticketrush.audit import AuditReport, LedgerState, audit
from ticketrush.events import AnyEvent
from ticketrush.ledger.machine import Machine
from ticketrush.model import (
    Cancel,
    Command,
    Confirm,
    CreateSale,
    Expire,
    ExpiredSome,
    Item,
    Level,
    Outcome,
    Refund,
    Refused,
    Reservation,
    Reserve,
    Reserved,
    Sale,
)

HOLD_MS = 1_000
OPENS_AT_MS = 100
CLOSES_AT_MS = 90_000


def sale(
    capacity: int = 3, *, limit: int | None = None, opens: int | None = OPENS_AT_MS, closes: int | None = CLOSES_AT_MS
) -> Sale:
    """The sale "rail" of "second" (as asked for) and "first" (one unit, no limit)."""
    return Sale("rail", (Item("second", capacity, limit), Item("first", 1)), opens, closes, HOLD_MS)


class Shop:
    """A machine, its whole history, and ids that count up: r1, r2, ..."""

    def __init__(self, of: Sale | None = None) -> None:
        self.machine = Machine()
        self.events: list[AnyEvent] = []
        self.asked = 0
        self.now_ms = OPENS_AT_MS
        self.do(CreateSale(sale() if of is None else of), at_ms=0)

    def do(self, command: Command, at_ms: int | None = None) -> Outcome:
        """The outcome of one command, at `at_ms` or else at `now_ms`."""
        return self.do_all([command], at_ms)[0]

    def do_all(self, commands: Sequence[Command], at_ms: int | None = None) -> list[Outcome]:
        """The outcomes of one batch."""
        outcomes, events = self.machine.execute(self.now_ms if at_ms is None else at_ms, commands)
        self.events += events
        return outcomes

    def reserve(
        self,
        buyer: str = "ann",
        quantity: int = 1,
        *,
        key: str = "",
        item: str = "second",
        sale: str = "rail",
        at_ms: int | None = None,
    ) -> Outcome:
        """Ask for units, under a new id."""
        self.asked += 1
        return self.do(Reserve(f"r{self.asked}", sale, item, buyer, quantity, key), at_ms)

    def hold(
        self, buyer: str = "ann", quantity: int = 1, *, key: str = "", item: str = "second", at_ms: int | None = None
    ) -> Reservation:
        """Ask for units that are there."""
        outcome = self.reserve(buyer, quantity, key=key, item=item, at_ms=at_ms)
        assert isinstance(outcome, Reserved), outcome
        assert not outcome.replayed
        return outcome.reservation

    def buy(self, buyer: str = "ann", quantity: int = 1, *, item: str = "second") -> Reservation:
        """Ask for units that are there, and pay."""
        held = self.hold(buyer, quantity, item=item)
        self.do(Confirm(held.id, "payment-of-" + held.id))
        return self.get(held.id)

    def cancel(self, id: str) -> Outcome:
        return self.do(Cancel(id))

    def refund(self, id: str) -> Outcome:
        return self.do(Refund(id))

    def expire(self, at_ms: int, most: int = 1_024) -> ExpiredSome:
        outcome = self.do(Expire(most), at_ms)
        assert isinstance(outcome, ExpiredSome)
        return outcome

    def get(self, id: str) -> Reservation:
        found = self.machine.reservation(id)
        assert found is not None
        return found

    def level(self, item: str = "second") -> tuple[int, int, int, int]:
        """(capacity, available, held, sold)"""
        of = levels(self.machine)["rail"][item]
        assert of.leased == 0
        return (of.capacity, of.available, of.held, of.sold)

    def audit(self) -> AuditReport:
        return audit(self.events, state=claim(self.machine))


def levels(machine: Machine) -> dict[str, dict[str, Level]]:
    """What a machine says its levels are."""
    found: dict[str, dict[str, Level]] = {}
    for of in machine.sales():
        stock = machine.stock(of.id)
        assert stock is not None
        found[of.id] = {level.item: level for level in stock.levels}
    return found


def claim(machine: Machine) -> LedgerState:
    """What a machine says of itself, for the auditor."""
    return LedgerState.of(machine.seq, levels(machine), ((of.id, of.state) for of in machine.reservations()))


def reason(outcome: Outcome) -> str:
    """Why a command was refused; "" if it was not."""
    return str(outcome.reason) if isinstance(outcome, Refused) else ""
