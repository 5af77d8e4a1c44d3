"""One story for every ledger: it gets the same commands as a machine in memory, and must be that machine.

Between any two batches it may be stopped and started again, or crash. A backend says how (`LedgerAgainstMachine`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import note
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.property.commands import SALES, Ids, batches, cancels, confirms, expires, refunds, reserves, steps
from tests.unit.shop import claim
from ticketrush.audit import audit
from ticketrush.events import AnyEvent
from ticketrush.ledger.machine import Machine
from ticketrush.ledger.protocol import Ledger
from ticketrush.model import Command, CreateSale, Stock


class LedgerAgainstMachine(RuleBasedStateMachine):
    """A real ledger, and a machine that lives in memory all the time, get the same commands."""

    ledger: Ledger

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.now_ms = 0
        self.machine, self.ids = Machine(), Ids()
        self.events: list[AnyEvent] = []
        self.open()
        self.send(0, [CreateSale(sale) for sale in SALES])

    def open(self) -> None:
        """Start the ledger on what it left."""
        raise NotImplementedError

    def send(self, step_ms: int, batch: Sequence[Command]) -> None:
        self.now_ms = max(0, self.now_ms + step_ms)
        ready = self.ids.settle(batch)
        note(f"at {self.now_ms}: {ready}")
        outcomes, events = self.machine.execute(self.now_ms, ready)
        self.ids.learn(outcomes)
        decided = self.runner.run(self.ledger.execute(self.now_ms, ready))
        assert decided == outcomes
        self.events += self.written(events)

    def written(self, events: list[AnyEvent]) -> list[AnyEvent]:
        """What the ledger must have written where the machine gives these events of one batch."""
        return events

    def known(self, stock: Stock | None) -> Stock | None:
        """Levels as the ledger must know them where the machine gives these."""
        return stock

    @rule(step=steps, batch=batches)
    def send_a_batch(self, step: int, batch: list[Command]) -> None:
        self.send(step, batch)

    @rule(step=steps, asks=st.lists(reserves, min_size=1, max_size=4))
    def reserve(self, step: int, asks: list[Command]) -> None:
        self.send(step, asks)

    @rule(step=steps, change=st.one_of(confirms, cancels, refunds, expires))
    def change(self, step: int, change: Command) -> None:
        self.send(step, [change])

    @precondition(lambda self: self.events)
    @rule(after=st.integers(0, 60), limit=st.integers(1, 5))
    def read_a_page_of_the_journal(self, after: int, limit: int) -> None:
        page = self.runner.run(self.ledger.events(after, limit))
        assert page == list(enumerate(self.events, 1))[after : after + limit]

    @invariant()
    def stock_agrees(self) -> None:
        assert self.ledger.sales() == self.machine.sales()
        for sale in self.machine.sales():
            assert self.ledger.stock(sale.id) == self.known(self.machine.stock(sale.id))
        assert self.ledger.next_expiry_at_ms() == self.machine.next_expiry_at_ms()

    def all_is_there(self) -> None:
        kept = self.runner.run(self.ledger.events(0, len(self.events) + 1))
        assert kept == list(enumerate(self.events, 1))
        state = self.runner.run(self.ledger.state())
        assert state == claim(self.machine)
        for row in self.machine.reservations():
            assert self.runner.run(self.ledger.reservation(row.id)) == row
            first = self.runner.run(self.ledger.reservation_for(row.sale, row.buyer, row.key))
            assert first == (row if row.key else None)
        report = audit((event for _, event in kept), state=state)
        assert report.ok, report.violations
