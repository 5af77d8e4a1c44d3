"""Whatever is asked of it, the machine answers as the naive model does, and its events tell the same."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.property.commands import (
    SALES,
    Ids,
    batches,
    cancels,
    commands,
    confirms,
    expires,
    operations,
    refunds,
    reserves,
    steps,
)
from tests.property.naive import Naive
from tests.property.profiles import PROFILE
from tests.unit.shop import claim, levels
from ticketrush.audit import Told, audit
from ticketrush.events import AnyEvent, Expired
from ticketrush.ledger.machine import Machine
from ticketrush.model import Changed, Command, CreateSale, Reserve, Reserved, State

OPENING: tuple[int, list[Command]] = (0, [CreateSale(sale) for sale in SALES])


class MachineAgainstNaive(RuleBasedStateMachine):
    """The machine and the naive model get the same commands, singly and in batches."""

    def __init__(self) -> None:
        super().__init__()
        self.machine, self.naive, self.ids = Machine(), Naive(), Ids()
        self.now_ms = 0
        self.events: list[AnyEvent] = []
        self.asked: set[tuple[str, str]] = set()
        self.told = Told()
        self.send(0, [CreateSale(sale) for sale in SALES[:2]])

    def send(self, step_ms: int, batch: Sequence[Command]) -> None:
        self.now_ms = max(0, self.now_ms + step_ms)
        ready = self.ids.settle(batch)
        self.asked |= {(ask.buyer, ask.key) for ask in ready if isinstance(ask, Reserve)}
        note(f"at {self.now_ms}: {ready}")
        outcomes, events = self.machine.execute(self.now_ms, ready)
        self.events += events
        expired = [event.id for event in events if isinstance(event, Expired)]
        assert outcomes == self.naive.execute(self.now_ms, ready, expired)
        self.ids.learn(outcomes)
        for outcome in outcomes:
            if isinstance(outcome, Reserved):
                of = outcome.reservation
                self.told.acknowledged[of.id] = (of.buyer, of.key, of.sale, of.item, of.quantity)
            if isinstance(outcome, Changed) and outcome.reservation.state is State.PAID:
                self.told.paid.add(outcome.reservation.id)

    @rule(step=steps, ask=reserves)
    def reserve(self, step: int, ask: Command) -> None:
        self.send(step, [ask])

    @precondition(lambda self: self.ids.held)
    @rule(step=steps, change=st.one_of(confirms, cancels, refunds))
    def change(self, step: int, change: Command) -> None:
        self.send(step, [change])

    @rule(step=steps, expire=expires)
    def expire(self, step: int, expire: Command) -> None:
        self.send(step, [expire])

    @rule(operation=operations)
    def operate(self, operation: Command) -> None:
        self.send(0, [operation])

    @rule(step=steps, batch=batches)
    def send_a_batch(self, step: int, batch: list[Command]) -> None:
        self.send(step, batch)

    @invariant()
    def levels_agree(self) -> None:
        assert levels(self.machine) == self.naive.levels()
        assert self.machine.sales() == self.naive.today

    @invariant()
    def reservations_agree(self) -> None:
        assert list(self.machine.reservations()) == self.naive.rows
        held = [row.expires_at_ms for row in self.naive.rows if row.state is State.HELD]
        assert self.machine.next_expiry_at_ms() == min(held, default=None)
        for row in self.naive.rows:
            assert self.machine.reservation(row.id) == row
            if row.key:
                assert self.machine.reservation_for(row.sale, row.buyer, row.key) == row
                assert self.machine.remembers(row.sale, row.key)

    def teardown(self) -> None:
        report = audit(
            self.events,
            state=claim(self.machine),
            told=self.told,
            asked_for=lambda buyer, key: (buyer, key) in self.asked,
        )
        assert report.ok, report.violations
        assert report.events == self.machine.seq == len(self.events)
        replayed = Machine()
        replayed.replay(self.events)
        assert replayed.snapshot() == self.machine.snapshot()
        assert claim(replayed) == claim(self.machine)
        restored = Machine.restore(self.machine.snapshot())
        assert restored.snapshot() == self.machine.snapshot()
        assert levels(restored) == levels(self.machine)


TestMachineAgainstNaive = MachineAgainstNaive.TestCase
TestMachineAgainstNaive.settings = settings(PROFILE, max_examples=2 * PROFILE.max_examples)


@settings(PROFILE)
@given(plan=st.lists(st.tuples(steps, batches), max_size=8), cut=st.integers(0, 8))
def test_how_commands_are_cut_into_batches_does_not_matter(plan: list[tuple[int, list[Command]]], cut: int) -> None:
    together, apart, ids = Machine(), Machine(), Ids()
    now_ms = 0
    for step_ms, batch in [OPENING, *plan]:
        now_ms = max(0, now_ms + step_ms)
        ready = ids.settle(batch)
        outcomes, events = together.execute(now_ms, ready)
        ids.learn(outcomes)
        some, some_events = apart.execute(now_ms, ready[:cut])
        rest, rest_events = apart.execute(now_ms, ready[cut:])
        assert (some + rest, some_events + rest_events) == (outcomes, events)
    assert together.snapshot() == apart.snapshot()


@settings(PROFILE)
@given(plan=st.lists(st.tuples(steps, st.lists(commands, max_size=4)), max_size=12), at=st.integers(0, 12))
def test_a_machine_restored_from_a_snapshot_goes_on_as_if_nothing_had_been(
    plan: list[tuple[int, list[Command]]], at: int
) -> None:
    machine, ids = Machine(), Ids()
    restored: Machine | None = None
    now_ms = 0
    for number, (step_ms, batch) in enumerate([OPENING, *plan]):
        now_ms = max(0, now_ms + step_ms)
        if number == at:
            restored = Machine.restore(machine.snapshot())
        ready = ids.settle(batch)
        answer = machine.execute(now_ms, ready)
        ids.learn(answer[0])
        if restored is not None:
            assert restored.execute(now_ms, ready) == answer
            assert claim(restored) == claim(machine)
