"""A small random sale, from opening to the last ticket, over any machine: sound, or with a planted bug."""

from __future__ import annotations

from random import Random
from typing import Final

from tests.unit.shop import claim
from ticketrush.audit import AuditReport, Told, audit
from ticketrush.events import AnyEvent
from ticketrush.ledger.machine import Machine
from ticketrush.model import (
    Cancel,
    Changed,
    Command,
    Confirm,
    CreateSale,
    Expire,
    Item,
    OpenSale,
    Outcome,
    Refund,
    Reservation,
    Reserve,
    Reserved,
    Sale,
    State,
)

HOLD_MS: Final = 1_000
LIMIT: Final = 2
RAIL: Final = Sale("rail", (Item("second", 8, LIMIT), Item("first", 3, LIMIT)), None, None, HOLD_MS)
ITEMS: Final = [item.id for item in RAIL.items]


class Rush:
    """Buyers who pay, abandon, cancel, come too late, ask twice, ask for too much, and write down what they are told.

    It ends when nobody gets anything any more though everybody tried, so each unit was wanted.
    """

    def __init__(self, machine: Machine, seed: int) -> None:
        self.machine = machine
        self.dice = Random(seed)
        self.now_ms = 0
        self.asked = 0
        self.events: list[AnyEvent] = []
        self.told = Told()
        self.sent: set[tuple[str, str]] = set()
        self.abandoned: list[str] = []
        self.paid: list[str] = []

    def run(self) -> AuditReport:
        """The audit of the whole sale."""
        self.send(CreateSale(RAIL))
        self.attempt("early-bird")
        self.send(OpenSale("rail"))
        for _ in range(24):
            self.now_ms += self.dice.randrange(HOLD_MS // 2)
            self.send(Expire(self.dice.choice([1, 1_024])))
            for _ in range(4):
                self.attempt(f"buyer{self.dice.randrange(30)}")
            if self.abandoned and self.dice.random() < 0.4:
                self.pay(self.dice.choice(self.abandoned))
            if self.paid and self.dice.random() < 0.3:
                self.send(Refund(self.paid.pop(self.dice.randrange(len(self.paid)))))
        self.sell_the_rest()
        return audit(
            self.events,
            state=claim(self.machine),
            told=self.told,
            asked_for=lambda buyer, key: (buyer, key) in self.sent,
            demand_exceeds_capacity=True,
            now_ms=self.now_ms,
        )

    def send(self, command: Command) -> Outcome:
        outcomes, events = self.machine.execute(self.now_ms, [command])
        self.events += events
        return outcomes[0]

    def attempt(self, buyer: str) -> None:
        """One buyer wants something, and does something with it."""
        key = f"key{self.asked}"
        item, quantity = self.dice.choice(ITEMS), self.dice.choice([1, 1, 2])
        held = self.ask(buyer, key, item, quantity)
        if self.dice.random() < 0.3:
            self.ask(buyer, key, item, quantity)
        if held is None:
            return
        what = self.dice.random()
        if what < 0.4:
            self.pay(held.id)
        elif what < 0.6:
            self.send(Cancel(held.id))
        else:
            self.abandoned.append(held.id)

    def ask(self, buyer: str, key: str, item: str, quantity: int) -> Reservation | None:
        """The reservation, if the buyer gets one and gets to know of it."""
        self.asked += 1
        self.sent.add((buyer, key))
        outcome = self.send(Reserve(f"r{self.asked}", "rail", item, buyer, quantity, key))
        if self.dice.random() < 0.05:
            self.told.unknown.append((buyer, key))
            return None
        if not isinstance(outcome, Reserved):
            return None
        of = outcome.reservation
        self.told.acknowledged[of.id] = (of.buyer, of.key, of.sale, of.item, of.quantity)
        return of

    def pay(self, id: str) -> None:
        outcome = self.send(Confirm(id, f"payment-of-{id}"))
        if isinstance(outcome, Changed) and outcome.reservation.state is State.PAID:
            self.told.paid.add(id)
            self.paid.append(id)

    def sell_the_rest(self) -> None:
        """New buyers come, one after another, until four times in a row nothing happens."""
        in_vain = 0
        while in_vain < 4:
            self.now_ms += HOLD_MS
            before = len(self.events)
            self.send(Expire())
            in_vain += 1
            for item in ITEMS:
                held = self.ask(f"latecomer{self.asked}", f"key{self.asked}", item, 1)
                if held is not None:
                    self.pay(held.id)
                if held is not None or len(self.events) > before:  # or a buyer was not told of the hold
                    in_vain = 0
        self.now_ms += 20 * HOLD_MS
