"""Sold out at the edge: Nginx answers for a closed gate, for a second, and for nobody who may have won."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Final

import pytest

from tests.servers import Server
from tests.wire import Answer, Wire, request
from ticketrush.cluster.server import running as running_nginx
from ticketrush.edge.cluster_file import ClusterFile, Front, NodeEntry
from ticketrush.edge.nginx_server import NginxServer

SECOND_S: Final = 1.0
"""The longest that the edge may answer in the place of a node."""


class Shop:
    """A node, Nginx before it, and buyers at both doors."""

    def __init__(self, node: Server, edge: NginxServer) -> None:
        self.node, self.edge = node, edge

    def turned_away(self) -> int:
        """Requests that the closed gate of the node has answered."""
        text = self.node.call("GET", "/metrics").body.decode()
        line = next(line for line in text.splitlines() if line.startswith("ticketrush_gate_refusals_total "))
        return int(float(line.rpartition(" ")[2]))

    def buy(self, sale: str, buyer: str, *, item: str = "second", headers: dict[str, str] | None = None) -> Answer:
        """A request for one unit through the edge."""
        head = {"Authorization": f"Bearer {self.node.mint(buyer)}", "Connection": "close", **(headers or {})}
        body = json.dumps({"item": item, "quantity": 1}).encode()
        with Wire(self.edge.port) as wire:
            wire.send(request("POST", f"/v1/sales/{sale}/reservations", body, head))
            return wire.answer()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("edge")
    for name in ("node", "edge"):
        (folder / name).mkdir()
    node = Server(folder / "node")
    try:
        cluster = ClusterFile(
            front=Front(rate=None),
            nodes=(NodeEntry.model_validate({"name": "n", "address": "127.0.0.1", "port": node.port}),),
        )
        with running_nginx(NginxServer(folder / "edge", cluster)) as edge:
            yield Shop(node, edge)
    finally:
        node.stop()


def early_in_a_second(room_s: float = 0.7) -> None:
    """Return when a second of the wall clock has begun, and `room_s` of it are left."""
    while time.time() % 1 > 1 - room_s:
        time.sleep(0.005)


def test_between_two_looks_the_node_hears_of_no_loser(shop: Shop) -> None:
    shop.node.open_sale("losers", {"second": 1}, hold_window_s=60)
    assert shop.buy("losers", "ada").status == 201
    early_in_a_second()
    began_s, before = time.monotonic(), shop.turned_away()

    answers = [shop.buy("losers", f"bob{n}") for n in range(100)]

    seconds = 1 + int(time.monotonic() - began_s + 1)
    assert Counter((each.status, each.code) for each in answers) == {(409, "all_held"): 100}
    assert {each.header("content-type") for each in answers} == {"application/problem+json"}
    assert all(each.header("retry-after") for each in answers)
    assert all(each.header("x-accel-expires") is None for each in answers)
    assert 1 <= shop.turned_away() - before <= seconds


def test_a_unit_that_comes_back_is_sold_within_a_second(shop: Shop) -> None:
    shop.node.open_sale("back", {"second": 1}, hold_window_s=60)
    id = shop.buy("back", "ada").json()["id"]
    for _ in range(3):
        assert shop.buy("back", "bob").code == "all_held"
    assert shop.node.call("DELETE", f"/v1/reservations/{id}", buyer="ada").status == 200
    back_s = time.monotonic()

    while True:
        asked_s = time.monotonic()
        answer = shop.buy("back", "bob")
        if answer.status == 201:
            break
        assert answer.code == "all_held"
        assert asked_s - back_s <= SECOND_S + 0.1, "the edge says so for longer than a second"
        time.sleep(0.01)


def test_when_much_comes_back_everybody_gets_it(shop: Shop) -> None:
    """Not one buyer a round trip, while the others are told what was true a second ago."""
    shop.node.open_sale("much", {"second": 1}, hold_window_s=60)
    shop.buy("much", "ada")
    shop.buy("much", "bob")
    shop.node.call("POST", "/v1/sales/much/items/second/stock", {"units": 200}, key="more")
    time.sleep(SECOND_S)

    answers = [shop.buy("much", f"cyd{n}") for n in range(201)]

    assert Counter(each.status for each in answers) == {201: 200, 409: 1}


@pytest.mark.parametrize("attempt", [None, "2", "", "x"])
def test_a_winner_who_repeats_gets_the_first_answer_and_never_the_losers(shop: Shop, attempt: str | None) -> None:
    sale = f"winner-{attempt}"
    shop.node.open_sale(sale, {"second": 1}, hold_window_s=60)
    key = {"Idempotency-Key": "k1"}
    won = shop.buy(sale, "ada", headers=key)
    early_in_a_second()
    for buyer in ("bob", "cyd"):
        assert shop.buy(sale, buyer).code == "all_held"

    again = shop.buy(sale, "ada", headers=key | ({} if attempt is None else {"Idempotency-Attempt": attempt}))

    assert (again.status, again.json()["id"]) == (200, won.json()["id"])


def test_an_answer_to_a_key_is_given_to_nobody_else(shop: Shop) -> None:
    shop.node.open_sale("keys", {"second": 1}, hold_window_s=60)
    won = shop.buy("keys", "ada", headers={"Idempotency-Key": "k1"})
    early_in_a_second()
    assert shop.buy("keys", "ada", headers={"Idempotency-Key": "k1"}).status == 200
    assert shop.buy("keys", "bob", headers={"Idempotency-Key": "k2"}).code == "all_held"
    other = shop.buy("keys", "bob")
    assert (won.status, other.status, other.code) == (201, 409, "all_held")


def test_who_says_that_it_is_the_first_attempt_spares_the_nodes(shop: Shop) -> None:
    shop.node.open_sale("first", {"second": 1}, hold_window_s=60)
    shop.buy("first", "ada")
    early_in_a_second()
    shop.buy("first", "bob")
    began_s, before = time.monotonic(), shop.turned_away()

    answers = [
        shop.buy("first", f"bob{n}", headers={"Idempotency-Key": f"k{n}", "Idempotency-Attempt": "1"})
        for n in range(30)
    ]

    assert {each.code for each in answers} == {"all_held"}
    assert shop.turned_away() - before <= 1 + int(time.monotonic() - began_s + 1)


def test_what_is_said_of_one_item_or_sale_is_not_said_of_another(shop: Shop) -> None:
    for sale in ("one", "two"):
        shop.node.open_sale(sale, {"second": 1, "first": 5}, hold_window_s=60)
    shop.buy("one", "ada")
    early_in_a_second()
    assert shop.buy("one", "bob").code == "all_held"

    assert shop.buy("one", "bob", item="first").status == 201
    assert shop.buy("two", "bob").status == 201
    assert shop.buy("one", "cyd").code == "all_held"


def test_what_is_said_of_one_item_is_not_said_of_another_whose_body_went_into_a_file(shop: Shop) -> None:
    """Nginx counts what stands between the chunks: a short body with much of it does not stay in memory."""
    shop.node.open_sale("files", {"sold-a": 1, "open-x": 5, "open-y": 5}, hold_window_s=60)
    assert shop.buy("files", "ada", item="sold-a").status == 201
    early_in_a_second()
    answers = [buy_by_long_chunks(shop, "files", item) for item in ("sold-a", "open-x", "open-y")]
    assert [answer.status for answer in answers] == [409, 201, 201]
    complaints = (shop.edge.folder / "error.log").read_text()
    assert complaints.count("a client request body is buffered to a temporary file") == 3


def buy_by_long_chunks(shop: Shop, sale: str, item: str) -> Answer:
    body = json.dumps({"item": item, "quantity": 1}).encode()
    chunks = b"".join(b"1;%b\r\n%c\r\n" % (b"a" * 12_000, byte) for byte in body) + b"0\r\n\r\n"
    head = {"Authorization": f"Bearer {shop.node.mint('bob')}", "Connection": "close", "Transfer-Encoding": "chunked"}
    with Wire(shop.edge.port) as wire:
        wire.send(request("POST", f"/v1/sales/{sale}/reservations", chunks, head))
        return wire.answer()


def test_what_only_one_buyer_is_told_is_told_to_no_other(shop: Shop) -> None:
    shop.node.open_sale("limit", {"second": 5}, limit=1, hold_window_s=60)
    assert shop.buy("limit", "ada").status == 201
    assert shop.buy("limit", "ada").code == "purchase_limit"
    assert shop.buy("limit", "bob").status == 201


def test_losers_that_the_edge_answers_are_not_in_its_log(shop: Shop) -> None:
    shop.node.open_sale("quiet", {"second": 1}, hold_window_s=60)
    shop.buy("quiet", "ada")
    began_s, before = time.monotonic(), shop.turned_away()
    for n in range(100):
        shop.buy("quiet", f"bob{n}")
    looks = shop.turned_away() - before
    shop.buy("quiet", "the-last", headers={"Idempotency-Key": "k1"})  # by a node, and so in the log
    written_s = time.monotonic() + 2.5  # every process of Nginx writes once a second
    while time.monotonic() < written_s:
        time.sleep(0.05)
    lines = [line for line in shop.edge.access_log.read_text().splitlines() if "/sales/quiet/" in line]
    assert 1 <= looks <= 1 + int(time.monotonic() - began_s + 1)
    assert len(lines) == 1 + looks + 1
