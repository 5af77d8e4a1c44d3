"""The rules by which units are given to buyers."""

from __future__ import annotations

import pytest

from tests.unit.shop import CLOSES_AT_MS, HOLD_MS, OPENS_AT_MS, Shop, reason, sale
from ticketrush.events import Held
from ticketrush.model import (
    Cancel,
    Command,
    Confirm,
    CreateSale,
    Item,
    Reason,
    Refused,
    Reservation,
    Reserve,
    Reserved,
    Sale,
    State,
)


@pytest.fixture
def shop() -> Shop:
    """A shop with 3 units of "second" and 1 of "first"."""
    return Shop()


# --- units ------------------------------------------------------------------------------------


def test_a_reservation_takes_its_units_and_says_until_when(shop: Shop) -> None:
    outcome = shop.reserve("ann", 2, key="k")
    assert outcome == Reserved(
        Reservation("r1", "rail", "second", "ann", 2, "k", OPENS_AT_MS, OPENS_AT_MS + HOLD_MS, State.HELD, OPENS_AT_MS)
    )
    assert shop.level() == (3, 1, 2, 0)
    assert shop.events[-1] == Held(OPENS_AT_MS, "r1", "rail", "second", "ann", 2, "k", OPENS_AT_MS + HOLD_MS)


def test_all_of_the_units_are_given_and_not_one_more(shop: Shop) -> None:
    outcomes = [shop.reserve(f"buyer{n}") for n in range(5)]
    assert [isinstance(outcome, Reserved) for outcome in outcomes] == [True, True, True, False, False]
    assert shop.level() == (3, 0, 3, 0)


def test_a_quantity_is_given_whole_or_not_at_all(shop: Shop) -> None:
    shop.hold("ann", 2)
    assert isinstance(shop.reserve("bob", 2), Refused)
    assert shop.level() == (3, 1, 2, 0)


def test_a_small_request_behind_a_too_large_one_succeeds(shop: Shop) -> None:
    batch = [Reserve(f"r{n}", "rail", "second", f"b{n}", quantity, "") for n, quantity in enumerate([2, 2, 1, 1])]
    assert [reason(outcome) for outcome in shop.do_all(batch)] == ["", "all_held", "", "all_held"]
    assert shop.level() == (3, 0, 3, 0)


def test_each_item_has_its_own_units(shop: Shop) -> None:
    shop.hold("ann", item="first")
    assert reason(shop.reserve("bob", item="first")) == "all_held"
    assert isinstance(shop.reserve("bob"), Reserved)
    assert (shop.level("first"), shop.level()) == ((1, 0, 1, 0), (3, 2, 1, 0))


def test_a_command_sees_the_effects_of_those_before_it_in_its_batch(shop: Shop) -> None:
    batch: list[Command] = [
        Reserve("x1", "rail", "first", "ann", 1, "k"),
        Reserve("x2", "rail", "first", "bob", 1, "k"),
        Reserve("x3", "rail", "first", "ann", 1, "k"),
        Cancel("x1"),
        Reserve("x4", "rail", "first", "bob", 1, "k"),
        Confirm("x4", "p"),
    ]
    outcomes = shop.do_all(batch)
    assert [reason(outcome) for outcome in outcomes] == ["", "all_held", "", "", "", ""]
    assert shop.get("x1").state is State.CANCELLED
    assert shop.get("x4").state is State.PAID
    assert shop.audit().ok


# --- sold out, or only held -------------------------------------------------------------------


def test_units_that_may_come_back_are_all_held_with_the_time_of_the_first(shop: Shop) -> None:
    shop.hold("ann", 1)
    shop.hold("bob", 2, at_ms=OPENS_AT_MS + 50)
    assert shop.reserve("cid") == Refused(Reason.ALL_HELD, OPENS_AT_MS + HOLD_MS)


def test_units_that_are_paid_are_sold_out(shop: Shop) -> None:
    shop.buy("ann", 3)
    assert shop.reserve("bob") == Refused(Reason.SOLD_OUT)


def test_all_held_is_said_only_while_the_held_units_would_suffice(shop: Shop) -> None:
    shop.buy("ann", 1)
    shop.hold("bob", 1)
    assert reason(shop.reserve("cid", 2)) == "all_held"
    assert reason(shop.reserve("cid", 3)) == "sold_out"
    assert isinstance(shop.reserve("cid", 1), Reserved)


def test_more_than_there_ever_was_is_sold_out(shop: Shop) -> None:
    assert reason(shop.reserve("ann", 4)) == "sold_out"


def test_an_item_of_no_units_is_sold_out() -> None:
    assert reason(Shop(sale(0)).reserve()) == "sold_out"


# --- the purchase limit -----------------------------------------------------------------------


def test_a_buyer_gets_the_limit_and_no_more() -> None:
    shop = Shop(sale(9, limit=2))
    shop.hold("ann", 1)
    assert reason(shop.reserve("ann", 2)) == "purchase_limit"
    shop.hold("ann", 1)
    assert reason(shop.reserve("ann", 1)) == "purchase_limit"
    assert reason(shop.reserve("bob", 3)) == "purchase_limit"
    shop.hold("bob", 2)
    assert shop.level() == (9, 5, 4, 0)


def test_owned_units_count_and_returned_ones_do_not() -> None:
    shop = Shop(sale(9, limit=2))
    owned = shop.buy("ann", 2)
    assert reason(shop.reserve("ann")) == "purchase_limit"
    shop.refund(owned.id)
    shop.cancel(shop.hold("ann", 2).id)
    held = shop.hold("ann", 2)
    assert shop.expire(held.expires_at_ms).count == 1
    shop.now_ms = held.expires_at_ms
    shop.hold("ann", 2)
    assert reason(shop.reserve("ann")) == "purchase_limit"


def test_what_a_buyer_keeps_counts_when_another_part_is_returned() -> None:
    for give_back in ("cancel", "expire", "refund"):
        shop = Shop(sale(9, limit=3))
        kept, returned = shop.buy("ann", 1), shop.hold("ann", 2)
        if give_back == "refund":
            shop.do(Confirm(returned.id, "p"))
            shop.refund(returned.id)
        elif give_back == "cancel":
            shop.cancel(returned.id)
        else:
            shop.expire(returned.expires_at_ms)
        assert shop.get(kept.id).state is State.PAID
        assert shop.level() == (9, 8, 0, 1)
        assert reason(shop.reserve("ann", 3)) == "purchase_limit"
        shop.hold("ann", 2)


def test_the_limit_is_told_before_sold_out() -> None:
    shop = Shop(sale(1, limit=1))
    shop.buy("ann")
    assert reason(shop.reserve("ann")) == "purchase_limit"
    assert reason(shop.reserve("bob")) == "sold_out"


def test_the_limit_of_one_item_does_not_bind_another() -> None:
    shop = Shop(sale(3, limit=1))
    shop.hold("ann")
    shop.hold("ann", item="first")


# --- idempotency keys -------------------------------------------------------------------------


def test_the_same_key_gets_the_first_reservation_again(shop: Shop) -> None:
    first = shop.hold("ann", 2, key="k")
    seq, snapshot = shop.machine.seq, shop.machine.snapshot()
    assert shop.reserve("ann", 2, key="k") == Reserved(first, replayed=True)
    assert (shop.machine.seq, shop.machine.snapshot()) == (seq, snapshot)


def test_a_replay_tells_the_state_of_today(shop: Shop) -> None:
    bought = shop.hold("ann", key="k")
    shop.do(Confirm(bought.id, "p"))
    replay = shop.reserve("ann", key="k")
    assert replay == Reserved(shop.get(bought.id), replayed=True)
    assert shop.get(bought.id).state is State.PAID


def test_a_replay_is_answered_whatever_else_changed() -> None:
    shop = Shop(sale(1, limit=1))
    first = shop.hold("ann", key="k")
    assert shop.reserve("ann", key="k") == Reserved(first, replayed=True), "sold out, and at the limit"
    assert shop.reserve("ann", key="k", at_ms=CLOSES_AT_MS) == Reserved(first, replayed=True), "closed"


def test_a_key_with_another_body_is_refused(shop: Shop) -> None:
    first = shop.hold("ann", 1, key="k")
    refused = Refused(Reason.KEY_REUSED, reservation=first)
    assert shop.reserve("ann", 2, key="k") == refused
    assert shop.reserve("ann", 1, key="k", item="first") == refused
    assert shop.reserve("ann", 1, key="k", item="no-such-item") == refused
    assert shop.level() == (3, 2, 1, 0)


def test_a_key_belongs_to_its_buyer(shop: Shop) -> None:
    buyers = ["ann", "bob", "cid"]
    first = {buyer: shop.hold(buyer, key="k").id for buyer in buyers}
    assert len(set(first.values())) == 3
    for buyer in buyers:
        replay = shop.reserve(buyer, key="k")
        assert isinstance(replay, Reserved)
        assert (replay.replayed, replay.reservation.id) == (True, first[buyer])
    assert shop.level() == (3, 0, 3, 0)


def test_a_key_belongs_to_its_sale(shop: Shop) -> None:
    shop.do(CreateSale(Sale("bus", (Item("second", 3),), opens_at_ms=0)))
    on_rail = shop.hold("ann", key="k")
    by_bus = shop.reserve("ann", key="k", sale="bus")
    assert isinstance(by_bus, Reserved)
    assert not by_bus.replayed
    assert by_bus.reservation.id != on_rail.id


def test_a_refused_request_does_not_use_up_its_key(shop: Shop) -> None:
    held = shop.hold("ann", 3)
    assert reason(shop.reserve("bob", key="k")) == "all_held"
    shop.cancel(held.id)
    shop.hold("bob", key="k")


def test_no_key_is_no_promise_of_one_effect(shop: Shop) -> None:
    assert shop.hold("ann").id != shop.hold("ann").id


def test_the_ledger_remembers_keys_for_the_gate(shop: Shop) -> None:
    held = shop.hold("ann", key="k")
    machine = shop.machine
    assert machine.remembers("rail", "k")
    assert not machine.remembers("rail", "other")
    assert not machine.remembers("no-such-sale", "k")
    assert machine.reservation_for("rail", "ann", "k") == held
    for sale_id, buyer, key in (("rail", "bob", "k"), ("rail", "ann", "x"), ("no-such-sale", "ann", "k")):
        assert machine.reservation_for(sale_id, buyer, key) is None


# --- opening times and unknown things ---------------------------------------------------------


@pytest.mark.parametrize(
    ("at_ms", "outcome"),
    [
        (OPENS_AT_MS - 1, Refused(Reason.NOT_OPEN, OPENS_AT_MS)),
        (OPENS_AT_MS, None),
        (CLOSES_AT_MS - 1, None),
        (CLOSES_AT_MS, Refused(Reason.CLOSED)),
    ],
)
def test_buyers_are_served_from_opening_to_closing(shop: Shop, at_ms: int, outcome: Refused | None) -> None:
    answer = shop.reserve(at_ms=at_ms)
    if outcome is None:
        assert isinstance(answer, Reserved)
    else:
        assert answer == outcome


def test_a_sale_without_an_opening_time_does_not_say_when_to_come_back() -> None:
    assert Shop(sale(opens=None)).reserve() == Refused(Reason.NOT_OPEN, 0)


def test_unknown_sales_and_items_are_told_apart(shop: Shop) -> None:
    assert shop.reserve(sale="no-such-sale") == Refused(Reason.UNKNOWN_SALE)
    assert shop.reserve(item="no-such-item") == Refused(Reason.UNKNOWN_ITEM)


# --- what changes nothing ---------------------------------------------------------------------


def test_rejected_and_repeated_buyers_burn_no_unit() -> None:
    shop = Shop(sale(4, limit=2))
    shop.hold("ann", 2, key="k")
    before = (shop.machine.seq, shop.machine.snapshot(), shop.level())
    for _ in range(10):
        assert reason(shop.reserve("ann")) == "purchase_limit"
        assert reason(shop.reserve("bob", 3)) == "purchase_limit"
        assert reason(shop.reserve("bob", item="no-such-item")) == "unknown_item"
        assert reason(shop.reserve("bob", at_ms=0)) == "", "time does not run backwards past the last event"
        shop.cancel(f"r{shop.asked}")
        assert isinstance(shop.reserve("ann", 2, key="k"), Reserved)
        assert reason(shop.reserve("ann", 1, key="k")) == "idempotency_key_reused"
    assert shop.level() == before[2]
    shop.hold("bob", 2)
    assert shop.level() == (4, 0, 4, 0)
    assert shop.audit().ok
