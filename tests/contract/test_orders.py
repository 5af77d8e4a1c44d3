"""Orders and payments: money and tickets change hands together, or not at all."""

from __future__ import annotations

import time
from typing import Any

from tests.contract.conftest import NewSale
from tests.servers import Server
from tests.wire import Answer

HOLD_S = 0.5

JOINED_MS = 1_500
"""Later than the second that a payment is waited for, sooner than the next one, for which another one waits."""

PENDING_MS = 2_000
"""Later than that second, and than what a test does then; and later than a hold."""


def hold(server: Server, sale: str, buyer: str = "ada", quantity: int = 1) -> str:
    answer = server.reserve(sale, quantity=quantity, buyer=buyer)
    assert answer.status == 201, answer
    return str(answer.json()["id"])


def pay(server: Server, id: str, card: str = "approve", delay_ms: int = 0, buyer: str = "ada") -> Answer:
    return server.call("POST", f"/v1/orders/{id}/payment", {"card": card, "delay_ms": delay_ms}, buyer=buyer)


def order(server: Server, id: str, buyer: str = "ada") -> dict[str, Any]:
    answer = server.call("GET", f"/v1/orders/{id}", buyer=buyer)
    assert answer.status == 200, answer
    read: dict[str, Any] = answer.json()
    return read


def settled(server: Server, id: str) -> dict[str, Any]:
    """The order once its payment is no longer pending."""
    until = time.monotonic() + 20
    while (read := order(server, id))["payment"]["state"] == "pending" and time.monotonic() < until:
        time.sleep(0.05)
    return read


def expired(server: Server, id: str) -> None:
    """Wait until the order's hold is gone."""
    while order(server, id)["state"] == "held":
        time.sleep(0.02)


def test_an_order_begins_unpaid_and_says_what_it_costs(server: Server, sale_id: str) -> None:
    item = {"id": "second", "capacity": 5, "price_minor": 12_050, "currency": "EUR"}
    server.call("PUT", f"/v1/sales/{sale_id}", {"items": [item]})
    server.call("POST", f"/v1/sales/{sale_id}/open")
    reservation = server.reserve(sale_id, quantity=2, buyer="ada").json()

    assert order(server, reservation["id"]) == {
        "id": reservation["id"],
        "sale": sale_id,
        "item": "second",
        "quantity": 2,
        "state": "held",
        "amount_minor": 24_100,
        "currency": "EUR",
        "held_at": reservation["held_at"],
        "expires_at": reservation["expires_at"],
        "paid_at": None,
        "payment": {"state": "none", "id": ""},
        "replaced_by": None,
        "order": "not_kept",
        "number": None,
    }


def test_an_approved_payment_makes_the_units_sold(server: Server, new_sale: NewSale) -> None:
    sale = new_sale(5)
    id = hold(server, sale, quantity=2)

    answer = pay(server, id)

    assert answer.status == 200
    paid = answer.json()
    assert (paid["payment"]["state"], paid["order"]["state"]) == ("approved", "paid")
    assert paid["order"] == order(server, id)
    assert paid["order"]["paid_at"] is not None
    assert paid["order"]["payment"] == paid["payment"]
    level = server.level(sale)
    assert (level["available"], level["held"], level["sold"]) == (3, 0, 2)


def test_paying_again_does_not_charge_again(server: Server, new_sale: NewSale) -> None:
    id = hold(server, new_sale())

    first, again = pay(server, id), pay(server, id)

    assert (first.status, again.status) == (200, 200)
    assert again.json() == first.json()


def test_a_payment_may_be_sent_with_a_key(server: Server, new_sale: NewSale) -> None:
    id = hold(server, new_sale())
    path, body = f"/v1/orders/{id}/payment", {"card": "approve"}

    first, again = (server.call("POST", path, body, buyer="ada", key="k1") for _ in range(2))

    assert (first.status, again.json()) == (200, first.json())


def test_a_declined_payment_leaves_the_hold_and_can_be_tried_again(server: Server, new_sale: NewSale) -> None:
    sale = new_sale()
    id = hold(server, sale)

    declined = pay(server, id, "decline")

    assert (declined.status, declined.code) == (402, "payment_declined")
    assert order(server, id)["payment"]["state"] == "declined"
    assert server.level(sale)["held"] == 1
    assert pay(server, id).status == 200
    assert order(server, id)["payment"]["state"] == "approved"


def test_a_payment_that_takes_long_is_pending_and_another_one_joins_it(server: Server, new_sale: NewSale) -> None:
    sale = new_sale()
    id = hold(server, sale)

    answer = pay(server, id, "late", JOINED_MS)

    assert answer.status == 202
    assert answer.json()["payment"]["state"] == "pending"
    assert answer.json()["order"]["state"] == "held"
    joined = pay(server, id, "decline")
    assert (joined.status, joined.json()["payment"]["state"]) == (200, "approved")
    done = settled(server, id)
    assert (done["state"], done["payment"]) == ("paid", joined.json()["payment"])
    assert server.level(sale)["sold"] == 1


def test_a_payment_after_expiry_gets_a_free_unit_under_a_new_id(server: Server, new_sale: NewSale) -> None:
    sale = new_sale(1, hold_window_s=HOLD_S)
    lost = hold(server, sale)
    expired(server, lost)

    answer = pay(server, lost)

    assert answer.status == 200
    assert answer.json()["payment"]["state"] == "approved"
    old = order(server, lost)
    assert (old["state"], old["payment"]["state"]) == ("expired", "approved")
    new = order(server, old["replaced_by"])
    assert (new["state"], new["payment"]["state"], new["quantity"]) == ("paid", "approved", 1)
    assert new["payment"]["id"] == old["payment"]["id"]
    assert server.level(sale)["sold"] == 1


def test_paying_a_replaced_order_again_changes_nothing(server: Server, new_sale: NewSale) -> None:
    sale = new_sale(5, hold_window_s=HOLD_S)
    lost = hold(server, sale)
    expired(server, lost)
    first = pay(server, lost).json()

    again = pay(server, lost)

    assert (again.status, again.json()) == (200, first)
    assert server.level(sale)["sold"] == 1


def test_a_payment_after_expiry_is_given_back_when_no_unit_is_free(server: Server, new_sale: NewSale) -> None:
    sale = new_sale(1, hold_window_s=HOLD_S)
    lost = hold(server, sale)
    while server.level(sale)["available"] == 0:
        time.sleep(0.02)
    winner = hold(server, sale, "bob")
    assert pay(server, winner, buyer="bob").status == 200

    answer = pay(server, lost, "approve")

    assert (answer.status, answer.code) == (409, "payment_refunded")
    read = order(server, lost)
    assert (read["state"], read["payment"]["state"], read["replaced_by"]) == ("expired", "refunded", None)
    assert server.level(sale)["sold"] == 1


def test_a_pending_payment_of_a_lost_hold_ends_refunded(server: Server, new_sale: NewSale) -> None:
    sale = new_sale(1, hold_window_s=HOLD_S)
    lost = hold(server, sale)
    assert pay(server, lost, "late", PENDING_MS).status == 202
    assert pay(server, hold(server, sale, "bob"), buyer="bob").status == 200

    read = settled(server, lost)

    assert (read["state"], read["payment"]["state"]) == ("expired", "refunded")


def test_money_for_a_hold_that_was_cancelled_meanwhile_is_given_back(server: Server, new_sale: NewSale) -> None:
    sale = new_sale(1)
    id = hold(server, sale)
    assert pay(server, id, "late", PENDING_MS).status == 202
    assert server.call("DELETE", f"/v1/reservations/{id}", buyer="ada").status == 200

    read = settled(server, id)

    assert (read["state"], read["payment"]["state"]) == ("cancelled", "refunded")
    assert server.level(sale)["available"] == 1


def test_what_was_cancelled_is_not_charged(server: Server, new_sale: NewSale) -> None:
    id = hold(server, new_sale())
    server.call("DELETE", f"/v1/reservations/{id}", buyer="ada")

    answer = pay(server, id)

    assert (answer.status, answer.code) == (409, "wrong_state")
    assert order(server, id)["payment"]["state"] == "none"


def test_a_sale_that_closed_still_takes_the_money_of_those_who_hold(server: Server, new_sale: NewSale) -> None:
    sale = new_sale()
    id = hold(server, sale)
    server.call("POST", f"/v1/sales/{sale}/close")

    assert pay(server, id).status == 200


def test_a_refund_gives_back_the_money_and_the_unit(server: Server, new_sale: NewSale) -> None:
    sale = new_sale(1)
    id = hold(server, sale)
    pay(server, id)

    refunded, again = (server.call("POST", f"/v1/reservations/{id}/refund") for _ in range(2))

    assert (refunded.status, refunded.json()["state"]) == (200, "refunded")
    assert (again.status, again.json()) == (200, refunded.json())
    read = order(server, id)
    assert (read["state"], read["payment"]["state"]) == ("refunded", "refunded")
    assert server.reserve(sale, buyer="bob").status == 201


def test_a_refund_of_a_replacement_gives_back_the_money_of_the_late_payment(server: Server, new_sale: NewSale) -> None:
    lost = hold(server, new_sale(1, hold_window_s=HOLD_S))
    assert pay(server, lost, "late", PENDING_MS).status == 202
    replacement = settled(server, lost)["replaced_by"]

    assert server.call("POST", f"/v1/reservations/{replacement}/refund").status == 200

    assert order(server, replacement)["payment"]["state"] == "refunded"
    assert order(server, lost)["payment"]["state"] == "refunded"


def test_only_what_is_paid_is_refunded(server: Server, new_sale: NewSale) -> None:
    id = hold(server, new_sale())

    held = server.call("POST", f"/v1/reservations/{id}/refund")
    unknown = server.call("POST", f"/v1/reservations/{'0' * 32}/refund")

    assert (held.status, held.code) == (409, "wrong_state")
    assert (unknown.status, unknown.code) == (404, "unknown_reservation")
