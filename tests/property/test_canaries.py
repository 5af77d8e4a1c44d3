"""A test that cannot fail is a defect: the auditor catches every planted bug, and by the right invariant."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, note, settings
from hypothesis import strategies as st

from tests.property import bugs
from tests.property.profiles import PROFILE
from tests.property.rush import Rush
from ticketrush.ledger.machine import Machine

seeds = st.integers(0, 2**32)

CANARIES: list[tuple[type[bugs.Bug], str]] = [
    (bugs.SellsOneTooMany, "I1"),
    (bugs.SellsOneTooFew, "I7"),
    (bugs.ReplayBurnsAUnit, "I2 I7 I8"),
    (bugs.RejectionBurnsAUnit, "I7 I8"),
    (bugs.AnswersBeforeTheCommit, "I3"),
    (bugs.PaysAnExpiredHold, "I1 I2 I3 I8"),
    (bugs.ExpiresAPaidHold, "I3"),
    (bugs.ExpiresTooEarly, "I3"),
    (bugs.IgnoresTheLimit, "I6"),
    (bugs.ForgetsToReturnUnits, "I2 I7 I8"),
    (bugs.NeverExpires, "I7"),
    (bugs.ReservesAgainOnARepeat, "I5"),
    (bugs.ServesANobody, "I4"),
    (bugs.SellsBeforeTheSaleOpens, "I4"),
    (bugs.SnapshotForgetsAReservation, "I8"),
    (bugs.SnapshotForgetsASoldTicket, "I1 I8"),
    (bugs.TheCounterIsEvicted, "I1 I8"),
    (bugs.TheClockJumpsBack, "I8"),
]


@settings(PROFILE)
@given(seed=seeds)
def test_a_sale_without_a_bug_keeps_all_eight(seed: int) -> None:
    report = Rush(Machine(), seed).run()
    assert report.ok, report.violations
    assert report.vacuous == []
    assert (report.oversold, report.undersold, report.lost, report.unexpected) == (0, 0, 0, 0)
    assert report.held + report.sold == 11


@pytest.mark.parametrize(("bug", "broken"), CANARIES, ids=[bug.__name__ for bug, _ in CANARIES])
@settings(PROFILE, max_examples=PROFILE.max_examples // 3)
@given(seed=seeds)
def test_a_planted_bug_is_caught(bug: type[bugs.Bug], broken: str, seed: int) -> None:
    machine = bug()
    rush = Rush(machine, seed)
    report = rush.run()
    assume(machine.sprung)
    assume(machine.victim not in rush.told.unknown)  # whoever was not told lost nothing
    note("\n".join(report.violations))
    assert report.broken == broken.split()
    assert all(any(sentence.startswith(name) for sentence in report.violations) for name in report.broken)


def test_each_invariant_has_a_canary() -> None:
    assert {name for _, broken in CANARIES for name in broken.split()} == {f"I{n}" for n in range(1, 9)}
