"""What buyers were told and what a ledger claims of itself are held against the events."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest

from tests.unit.histories import (
    CREATED,
    SOUND,
    SOUND_LEVELS,
    SOUND_STATE,
    SOUND_STATES,
    held,
)
from ticketrush.audit import INVARIANTS, AuditReport, LedgerState, LevelLike, OrderRecord, Told, Units, audit, digest
from ticketrush.audit.report import SENTENCES_MAX
from ticketrush.events import (
    AnyEvent,
    Cancelled,
    Held,
    Paid,
)
from ticketrush.model import Level, State

# --- I3: what was acknowledged is there -------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "lost", "says"),
    [
        (Told({"zz": ("ann", "k", "rail", "second", 1)}), 1, "reservation zz of buyer ann, key 'k', is lost"),
        (Told({"a": ("ann", "k1", "rail", "second", 2)}), 1, "the buyer was told ('ann', 'k1', 'rail', 'second', 2)"),
        (Told({"a": ("bob", "k1", "rail", "second", 1)}), 1, "reservation a is ('ann', 'k1', 'rail', 'second', 1)"),
        (Told(paid={"f"}), 1, "reservation f is held, the buyer was told it is paid"),
        (Told(paid={"b"}), 1, "reservation b is expired"),
        (Told(paid={"zz"}), 1, "reservation zz is in no event"),
        (Told({"zz": ("ann", "k", "rail", "second", 1)}, {"zz", "b"}), 2, "I3"),
    ],
)
def test_what_a_buyer_was_told_and_is_not_so_is_lost(told: Told, lost: int, says: str) -> None:
    report = audit(SOUND, told=told, asked_for=lambda buyer, key: True)
    assert (report.broken, report.lost) == (["I3"], lost)
    assert any(says in sentence for sentence in report.violations), report.violations


def test_a_refunded_payment_is_not_lost() -> None:
    assert audit(SOUND, told=Told(paid={"a"}), asked_for=lambda buyer, key: True).ok


def sound_orders() -> list[OrderRecord]:
    helds = [event for event in SOUND if isinstance(event, Held)]
    return [
        OrderRecord(each.id, SOUND_STATES[each.id].value, each.sale, each.item, each.buyer, each.quantity)
        for each in helds
    ]


def test_each_reservation_has_exactly_one_order_that_says_the_same() -> None:
    orders = sound_orders()
    report = audit(SOUND, orders=orders)
    assert report.ok
    assert report.orders == len(orders) > 3
    assert "I3" not in report.vacuous


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda orders: orders[1:], "reservation a has no order"),
        (lambda orders: [*orders, orders[0]], "order a is there more than once"),
        (
            lambda orders: [*orders, msgspec.structs.replace(orders[0], id="zz")],
            "order zz is of a reservation that no event has",
        ),
        (lambda orders: [msgspec.structs.replace(orders[0], state="expired"), *orders[1:]], "state='expired'"),
        (lambda orders: [msgspec.structs.replace(orders[0], quantity=9), *orders[1:]], "quantity=9"),
    ],
)
def test_an_order_that_is_missing_doubled_unknown_or_different_breaks_i3(
    spoil: Callable[[list[OrderRecord]], list[OrderRecord]], says: str
) -> None:
    report = audit(SOUND, orders=spoil(sound_orders()))
    assert report.broken == ["I3"]
    assert any(says in sentence for sentence in report.violations), report.violations


# --- I4: nothing that nobody asked for --------------------------------------------------------


def test_a_reservation_that_nobody_asked_for_is_unexpected() -> None:
    report = audit(SOUND, asked_for=lambda buyer, key: (buyer, key) != ("bob", "k2"))
    assert (report.broken, report.unexpected) == (["I4"], 1)
    assert "nobody asked for reservation e of buyer bob, key 'k2'" in report.violations[0]


def test_without_a_list_of_requests_each_reservation_must_be_acknowledged_or_unknown() -> None:
    events = SOUND[:3]
    ann = {"a": ("ann", "k1", "rail", "second", 1)}
    assert audit(events, told=Told(ann, unknown=[("bob", "k1")])).ok
    report = audit(events, told=Told(ann))
    assert (report.broken, report.unexpected) == (["I4"], 1)


def test_an_unknown_answer_may_have_happened_or_not() -> None:
    told = Told(unknown=[("eve", "k3"), ("zoe", "k9")])
    report = audit(SOUND, told=told, asked_for=lambda buyer, key: True)
    assert (report.ok, report.unknown, report.lost) == (True, 1, 0)


# --- I5, I6: counted, too ---------------------------------------------------------------------


def test_a_second_effect_of_one_key_counts_as_unexpected() -> None:
    report = audit([CREATED, held(1, "a", buyer="ann", key="k"), held(2, "b", buyer="ann", key="k")])
    assert (report.broken, report.unexpected) == (["I5"], 1)


# --- I7: nothing stranded ---------------------------------------------------------------------


def test_units_left_over_though_wanted_are_stranded() -> None:
    events: list[AnyEvent] = [CREATED, held(1, "a", quantity=2), held(1, "b", item="first")]
    report = audit(events, demand_exceeds_capacity=True)
    assert (report.broken, report.undersold) == (["I7"], 1)
    assert "1 units of rail/second are stranded: 2 held + 0 sold of 3" in report.violations[0]


def test_units_left_over_and_not_wanted_are_not_stranded() -> None:
    for demand in (False, None):
        report = audit([CREATED], demand_exceeds_capacity=demand)
        assert report.ok
        assert report.undersold == 0
        assert "I7" in report.vacuous


def test_a_hold_long_overdue_is_stranded() -> None:
    held_and_owned = [held(1, f"r{n}", item="second") for n in range(3)]
    events: list[AnyEvent] = [CREATED, *held_and_owned, held(1_000, "b", item="first")]
    events += [Paid(1_000, held.id, "p") for held in held_and_owned]
    assert audit(events, demand_exceeds_capacity=True, now_ms=2_000).ok
    report = audit(events, demand_exceeds_capacity=True, now_ms=20_000)
    assert (report.broken, report.undersold) == (["I7"], 1)
    assert "reservation b is unpaid and held 18000 ms after its expiry" in report.violations[0]


# --- I8: the ledger is what its events say ----------------------------------------------------


def _claim(second: Units, **other: State) -> LedgerState:
    levels = {"rail": {**SOUND_LEVELS["rail"], "second": second}}
    return LedgerState.of(len(SOUND), levels, {**SOUND_STATES, **other}.items())


@pytest.mark.parametrize(
    ("state", "broken", "says"),
    [
        (_claim(Units(4, 1, 0, 1, 2)), {"I8"}, "rail/second: the ledger claims Units(capacity=4, available=1"),
        (_claim(Units(4, 0, 0, 2, 2), f=State.EXPIRED), {"I8"}, "the ledger claims digest"),
        (_claim(Units(4, 0, 0, 2, 2), ghost=State.EXPIRED), {"I8"}, "the ledger claims digest"),
        (_claim(Units(4, 1, 0, 2, 2)), {"I2", "I8"}, "I2 at event 14: the units that the ledger claims of rail/second"),
        (_claim(Units(4, -1, 0, 3, 2)), {"I1", "I8"}, "I1 at event 14: the ledger claims 5 units taken of rail/second"),
        (LedgerState(15, SOUND_LEVELS, SOUND_STATE.digest), {"I8"}, "claims 15 events, the journal has 14"),
        (LedgerState(14, {}, SOUND_STATE.digest), {"I8"}, "I8 at event 14: rail/first: the ledger claims"),
        (LedgerState(13, SOUND_LEVELS, SOUND_STATE.digest), {"I8"}, "I8 at event 13"),
    ],
)
def test_a_ledger_that_is_not_the_replay_of_its_events_is_caught(
    state: LedgerState, broken: set[str], says: str
) -> None:
    report = audit(SOUND, state=state)
    assert set(report.broken) == broken
    assert any(says in sentence for sentence in report.violations), report.violations


def test_the_claim_is_compared_at_the_event_it_was_made_at() -> None:
    later = [Paid(1_080, "f", "p4")]
    assert audit([*SOUND, *later], state=SOUND_STATE).ok


def test_leased_units_are_available_units_that_left_the_ledger() -> None:
    levels = {"rail": {"second": Units(3, 1, 2, 0, 0), "first": Units(1, 1, 0, 0, 0)}}
    assert audit([CREATED], state=LedgerState.of(1, levels, ())).ok
    levels["rail"]["second"] = Units(3, 2, 2, 0, 0)
    assert audit([CREATED], state=LedgerState.of(1, levels, ())).broken == ["I2", "I8"]


def test_the_digest_does_not_depend_on_any_order_and_tells_each_difference() -> None:
    states = list(SOUND_STATES.items())
    random.shuffle(states)
    levels: dict[str, dict[str, LevelLike]] = {
        "other": {"x": Level("x", 1, 1, 0, 0, 0)},
        "rail": {name: SOUND_LEVELS["rail"][name] for name in ("first", "second")},
    }
    same = {"rail": SOUND_LEVELS["rail"], "other": {"x": Units(1, 1, 0, 0, 0)}}
    assert digest(levels, states) == digest(same, SOUND_STATES.items())
    assert digest(same, states[1:]) != digest(same, states)
    assert digest(same, [(states[0][0] + "x", states[0][1]), *states[1:]]) != digest(same, states)
    assert digest({"rail": SOUND_LEVELS["rail"]}, states) != digest(same, states)


# --- the report -------------------------------------------------------------------------------


def test_the_report_says_which_checks_had_nothing_to_check() -> None:
    assert audit([]).vacuous == list(INVARIANTS)
    assert audit(SOUND).vacuous == ["I3", "I4", "I7", "I8"]
    assert audit(SOUND, told=Told()).vacuous == ["I3", "I4", "I7", "I8"]
    assert audit([*SOUND, Cancelled(2_000, "a")]).vacuous == ["I4", "I7", "I8"], "a broken invariant is not vacuous"


def test_the_report_tells_the_first_violations_of_each_invariant_and_counts_all() -> None:
    many = [held(1, f"r{n:03}", buyer="ann") for n in range(500)]
    report = audit([CREATED, *many, Paid(2, "ghost", "p")])
    assert set(report.broken) == {"I1", "I3", "I6"}
    assert report.counts == {"I1": 497, "I6": 498, "I3": 1}
    assert len(report.violations) == 2 * SENTENCES_MAX + 1 <= 100
    assert "ghost" in report.violations[-1]


def test_the_report_travels_as_json() -> None:
    report = audit(SOUND, state=SOUND_STATE)
    plain = report.to_dict()
    assert {name: plain[name] for name in INVARIANTS} == report.invariants() == dict.fromkeys(INVARIANTS, True)
    assert msgspec.json.decode(msgspec.json.encode(report), type=AuditReport) == report
    assert msgspec.json.decode(msgspec.json.encode(SOUND_STATE), type=LedgerState) == SOUND_STATE


def test_the_events_are_read_once() -> None:
    assert audit((event for event in SOUND), state=SOUND_STATE).events == len(SOUND)
