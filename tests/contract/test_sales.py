"""What operators do with sales, and what anybody may see of them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.conftest import NewSale
from tests.servers import Server

ITEMS = [
    {"id": "second", "capacity": 10, "purchase_limit": 2, "price_minor": 55_300, "currency": "CNY"},
    {"id": "first", "capacity": 4},
]


def put(server: Server, sale: str, **body: Any) -> tuple[int, Any]:
    answer = server.call("PUT", f"/v1/sales/{sale}", {"items": ITEMS} | body)
    return answer.status, answer.json()


def test_a_created_sale_looks_as_it_was_described(server: Server, sale_id: str) -> None:
    times = {"opens_at": "2026-11-22T10:00:00.123Z", "closes_at": "2026-11-23T10:00:00+02:00"}

    status, sale = put(server, sale_id, hold_window_s=90.5, **times)

    assert status == 201
    assert (sale["id"], sale["hold_window_s"]) == (sale_id, 90.5)
    assert (sale["opens_at"], sale["closes_at"]) == ("2026-11-22T10:00:00.123Z", "2026-11-23T08:00:00.000Z")
    assert sale["items"] == [
        {"available": 10, "leased": 0, "held": 0, "sold": 0, **ITEMS[0]},
        {"available": 4, "leased": 0, "held": 0, "sold": 0, **ITEMS[1]}
        | {"purchase_limit": None, "price_minor": 0, "currency": "CNY"},
    ]


def test_the_same_sale_again_is_harmless_and_another_one_is_refused(server: Server, sale_id: str) -> None:
    created = put(server, sale_id)
    server.call("POST", f"/v1/sales/{sale_id}/open")

    again = put(server, sale_id)
    other = server.call("PUT", f"/v1/sales/{sale_id}", {"items": [{"id": "second", "capacity": 11}]})

    assert (created[0], again[0]) == (201, 200)
    assert again[1]["state"] == "open"
    assert (other.status, other.code) == (409, "sale_exists")
    assert server.level(sale_id)["capacity"] == 10


def test_anybody_may_look_at_a_sale_and_keep_it_for_a_second(server: Server, new_sale: NewSale) -> None:
    sale = new_sale(10)
    before = server.call("GET", f"/v1/sales/{sale}", headers={})
    server.reserve(sale, quantity=4, buyer="ada")
    after = server.call("GET", f"/v1/sales/{sale}", headers={})

    assert "max-age=1" in (before.header("cache-control") or "")
    assert after.json()["items"][0]["held"] == 4
    assert after.json()["version"] > before.json()["version"]
    assert after.json()["as_of"] >= before.json()["as_of"]


def test_an_unknown_sale_is_not_there_for_anybody(server: Server) -> None:
    answers = [
        server.call("GET", "/v1/sales/nowhere"),
        server.call("POST", "/v1/sales/nowhere/open"),
        server.call("POST", "/v1/sales/nowhere/close"),
        server.call("POST", "/v1/sales/nowhere/items/second/stock", {"units": 1}, key="k1"),
    ]

    assert [(answer.status, answer.code) for answer in answers] == [(404, "unknown_sale")] * 4


def test_a_sale_is_opened_closed_and_opened_again(server: Server, sale_id: str) -> None:
    states = [put(server, sale_id)[1]["state"]]
    for action in ("open", "open", "close", "close", "open"):
        answer = server.call("POST", f"/v1/sales/{sale_id}/{action}")
        assert answer.status == 200
        states.append(answer.json()["state"])

    assert states == ["not_open", "open", "open", "closed", "closed", "open"]


def test_items_of_a_sale_do_not_share_their_stock(server: Server, sale_id: str) -> None:
    server.open_sale(sale_id, {"first": 1, "second": 1})

    assert server.reserve(sale_id, "first", buyer="ada").status == 201
    assert server.reserve(sale_id, "first", buyer="bob").code == "all_held"
    assert server.reserve(sale_id, "second", buyer="bob").status == 201


def test_stock_is_added_once_for_each_key(server: Server, new_sale: NewSale) -> None:
    sale = new_sale(1)
    path = f"/v1/sales/{sale}/items/second/stock"
    server.reserve(sale, buyer="ada")
    assert server.reserve(sale, buyer="bob").status == 409

    added, again = (server.call("POST", path, {"units": 5}, key="k1") for _ in range(2))
    reused = server.call("POST", path, {"units": 6}, key="k1")
    more = server.call("POST", path, {"units": 5}, key="k2")

    assert [answer.status for answer in (added, again, more)] == [200, 200, 200]
    assert [answer.json()["items"][0]["capacity"] for answer in (added, again, more)] == [6, 6, 11]
    assert (reused.status, reused.code) == (422, "idempotency_key_reused")
    assert server.reserve(sale, buyer="bob").status == 201


def test_stock_is_not_added_without_a_key(server: Server, new_sale: NewSale) -> None:
    sale = new_sale(1)

    answer = server.call("POST", f"/v1/sales/{sale}/items/second/stock", {"units": 5})

    assert (answer.status, answer.code) == (422, "invalid_request")
    assert "key" in answer.json()["detail"]
    assert server.level(sale)["capacity"] == 1


def test_stock_is_not_added_beyond_what_can_be_counted(server: Server, new_sale: NewSale) -> None:
    sale = new_sale(10)

    answer = server.call("POST", f"/v1/sales/{sale}/items/second/stock", {"units": 1_000_000_000}, key="k1")

    assert (answer.status, answer.code) == (409, "limit_exceeded")
    assert server.level(sale)["capacity"] == 10


def test_stock_of_an_unknown_item_is_refused(server: Server, new_sale: NewSale) -> None:
    answer = server.call("POST", f"/v1/sales/{new_sale()}/items/third/stock", {"units": 1}, key="k1")

    assert (answer.status, answer.code) == (404, "unknown_item")


@pytest.mark.parametrize(
    "body",
    [
        {"items": []},
        {"items": ITEMS[:1] * 2},
        {"items": [{"id": "a b", "capacity": 1}]},
        {"items": [{"id": "", "capacity": 1}]},
        {"items": [{"id": "x" * 65, "capacity": 1}]},
        {"items": [{"id": "second", "capacity": -1}]},
        {"items": [{"id": "second", "capacity": 10**9 + 1}]},
        {"items": [{"id": "second", "capacity": 1, "purchase_limit": 0}]},
        {"items": [{"id": "second", "capacity": 1, "price_minor": -1}]},
        {"items": [{"id": "second", "capacity": 1, "currency": "yuan"}]},
        {"items": [{"id": "second", "capacity": 1, "colour": "red"}]},
        {"items": ITEMS, "hold_window_s": 0},
        {"items": ITEMS, "hold_window_s": 8 * 24 * 3_600},
        {"items": ITEMS, "opens_at": "2026-11-22T10:00:00"},
        {"items": ITEMS, "opens_at": "tomorrow"},
        {"items": ITEMS, "opens_at": 1_700_000_000},
        {"items": ITEMS, "opens_at": "0001-01-01T00:00:00+14:00"},
        {"items": ITEMS, "closes_at": "9999-12-31T23:59:59-14:00"},
    ],
)
def test_a_sale_that_makes_no_sense_is_refused(server: Server, sale_id: str, body: object) -> None:
    answer = server.call("PUT", f"/v1/sales/{sale_id}", body)

    assert (answer.status, answer.code) == (422, "invalid_request")
    assert server.call("GET", f"/v1/sales/{sale_id}").status == 404


@pytest.mark.parametrize("sale", ["a%20b", "x" * 65, "%C3%A9", "a%00b", "%FF"])
def test_a_sale_needs_an_id_that_fits_into_a_url(server: Server, sale: str) -> None:
    answer = server.call("PUT", f"/v1/sales/{sale}", {"items": ITEMS})

    assert (answer.status, answer.code) == (422, "invalid_request")
