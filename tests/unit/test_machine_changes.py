"""The life of a reservation after it is held, the operator's commands, and purity."""

from __future__ import annotations

import copy

import pytest

from tests.unit.shop import CLOSES_AT_MS, HOLD_MS, OPENS_AT_MS, Shop, claim, reason, sale
from ticketrush import model as m
from ticketrush.events import Cancelled, Expired, Paid, Refunded, SaleCreated, SaleScheduled, StockAdded
from ticketrush.ledger.machine import Machine
from ticketrush.model import (
    AddStock,
    Cancel,
    Changed,
    CloseSale,
    Command,
    Confirm,
    CreateSale,
    Expire,
    ExpiredSome,
    OpenSale,
    Reason,
    Refund,
    Refused,
    Reservation,
    Reserve,
    SaleChanged,
    State,
)

OTHER = m.Sale("other", (m.Item("only", 1),))


@pytest.fixture
def shop() -> Shop:
    """A shop with 3 units of "second" and 1 of "first"."""
    return Shop()


def in_state(shop: Shop, state: State) -> Reservation:
    """One reservation of one unit, brought into `state`."""
    held = shop.hold()
    if state in {State.PAID, State.REFUNDED}:
        shop.do(Confirm(held.id, "p"))
    if state is State.REFUNDED:
        shop.refund(held.id)
    if state is State.CANCELLED:
        shop.cancel(held.id)
    if state is State.EXPIRED:
        shop.expire(held.expires_at_ms)
        shop.now_ms = held.expires_at_ms
    assert shop.get(held.id).state is state
    return shop.get(held.id)


# --- confirm, cancel, refund ------------------------------------------------------------------


def test_a_confirmed_hold_is_sold(shop: Shop) -> None:
    held = shop.hold("ann", 2)
    outcome = shop.do(Confirm(held.id, "p"), OPENS_AT_MS + 5)
    assert outcome == Changed(shop.get(held.id))
    paid = shop.get(held.id)
    assert (paid.state, paid.payment, paid.changed_at_ms) == (State.PAID, "p", OPENS_AT_MS + 5)
    assert (paid.held_at_ms, paid.expires_at_ms) == (held.held_at_ms, held.expires_at_ms)
    assert shop.level() == (3, 1, 0, 2)
    assert shop.events[-1] == Paid(OPENS_AT_MS + 5, held.id, "p")


def test_a_cancelled_hold_returns_its_units(shop: Shop) -> None:
    held = shop.hold("ann", 2)
    assert shop.cancel(held.id) == Changed(shop.get(held.id))
    assert shop.get(held.id).state is State.CANCELLED
    assert shop.level() == (3, 3, 0, 0)
    assert shop.events[-1] == Cancelled(OPENS_AT_MS, held.id)


def test_a_refunded_purchase_returns_its_units(shop: Shop) -> None:
    bought = shop.buy("ann", 2)
    assert shop.refund(bought.id) == Changed(shop.get(bought.id))
    assert shop.get(bought.id).state is State.REFUNDED
    assert shop.get(bought.id).payment == bought.payment
    assert shop.level() == (3, 3, 0, 0)
    assert shop.events[-1] == Refunded(OPENS_AT_MS, bought.id)


@pytest.mark.parametrize(
    ("state", "command"),
    [
        (State.PAID, Confirm("r1", "p")),
        (State.CANCELLED, Cancel("r1")),
        (State.REFUNDED, Refund("r1")),
    ],
)
def test_a_repeated_change_is_harmless(shop: Shop, state: State, command: Command) -> None:
    reservation = in_state(shop, state)
    before = (shop.machine.seq, shop.machine.snapshot())
    assert shop.do(command) == Changed(reservation, repeated=True)
    assert (shop.machine.seq, shop.machine.snapshot()) == before


@pytest.mark.parametrize(
    ("state", "command"),
    [
        (State.PAID, Confirm("r1", "another payment")),
        *((state, Confirm("r1", "p")) for state in (State.CANCELLED, State.EXPIRED, State.REFUNDED)),
        *((state, Cancel("r1")) for state in (State.PAID, State.EXPIRED, State.REFUNDED)),
        *((state, Refund("r1")) for state in (State.HELD, State.CANCELLED, State.EXPIRED)),
    ],
)
def test_a_change_from_the_wrong_state_is_refused_and_shows_it(shop: Shop, state: State, command: Command) -> None:
    reservation = in_state(shop, state)
    before = (shop.machine.seq, shop.machine.snapshot())
    assert shop.do(command) == Refused(Reason.WRONG_STATE, reservation=reservation)
    assert (shop.machine.seq, shop.machine.snapshot()) == before


@pytest.mark.parametrize("command", [Confirm("ghost", "p"), Cancel("ghost"), Refund("ghost")])
def test_unknown_reservations_are_unknown(shop: Shop, command: Command) -> None:
    assert shop.do(command) == Refused(Reason.UNKNOWN_RESERVATION)


def test_holds_may_be_paid_after_the_sale_closed(shop: Shop) -> None:
    held = shop.hold()
    shop.do(CloseSale("rail"))
    assert isinstance(shop.do(Confirm(held.id, "p")), Changed)


# --- expire -----------------------------------------------------------------------------------


def test_a_hold_expires_at_its_time_and_not_before(shop: Shop) -> None:
    held = shop.hold("ann", 2)
    assert shop.expire(held.expires_at_ms - 1) == ExpiredSome(0, more=False)
    assert shop.level() == (3, 1, 2, 0)
    assert shop.expire(held.expires_at_ms) == ExpiredSome(1, more=False)
    assert shop.get(held.id).state is State.EXPIRED
    assert shop.level() == (3, 3, 0, 0)
    assert shop.events[-1] == Expired(held.expires_at_ms, held.id)
    assert shop.expire(held.expires_at_ms + 1) == ExpiredSome(0, more=False)


def test_a_late_payment_wins_while_nobody_expired_the_hold(shop: Shop) -> None:
    held = shop.hold()
    late_ms = held.expires_at_ms + 1
    assert isinstance(shop.do(Confirm(held.id, "p"), late_ms), Changed)
    assert shop.expire(late_ms) == ExpiredSome(0, more=False)
    assert shop.level() == (3, 2, 0, 1)


def test_an_expired_hold_cannot_be_paid(shop: Shop) -> None:
    held = shop.hold()
    shop.expire(held.expires_at_ms)
    assert reason(shop.do(Confirm(held.id, "p"))) == "wrong_state"
    assert shop.level() == (3, 3, 0, 0)


def test_settled_reservations_do_not_expire(shop: Shop) -> None:
    shop.buy("ann")
    shop.cancel(shop.hold("bob").id)
    left = shop.hold("cid", at_ms=OPENS_AT_MS + 500)
    assert shop.machine.next_expiry_at_ms() == left.expires_at_ms
    assert shop.expire(OPENS_AT_MS + HOLD_MS + 499) == ExpiredSome(0, more=False)
    assert shop.expire(OPENS_AT_MS + HOLD_MS + 500) == ExpiredSome(1, more=False)
    assert shop.machine.next_expiry_at_ms() is None


def test_expiry_is_done_in_pieces_when_asked_to() -> None:
    shop = Shop(sale(5))
    held = [shop.hold(f"b{n}", at_ms=OPENS_AT_MS + n) for n in range(5)]
    due_ms = held[-1].expires_at_ms
    assert shop.expire(due_ms, most=2) == ExpiredSome(2, more=True)
    assert [shop.get(of.id).state for of in held] == [State.EXPIRED] * 2 + [State.HELD] * 3, "the oldest first"
    assert shop.expire(due_ms, most=3) == ExpiredSome(3, more=False)


def test_expired_units_are_sold_again_to_the_last_one() -> None:
    shop = Shop(sale(2))
    first = shop.hold("ann", 2)
    assert reason(shop.reserve("bob")) == "all_held"
    shop.expire(first.expires_at_ms)
    shop.now_ms = first.expires_at_ms
    shop.buy("bob")
    shop.buy("cid")
    assert reason(shop.reserve("dan")) == "sold_out"
    assert shop.audit().ok


# --- the operator -----------------------------------------------------------------------------


def test_a_sale_is_made_once(shop: Shop) -> None:
    assert shop.do(CreateSale(sale())) == SaleChanged(sale(), repeated=True)
    assert shop.do(CreateSale(sale(4))) == Refused(Reason.SALE_EXISTS)
    assert shop.events == [SaleCreated(0, sale())]
    assert shop.level() == (3, 3, 0, 0)


def test_the_same_sale_again_is_harmless_after_it_was_closed_and_restocked(shop: Shop) -> None:
    shop.do(AddStock("rail", "second", 1, "k"))
    closed = shop.do(CloseSale("rail"))
    assert isinstance(closed, SaleChanged)
    assert shop.do(CreateSale(sale())) == SaleChanged(closed.sale, repeated=True)


def test_a_ledger_has_a_bounded_number_of_sales(monkeypatch: pytest.MonkeyPatch, shop: Shop) -> None:
    monkeypatch.setattr(m, "SALES_MAX", 1)
    assert shop.do(CreateSale(OTHER)) == Refused(Reason.LIMIT_EXCEEDED)


def test_opening_a_sale_opens_it_now() -> None:
    shop = Shop(sale(opens=None))
    assert reason(shop.reserve()) == "not_open"
    outcome = shop.do(OpenSale("rail"))
    assert outcome == SaleChanged(sale(opens=OPENS_AT_MS))
    assert shop.events[-1] == SaleScheduled(OPENS_AT_MS, "rail", OPENS_AT_MS, CLOSES_AT_MS)
    shop.hold()
    assert shop.do(OpenSale("rail")) == SaleChanged(sale(opens=OPENS_AT_MS), repeated=True)


def test_a_closed_sale_opens_again_until_it_is_closed(shop: Shop) -> None:
    assert reason(shop.reserve(at_ms=CLOSES_AT_MS)) == "closed"
    shop.now_ms = CLOSES_AT_MS + 5
    shop.do(OpenSale("rail"))
    shop.hold()
    assert shop.do(CloseSale("rail"), CLOSES_AT_MS + 6) == SaleChanged(
        sale(opens=CLOSES_AT_MS + 5, closes=CLOSES_AT_MS + 6)
    )
    assert reason(shop.reserve(at_ms=CLOSES_AT_MS + 6)) == "closed"
    assert shop.do(CloseSale("rail"), CLOSES_AT_MS + 7) == SaleChanged(
        sale(opens=CLOSES_AT_MS + 5, closes=CLOSES_AT_MS + 6), repeated=True
    )


def test_a_sale_may_be_closed_before_it_opens() -> None:
    shop = Shop(sale(opens=None))
    shop.do(CloseSale("rail"))
    assert reason(shop.reserve()) == "closed"


def test_added_stock_is_sold_like_the_rest(shop: Shop) -> None:
    shop.buy("ann", 3)
    assert reason(shop.reserve("bob")) == "sold_out"
    assert shop.do(AddStock("rail", "second", 2, "k")) == SaleChanged(sale())
    assert shop.events[-1] == StockAdded(OPENS_AT_MS, "rail", "second", 2, "k")
    assert shop.level() == (5, 2, 0, 3)
    shop.buy("bob", 2)
    assert reason(shop.reserve("cid")) == "sold_out"


def test_stock_is_added_once_for_a_key(shop: Shop) -> None:
    shop.do(AddStock("rail", "second", 2, "k"))
    assert shop.do(AddStock("rail", "second", 2, "k")) == SaleChanged(sale(), repeated=True)
    assert shop.do(AddStock("rail", "second", 3, "k")) == Refused(Reason.KEY_REUSED)
    assert shop.level() == (5, 5, 0, 0)
    shop.do(AddStock("rail", "first", 2, "k"))
    assert shop.level("first") == (3, 3, 0, 0)


def test_stock_has_a_limit(shop: Shop) -> None:
    most = m.CAPACITY_MAX - 3
    assert shop.do(AddStock("rail", "second", most + 1, "k")) == Refused(Reason.LIMIT_EXCEEDED)
    assert isinstance(shop.do(AddStock("rail", "second", most, "k")), SaleChanged)


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (OpenSale("no-such-sale"), "unknown_sale"),
        (CloseSale("no-such-sale"), "unknown_sale"),
        (AddStock("no-such-sale", "second", 1, "k"), "unknown_sale"),
        (AddStock("rail", "no-such-item", 1, "k"), "unknown_item"),
    ],
)
def test_unknown_sales_and_items_are_unknown(shop: Shop, command: Command, why: str) -> None:
    assert reason(shop.do(command)) == why


def test_the_version_of_a_sale_grows_with_each_of_its_changes_and_no_other(shop: Shop) -> None:
    def versions() -> list[int]:
        return [stock.version for id in ("rail", "other") if (stock := shop.machine.stock(id)) is not None]

    shop.do(CreateSale(OTHER))
    seen = [versions()]
    held = shop.hold()
    seen.append(versions())
    shop.cancel(held.id)
    seen.append(versions())
    shop.cancel(held.id)
    assert versions() == seen[-1], "nothing was changed"
    assert seen == [[1, 2], [3, 2], [4, 2]]
    assert shop.machine.stock("no-such-sale") is None


# --- purity -----------------------------------------------------------------------------------

STORY: list[tuple[int, list[Command]]] = [
    (0, [CreateSale(sale(4, limit=2))]),
    (100, [Reserve("a", "rail", "second", "ann", 2, "k"), Reserve("b", "rail", "second", "bob", 1, "k")]),
    (90, [Confirm("a", "p"), Reserve("c", "rail", "first", "cid", 1, "")]),
    (1_100, [Expire(1), Reserve("d", "rail", "second", "dan", 2, "k"), AddStock("rail", "second", 1, "k")]),
    (1_200, [Refund("a"), Cancel("d"), Expire(), CloseSale("rail"), OpenSale("rail")]),
]


def test_the_same_commands_give_the_same_outcomes_and_events() -> None:
    one, two = Machine(), Machine()
    for at_ms, commands in STORY:
        before = copy.deepcopy(commands)
        assert one.execute(at_ms, commands) == two.execute(at_ms, commands)
        assert commands == before
    assert one.snapshot() == two.snapshot()


def test_time_never_runs_backwards_in_the_events() -> None:
    machine = Machine()
    times = [event.at_ms for at_ms, commands in STORY for event in machine.execute(at_ms, commands)[1]]
    assert times == sorted(times)


def test_reading_changes_no_later_decision() -> None:
    sales = [m.Sale(id, (m.Item("only", 9),), 0, None, HOLD_MS) for id in ("one", "two")]
    story: list[tuple[int, list[Command]]] = [
        (0, [CreateSale(sale) for sale in sales]),
        (1, [Reserve("a", "one", "only", "ann", 1, ""), Cancel("a")]),
        (2, [Reserve("b", "two", "only", "bob", 1, "")]),
        (3, [Reserve("c", "one", "only", "cid", 1, "")]),
    ]
    read, left_alone = Machine(), Machine()
    for at_ms, commands in story:
        read.execute(at_ms, commands)
        left_alone.execute(at_ms, commands)
        read.next_expiry_at_ms()
        for sale_id in ("one", "two"):
            read.stock(sale_id)
    restored = Machine.restore(left_alone.snapshot())
    first = [machine.execute(5_000, [Expire(1)])[1] for machine in (left_alone, read, restored)]
    assert first[0] == first[1] == first[2], "a machine that was read, or restored, expires in the same order"


def test_replay_and_snapshot_give_the_machine_again() -> None:
    machine, replayed = Machine(), Machine()
    for at_ms, commands in STORY:
        replayed.replay(machine.execute(at_ms, commands)[1])
        restored = Machine.restore(machine.snapshot())
        for other in (replayed, restored):
            assert other.snapshot() == machine.snapshot()
            assert claim(other) == claim(machine)
            assert other.next_expiry_at_ms() == machine.next_expiry_at_ms()


def test_a_batch_of_commands_is_the_same_as_one_after_another() -> None:
    together, singly = Machine(), Machine()
    for at_ms, commands in STORY:
        outcomes, events = together.execute(at_ms, commands)
        pieces = [singly.execute(at_ms, [command]) for command in commands]
        assert outcomes == [piece[0][0] for piece in pieces]
        assert events == [event for piece in pieces for event in piece[1]]
    assert together.snapshot() == singly.snapshot()
