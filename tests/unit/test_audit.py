"""The auditor finds what is wrong in a history, names the right invariant, and passes a sound one."""

from __future__ import annotations

import msgspec
import pytest

from tests.unit.histories import (
    CREATED,
    SOUND,
    SOUND_STATE,
    SOUND_TOLD,
    held,
)
from ticketrush.audit import audit
from ticketrush.events import (
    AnyEvent,
    Cancelled,
    Expired,
    Paid,
    Refunded,
    SaleScheduled,
    StockAdded,
)


def test_what_is_written_again_after_the_sale_closed_was_made_before() -> None:
    made = held(49_999, "a")
    written_again = msgspec.structs.replace(made, at_ms=60_000)
    assert audit([CREATED, written_again]).I4
    sold_too_late = held(60_000, "b")
    assert not audit([CREATED, sold_too_late]).I4


def test_a_sound_history_keeps_all_eight() -> None:
    report = audit(
        SOUND,
        state=SOUND_STATE,
        told=SOUND_TOLD,
        asked_for=lambda buyer, key: True,
        demand_exceeds_capacity=True,
        now_ms=1_080,
    )
    assert report.ok
    assert report.broken == report.vacuous == report.violations == []
    assert (report.oversold, report.undersold, report.lost, report.unexpected, report.unknown) == (0, 0, 0, 0, 1)
    assert (report.events, report.reservations, report.held, report.sold) == (14, 6, 2, 3)
    assert (report.paid, report.expired, report.cancelled, report.refunded) == (3, 1, 1, 1)


@pytest.mark.parametrize(
    ("events", "broken", "says"),
    [
        pytest.param(
            [CREATED, held(1, "a", item="first"), held(2, "b", item="first")],
            {"I1"},
            ["I1 at event 3", "rail/first has 2 held + 0 sold = 2 units of a capacity of 1", "(b)"],
            id="I1 one unit too many, held",
        ),
        pytest.param(
            [CREATED, held(1, "a", item="first"), Paid(2, "a", "p"), held(3, "b", item="first"), Cancelled(4, "b")],
            {"I1"},
            ["I1 at event 4", "1 held + 1 sold = 2 units of a capacity of 1"],
            id="I1 one unit too many, for a moment only",
        ),
        pytest.param(
            [CREATED, held(1, "a", item="sleeper")],
            {"I1"},
            ["I1 at event 2", "rail/sleeper", "capacity of 0"],
            id="I1 an item that is not for sale",
        ),
        pytest.param(
            [CREATED, StockAdded(1, "rail", "sleeper", 5, "k")],
            {"I2"},
            ["I2 at event 2", "5 units are added to rail/sleeper, which no sale has"],
            id="I2 stock for no item",
        ),
        pytest.param(
            [CREATED, StockAdded(1, "rail", "second", -1, "k")],
            {"I2"},
            ["I2 at event 2", "-1 units are added to rail/second"],
            id="I2 stock taken away",
        ),
        pytest.param(
            [CREATED, held(1, "a", quantity=0)],
            {"I2"},
            ["I2 at event 2", "reservation a holds 0 units"],
            id="I2 a reservation of nothing",
        ),
        pytest.param(
            [CREATED, held(1, "a"), Cancelled(2, "a"), Expired(1_002, "a")],
            {"I2", "I3"},
            ["I2 at event 4", "4 available + 0 held + 0 sold, which is not its capacity of 3 (a)"],
            id="I2 units that come back twice",
        ),
        pytest.param(
            [CREATED, held(1, "a"), Paid(2, "a", "p"), Cancelled(3, "a")],
            {"I3"},
            ["I3 at event 4", "reservation a of buyer buyer-of-a goes from paid to cancelled"],
            id="I3 a paid one is cancelled",
        ),
        pytest.param(
            [CREATED, held(1, "a"), Refunded(3, "a")],
            {"I3"},
            ["goes from held to refunded"],
            id="I3 an unpaid one is refunded",
        ),
        pytest.param(
            [CREATED, held(1, "a"), Paid(2, "a", "p"), Paid(3, "a", "p")],
            {"I3"},
            ["goes from paid to paid"],
            id="I3 paid twice",
        ),
        pytest.param(
            [CREATED, held(1, "a"), held(2, "a")],
            {"I3"},
            ["I3 at event 3", "reservation a has a second order"],
            id="I3 two orders of one reservation",
        ),
        pytest.param(
            [CREATED, Paid(2, "ghost", "p")],
            {"I3"},
            ["I3 at event 2", "reservation ghost is paid but was never held"],
            id="I3 an order without a reservation",
        ),
        pytest.param(
            [CREATED, held(1, "a"), Expired(1_000, "a")],
            {"I3"},
            ["I3 at event 3", "expired 1 ms too early"],
            id="I3 a hold that ends before its time",
        ),
        pytest.param(
            [CREATED, held(1, "a", item="first"), Expired(1_001, "a"), Paid(1_002, "a", "p")],
            {"I2", "I3"},
            ["I3 at event 4", "goes from expired to paid"],
            id="I3 expired and paid, the unit is both sold and available",
        ),
        pytest.param(
            [
                CREATED,
                held(1, "a", item="first"),
                Expired(1_001, "a"),
                held(1_001, "b", item="first"),
                Paid(1_002, "a", "p"),
            ],
            {"I1", "I2", "I3"},
            ["I1 at event 5", "1 held + 1 sold = 2 units of a capacity of 1 (a)"],
            id="I1 expired and paid, the unit is somebody else's",
        ),
        pytest.param(
            [CREATED, held(50_000, "a")],
            {"I4"},
            ["I4 at event 2", "was made at 50000, while rail was not open (0 to 50000)"],
            id="I4 after the sale closed",
        ),
        pytest.param(
            [CREATED, SaleScheduled(1, "rail", 9, None), held(8, "a"), held(9, "b")],
            {"I4"},
            ["I4 at event 3", "reservation a of buyer buyer-of-a was made at 8, while rail was not open (9 to None)"],
            id="I4 before the sale opens",
        ),
        pytest.param(
            [CREATED, held(1, "a", buyer="ann", key="k"), held(2, "b", buyer="ann", key="k", item="first")],
            {"I5"},
            ["I5 at event 3", "buyer ann with key k has reservation b besides a"],
            id="I5 two reservations for one key",
        ),
        pytest.param(
            [CREATED, StockAdded(1, "rail", "first", 1, "k"), StockAdded(2, "rail", "first", 1, "k")],
            {"I5"},
            ["I5 at event 3", "stock is added to rail/first a second time under key k"],
            id="I5 stock added twice for one key",
        ),
        pytest.param(
            [CREATED, CREATED],
            {"I5"},
            ["I5 at event 2", "sale rail is created a second time"],
            id="I5 a sale made twice",
        ),
        pytest.param(
            [CREATED, held(1, "a", buyer="ann", quantity=2), held(2, "b", buyer="ann")],
            {"I6"},
            ["I6 at event 3", "buyer ann has 3 units of rail/second with reservation b, the purchase limit is 2"],
            id="I6 above the limit",
        ),
        pytest.param(
            [
                CREATED,
                held(1, "a", buyer="ann"),
                Paid(1, "a", "p"),
                held(2, "b", buyer="ann", quantity=2),
                Cancelled(3, "b"),
            ],
            {"I6"},
            ["I6 at event 4"],
            id="I6 above the limit for a moment only, owned units count",
        ),
        pytest.param(
            [CREATED, held(9, "a"), held(8, "b")],
            {"I8"},
            ["I8 at event 3", "time runs backwards, from 9 to 8"],
            id="I8 time runs backwards",
        ),
        pytest.param(
            [SaleScheduled(1, "rail", 0, None)],
            {"I8"},
            ["sale rail is scheduled but was never created"],
            id="I8 a sale from nowhere",
        ),
    ],
)
def test_an_unsound_history_is_caught(events: list[AnyEvent], broken: set[str], says: list[str]) -> None:
    report = audit(events)
    assert set(report.broken) == broken
    assert set(report.counts) == broken
    for words in says:
        assert any(words in sentence for sentence in report.violations), report.violations


@pytest.mark.parametrize(
    "events",
    [
        pytest.param([held(49_999, "a")], id="I4 the last moment of a sale"),
        pytest.param([SaleScheduled(1, "rail", 9, None), held(9, "a")], id="I4 the first moment of a sale"),
        pytest.param(
            [held(1, "a", buyer="ann", key="k"), held(2, "b", buyer="bob", key="k")], id="I5 a key is a buyer's"
        ),
        pytest.param([held(1, "a", buyer="ann"), held(2, "b", buyer="ann")], id="I5 no key, no claim to be one effect"),
        pytest.param(
            [StockAdded(1, "rail", "first", 1, "k"), StockAdded(2, "rail", "second", 1, "k")],
            id="I5 a key of stock is an item's",
        ),
        pytest.param([held(1, "a", buyer="ann", quantity=2)], id="I6 exactly the limit"),
        pytest.param(
            [held(1, "a", buyer="ann", quantity=2), Cancelled(2, "a"), held(3, "b", buyer="ann", quantity=2)],
            id="I6 cancelled units do not count",
        ),
        pytest.param([held(1, "a"), Expired(1_001, "a")], id="I3 the first moment of expiry"),
        pytest.param([held(1, "a"), Paid(9_999, "a", "p")], id="I3 paid late, but before it was expired"),
        pytest.param(
            [held(1, "a", item="first"), StockAdded(2, "rail", "first", 1, ""), held(3, "b", item="first")], id="I1"
        ),
    ],
)
def test_the_border_of_what_is_allowed_is_allowed(events: list[AnyEvent]) -> None:
    report = audit([CREATED, *events])
    assert report.ok, report.violations


def test_oversold_counts_the_units_at_the_worst_moment() -> None:
    events: list[AnyEvent] = [
        CREATED,
        *(held(1, f"r{n}") for n in range(6)),
        *(Cancelled(2, f"r{n}") for n in range(6)),
    ]
    report = audit(events)
    assert (report.broken, report.oversold, report.held) == (["I1"], 3, 0)
    assert report.counts == {"I1": 3}
