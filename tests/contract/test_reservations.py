"""The hot call and what belongs to a reservation: every answer that the API promises."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta

import pytest

from tests.contract.conftest import NewSale
from tests.servers import Server
from tests.wire import Answer

MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


def at(moment: str) -> datetime:
    assert MOMENT.fullmatch(moment), moment
    return datetime.fromisoformat(moment)


def seconds(answer: Answer) -> int:
    """Its Retry-After."""
    text = answer.header("retry-after")
    assert text is not None, answer
    return int(text)


def test_a_reservation_is_created_with_everything_a_buyer_needs_to_know(server: Server, new_sale: NewSale) -> None:
    sale = new_sale(10, hold_window_s=60)

    answer = server.reserve(sale, quantity=3, buyer="ada")

    assert answer.status == 201
    assert answer.header("content-type") == "application/json"
    made = answer.json()
    assert (made["sale"], made["item"], made["quantity"], made["state"]) == (sale, "second", 3, "held")
    assert at(made["expires_at"]) - at(made["held_at"]) == timedelta(seconds=60)
    assert abs(datetime.now(UTC) - at(made["held_at"])) < timedelta(seconds=30)
    assert answer.header("location") == f"/v1/reservations/{made['id']}"
    assert answer.header("idempotent-replayed") is None
    level = server.level(sale)
    assert (level["capacity"], level["available"], level["held"], level["sold"]) == (10, 7, 3, 0)


def test_the_location_leads_to_the_same_reservation(server: Server, new_sale: NewSale) -> None:
    made = server.reserve(new_sale(), buyer="ada")

    read = server.call("GET", made.header("location") or "", buyer="ada")

    assert read.status == 200
    assert read.json() == made.json()


def test_quantity_is_one_unless_said_otherwise(server: Server, new_sale: NewSale) -> None:
    path = f"/v1/sales/{new_sale()}/reservations"

    answer = server.call("POST", path, {"item": "second"}, buyer="ada")

    assert (answer.status, answer.json()["quantity"]) == (201, 1)


def test_the_last_unit_is_sold_and_then_it_is_sold_out(server: Server, new_sale: NewSale) -> None:
    sale = new_sale(1)
    id = server.reserve(sale, buyer="ada").json()["id"]
    assert server.call("POST", f"/v1/orders/{id}/payment", {"card": "approve"}, buyer="ada").status == 200

    answer = server.reserve(sale, buyer="bob")

    assert (answer.status, answer.code) == (409, "sold_out")
    assert answer.header("retry-after") is None


def test_when_all_is_held_the_answer_says_when_to_come_again(server: Server, new_sale: NewSale) -> None:
    sale = new_sale(1, hold_window_s=30)
    server.reserve(sale, buyer="ada")

    answer = server.reserve(sale, buyer="bob")

    assert (answer.status, answer.code) == (409, "all_held")
    assert 1 <= seconds(answer) <= 30


def test_a_request_for_more_than_is_left_burns_nothing(server: Server, new_sale: NewSale) -> None:
    sale = new_sale(5)
    server.reserve(sale, quantity=3, buyer="ada")

    assert server.reserve(sale, quantity=3, buyer="bob").code == "all_held"
    assert server.reserve(sale, quantity=6, buyer="bob").code == "sold_out"
    assert server.reserve(sale, quantity=2, buyer="bob").status == 201


def test_a_hold_that_is_not_paid_can_be_bought_by_another(server: Server, new_sale: NewSale) -> None:
    sale = new_sale(1, hold_window_s=0.3)
    id = server.reserve(sale, buyer="ada").json()["id"]
    until = time.monotonic() + 5
    while (answer := server.reserve(sale, buyer="bob")).status != 201 and time.monotonic() < until:
        assert answer.code == "all_held"
        time.sleep(0.05)

    assert answer.status == 201
    assert server.call("GET", f"/v1/reservations/{id}", buyer="ada").json()["state"] == "expired"


def test_nobody_gets_more_than_the_purchase_limit(server: Server, new_sale: NewSale) -> None:
    sale = new_sale(10, limit=2)
    server.reserve(sale, quantity=1, buyer="ada")

    answer = server.reserve(sale, quantity=2, buyer="ada")

    assert (answer.status, answer.code) == (409, "purchase_limit")
    assert server.reserve(sale, quantity=1, buyer="ada").status == 201
    assert server.reserve(sale, quantity=2, buyer="bob").status == 201
    assert server.level(sale)["held"] == 4


def test_before_a_sale_opens_the_answer_says_when_it_will(server: Server, sale_id: str) -> None:
    opens_at = datetime.now(UTC) + timedelta(seconds=100)
    assert server.create_sale(sale_id, {"second": 1}, opens_at=opens_at.isoformat()).status == 201

    answer = server.reserve(sale_id, buyer="ada")

    assert (answer.status, answer.code) == (403, "not_open")
    assert 90 <= seconds(answer) <= 100


def test_a_sale_without_an_opening_time_does_not_promise_one(server: Server, sale_id: str) -> None:
    server.create_sale(sale_id, {"second": 1})

    answer = server.reserve(sale_id, buyer="ada")

    assert (answer.status, answer.code) == (403, "not_open")
    assert answer.header("retry-after") is None


def test_a_sale_opens_and_closes_by_itself(server: Server, sale_id: str) -> None:
    now = datetime.now(UTC)
    opens_at, closes_at = now + timedelta(seconds=1), now + timedelta(seconds=2)
    server.create_sale(sale_id, {"second": 1_000}, opens_at=opens_at.isoformat(), closes_at=closes_at.isoformat())
    seen: list[str] = []
    while not seen or (seen[-1] != "closed" and datetime.now(UTC) < now + timedelta(seconds=20)):
        answer = server.reserve(sale_id, buyer="ada")
        word = "held" if answer.status == 201 else answer.code
        if word not in seen:
            seen.append(word)
        time.sleep(0.02)

    assert seen == ["not_open", "held", "closed"]


def test_a_closed_sale_is_gone(server: Server, new_sale: NewSale) -> None:
    sale = new_sale()
    server.call("POST", f"/v1/sales/{sale}/close")

    answer = server.reserve(sale, buyer="ada")

    assert (answer.status, answer.code) == (410, "closed")


def test_an_unknown_sale_and_an_unknown_item_are_told_apart(server: Server, new_sale: NewSale) -> None:
    sale = new_sale()

    unknown_sale = server.reserve("no-such-sale", buyer="ada")
    unknown_item = server.reserve(sale, "no-such-item", buyer="ada")

    assert (unknown_sale.status, unknown_sale.code) == (404, "unknown_sale")
    assert (unknown_item.status, unknown_item.code) == (404, "unknown_item")


def test_only_what_a_closed_gate_says_may_be_said_for_it_by_a_proxy(server: Server, new_sale: NewSale) -> None:
    """The header is an order to Nginx: answer like this for a second, whoever asks."""
    sale = new_sale(2, limit=3, hold_window_s=30)
    decided = [
        server.reserve(sale, buyer="ada", key="k1"),
        server.reserve(sale, quantity=3, buyer="ada"),
        server.reserve(sale, quantity=3, buyer="bob"),
        server.reserve(sale, buyer="bob"),
        server.reserve(sale, buyer="ada", key="k1"),
    ]
    refusals = [answer.code for answer in decided if answer.status >= 400]
    assert ([answer.status for answer in decided], refusals) == (
        [201, 409, 409, 201, 200],
        ["purchase_limit", "sold_out"],
    )
    assert [answer.header("x-accel-expires") for answer in decided] == [None] * 5

    turned_away = server.reserve(sale, buyer="cyd")

    assert (turned_away.code, turned_away.header("x-accel-expires")) == ("all_held", "1")


def test_no_proxy_says_not_open_when_it_is_about_to_open(server: Server, sale_id: str) -> None:
    for name, opens_in_s, header in (("later", 100.0, "1"), ("soon", 1.5, None)):
        opens_at = datetime.now(UTC) + timedelta(seconds=opens_in_s)
        server.create_sale(f"{sale_id}-{name}", {"second": 1}, opens_at=opens_at.isoformat())
        answer = server.reserve(f"{sale_id}-{name}", buyer="ada")
        assert (answer.code, answer.header("x-accel-expires")) == ("not_open", header)


def test_a_closed_gate_answers_before_it_looks_at_the_token(server: Server, new_sale: NewSale) -> None:
    sale = new_sale(1)
    server.reserve(sale, buyer="ada")

    answer = server.call("POST", f"/v1/sales/{sale}/reservations", {"item": "second"}, headers={})

    assert answer.code == "all_held"


def test_the_same_key_gets_the_first_reservation_again(server: Server, new_sale: NewSale) -> None:
    sale = new_sale()
    first = server.reserve(sale, buyer="ada", key="k1")

    again = server.reserve(sale, buyer="ada", key="k1")

    assert (first.status, again.status) == (201, 200)
    assert again.header("idempotent-replayed") == "true"
    assert again.header("location") == first.header("location")
    assert again.json() == first.json()
    assert server.level(sale)["held"] == 1


@pytest.mark.parametrize("end", ["sold out", "closed"])
def test_the_same_key_gets_the_first_reservation_also_when_the_gate_is_closed(
    server: Server, new_sale: NewSale, end: str
) -> None:
    sale = new_sale(1)
    first = server.reserve(sale, buyer="ada", key="k1").json()
    if end == "closed":
        server.call("POST", f"/v1/sales/{sale}/close")
    assert server.reserve(sale, buyer="bob", key="k2").status in {409, 410}

    again = server.reserve(sale, buyer="ada", key="k1")

    assert (again.status, again.json()["id"]) == (200, first["id"])


def test_a_replay_shows_what_became_of_the_reservation(server: Server, new_sale: NewSale) -> None:
    sale = new_sale()
    id = server.reserve(sale, buyer="ada", key="k1").json()["id"]
    server.call("DELETE", f"/v1/reservations/{id}", buyer="ada")

    again = server.reserve(sale, buyer="ada", key="k1")

    assert (again.status, again.json()["id"], again.json()["state"]) == (200, id, "cancelled")


def test_a_key_is_not_reused_for_another_request(server: Server, new_sale: NewSale) -> None:
    sale = new_sale()
    server.reserve(sale, buyer="ada", key="k1")

    answer = server.reserve(sale, quantity=2, buyer="ada", key="k1")

    assert (answer.status, answer.code) == (422, "idempotency_key_reused")
    assert server.level(sale)["held"] == 1


def test_two_buyers_may_choose_the_same_key(server: Server, new_sale: NewSale) -> None:
    sale = new_sale()

    ids = {server.reserve(sale, buyer=buyer, key="k1").json()["id"] for buyer in ("ada", "bob", "ada", "bob")}

    assert len(ids) == 2
    assert server.level(sale)["held"] == 2


def test_a_refused_request_does_not_use_up_its_key(server: Server, new_sale: NewSale) -> None:
    sale = new_sale(1)
    id = server.reserve(sale, buyer="ada").json()["id"]
    assert server.reserve(sale, buyer="bob", key="k1").status == 409
    server.call("DELETE", f"/v1/reservations/{id}", buyer="ada")

    assert server.reserve(sale, buyer="bob", key="k1").status == 201


@pytest.mark.parametrize("key", ["x" * 129, "two words", "ta\tb", "ключ".encode().decode("latin-1")])
def test_a_key_that_is_not_visible_ascii_is_refused(server: Server, new_sale: NewSale, key: str) -> None:
    answer = server.reserve(new_sale(), buyer="ada", key=key)

    assert (answer.status, answer.code) == (422, "invalid_request")


def test_the_longest_key_is_taken(server: Server, new_sale: NewSale) -> None:
    sale, key = new_sale(), "~" * 128

    assert [server.reserve(sale, buyer="ada", key=key).status for _ in range(2)] == [201, 200]


def test_a_cancelled_unit_can_be_bought_at_once(server: Server, new_sale: NewSale) -> None:
    sale = new_sale(1)
    id = server.reserve(sale, buyer="ada").json()["id"]

    cancelled = server.call("DELETE", f"/v1/reservations/{id}", buyer="ada")
    again = server.call("DELETE", f"/v1/reservations/{id}", buyer="ada")

    assert (cancelled.status, cancelled.json()["state"]) == (200, "cancelled")
    assert (again.status, again.json()) == (200, cancelled.json())
    assert server.reserve(sale, buyer="bob").status == 201


def test_what_is_paid_cannot_be_cancelled(server: Server, new_sale: NewSale) -> None:
    id = server.reserve(new_sale(), buyer="ada").json()["id"]
    server.call("POST", f"/v1/orders/{id}/payment", {"card": "approve"}, buyer="ada")

    answer = server.call("DELETE", f"/v1/reservations/{id}", buyer="ada")

    assert (answer.status, answer.code) == (409, "wrong_state")
    assert "paid" in answer.json()["detail"]


def without_date(answer: Answer) -> tuple[int, list[tuple[str, str]], bytes]:
    return answer.status, [pair for pair in answer.headers if pair[0] != "date"], answer.body


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/reservations/{id}", None),
        ("DELETE", "/v1/reservations/{id}", None),
        ("GET", "/v1/orders/{id}", None),
        ("POST", "/v1/orders/{id}/payment", {"card": "approve"}),
    ],
)
def test_what_is_anothers_looks_exactly_like_what_does_not_exist(
    server: Server, new_sale: NewSale, method: str, path: str, body: object
) -> None:
    id = server.reserve(new_sale(), buyer="ada").json()["id"]

    anothers = server.call(method, path.format(id=id), body, buyer="bob")
    unknown = server.call(method, path.format(id="0" * 32), body, buyer="bob")

    assert anothers.code == ("unknown_order" if "orders" in path else "unknown_reservation")
    assert anothers.status == 404
    assert without_date(anothers) == without_date(unknown)
    assert server.call("GET", f"/v1/reservations/{id}", buyer="ada").json()["state"] == "held"
