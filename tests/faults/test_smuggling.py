"""Requests that hide another one: the hidden one never buys, and whoever comes next gets an answer of their own.

`smuggling` has the payloads. Each is sent to a node, and through Nginx to a node, followed by a purchase of bob's.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.faults.smuggling import Payload, payloads
from tests.front_doors import Door, front_door
from tests.servers import FRONTS, OURS, PLAIN_UVICORN, Server, running
from tests.wire import Answer, ConnectionEnded, Wire, request

PAYLOADS: Final = payloads()
STOCK: Final = 100_000_000
DEMO: Final = ("--demo", str(STOCK))
SILENCE_S: Final = 1.5
"""A server that says nothing for so long waits for more."""

REFUSALS: Final = frozenset((400, 408, 413, 414, 431, 501, 505))

LAXER: Final = {
    "/1.0', ": "the parser takes other protocols' names (RTSP, ICE) for HTTP's; it counts the same requests in them",
    "RTSP/1.1'": "the same",
    "\\t%d'": "a tab may stand before a value (RFC 9110, 5.6.3)",
    "%d\\t'": "and behind it",
    "Expect: 100-continue\\r\\nExpect": "says twice what it says once",
    " * HTTP/1.1": "is answered 404",
}
"""What Nginx refuses and a node answers, by a part of the name, and why that is no harm."""


@dataclass(frozen=True)
class Seen:
    """What the sender of a payload and of bob's purchase behind it got to see."""

    answers: list[Answer]
    is_ended: bool

    @property
    def told(self) -> int:
        """Purchases that the sender knows of."""
        return sum(answer.status in {200, 201} and b'"ok"' not in answer.body for answer in self.answers)

    def own(self, payload: Payload) -> list[Answer]:
        """The answers from the payload's own on."""
        return self.answers[payload.before :]

    def takes(self, payload: Payload) -> bool:
        """Whether the payload itself was taken for a request."""
        return bool(self.own(payload)) and self.own(payload)[0].status not in REFUSALS


def send(port: int, payload: Payload, after: bytes, *, says_all: bool, patience_s: float = 10.0) -> Seen:
    """Send a payload and what comes `after` it; `says_all` also ends the sending."""
    answers: list[Answer] = []
    with Wire(port, timeout_s=patience_s) as wire:
        try:
            wire.send(payload.data + after)
            if says_all:
                wire.end_of_sending()
            while True:
                has_body = payload.has_body or len(answers) != payload.before
                answer = wire.answer(has_body=has_body)
                if answer.status != 100:
                    answers.append(answer)
        except TimeoutError:
            return Seen(answers, is_ended=False)
        except ConnectionEnded as error:
            if not answers and '"code":1' in str(error):  # HTTP/0.9: Nginx speaks it, and answers with a body alone
                answers.append(Answer(200, (), str(error).encode(), "HTTP/0.9"))
            return Seen(answers, is_ended=True)


def purchase(number: int, buyer: str = "bob", **headers: str) -> bytes:
    """A purchase that nobody else makes at that time: its quantity tells it from others."""
    body = json.dumps({"item": "second", "quantity": quantity(number)}).encode()
    return request("POST", "/v1/sales/next/reservations", body, {"X-Buyer": buyer} | headers)


def quantity(number: int) -> int:
    return 2 + number % 997


def is_own(answer: Answer, number: int) -> bool:
    """Whether `answer` is that of `purchase(number)`."""
    if answer.status != 201:
        return False
    said = answer.json()
    return (said["sale"], said["quantity"]) == ("next", quantity(number))


def call(port: int, method: str, path: str, body: object = None) -> Answer:
    with Wire(port) as wire:
        data = b"" if body is None else json.dumps(body).encode()
        wire.send(request(method, path, data, {"X-Buyer": "operator", "Connection": "close"}))
        return wire.answer()


def open_sales(port: int) -> None:
    for sale in ("marker", "honest", "next"):
        assert call(port, "PUT", f"/v1/sales/{sale}", {"items": [{"id": "second", "capacity": STOCK}]}).status == 201
        assert call(port, "POST", f"/v1/sales/{sale}/open").status == 200


def decided(port: int) -> int:
    """Purchases that a node has decided."""
    names = ("ticketrush_commands_total ", "ticketrush_gate_refusals_total ")
    lines = call(port, "GET", "/metrics").body.decode().splitlines()
    return sum(int(float(line.split(" ")[1])) for line in lines if line.startswith(names))


def held(port: int, sale: str) -> int:
    return int(call(port, "GET", f"/v1/sales/{sale}").json()["items"][0]["held"])


def faults_of(payload: Payload, seen: Seen, number: int) -> Iterator[str]:
    """What is wrong with the answers to a payload and to bob behind it."""
    own = seen.own(payload)
    if not seen.is_ended:
        yield "is kept waiting"
    if not own:
        yield "got no answer"
    elif len(own) == 1:
        if own[0].header("connection") != "close":
            yield "is left without the second answer"
    elif len(own) > 2:
        yield "was taken for several requests"
    elif not is_own(own[1], number) and (own[1].status, own[1].header("connection")) != (400, "close"):
        yield "made bob's answer another's"


def show(found: list[str]) -> str:
    return "\n".join([f"{len(found)} of {len(PAYLOADS)}:", *found[:10]])


def test_there_are_many_and_no_two_are_alike() -> None:
    assert len({payload.data for payload in PAYLOADS}) == len(PAYLOADS) >= 200
    assert len({payload.family for payload in PAYLOADS}) >= 10


@pytest.fixture(scope="module", params=FRONTS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with running(request.param, env={"TICKETRUSH_DEMO": str(STOCK)}, secrets=()) as server:
        open_sales(server.port)
        yield server


@pytest.mark.parametrize("server", OURS, indirect=True)
def test_a_node_reads_each_as_one_request_or_refuses_it(server: Server) -> None:
    found, before = [], decided(server.port)
    for number, payload in enumerate(PAYLOADS):
        seen = send(server.port, payload, purchase(number), says_all=True)
        after = decided(server.port)

        faults = list(faults_of(payload, seen, number))
        if after - before != seen.told:
            faults.append(f"made {after - before} purchases, and {seen.told} were told")
        found += [f"{fault}: {[each.status for each in seen.answers]} {payload}" for fault in faults]
        before = after

    assert not found, show(found)
    assert held(server.port, "marker") == 0
    assert_is_well(server)


@pytest.mark.parametrize("server", [PLAIN_UVICORN], indirect=True)
def test_plain_uvicorn_sells_nothing_that_was_hidden(server: Server) -> None:
    """Its parser forgives more, and cuts answers off; but what it takes for a request, the sender meant to be one."""
    found = []
    for number, payload in enumerate(PAYLOADS):
        seen = send(server.port, payload, purchase(number, Connection="close"), says_all=False, patience_s=0.15)
        own = seen.own(payload)
        if len(own) > 2 or (len(own) == 2 and not is_own(own[1], number) and own[1].status != 400):
            found.append(f"{[each.status for each in seen.answers]} {payload}")

    assert not found, show(found)
    assert held(server.port, "marker") == 0
    assert_is_well(server)


def assert_is_well(server: Server) -> None:
    """It runs, serves, agrees with its journal, and no request was a surprise to it."""
    with server.connect() as wire:
        wire.send(purchase(1))
        assert is_own(wire.answer(), 1)
    assert server.audit()["ok"] is True
    assert "Traceback" not in server.errors()


def test_nginx_and_a_node_count_the_same_requests(tmp_path: Path) -> None:
    """Each is sent through Nginx, and another buyer comes on its one connection to the node; then right to the node."""
    with front_door(tmp_path, (1,), flags=DEMO, keep_host=False, workers=1) as door:
        node = int(door.nodes[0].url.rpartition(":")[2])
        open_sales(node)
        by_nginx, found, total = through_nginx(door, node)
        hidden = held(node, "marker")
        lax = laxer_than(by_nginx, node)
        assert held(node, "marker") == hidden, "right to the node, none buys"
    assert not found, show(found)
    assert "" not in lax, show(lax[""])
    assert set(lax) == set(LAXER), "a reason why a node may take what Nginx refuses is out of date"
    lines = [json.loads(line) for line in door.nginx.access_log.read_text("utf-8").splitlines()]
    bought = [line["path"] for line in lines if line["node_status"] in {"200", "201"}]
    bought = [path for path in bought if path == "/buy/ticket" or path.endswith("/reservations")]
    assert len(bought) == total, "purchases that Nginx handed on, and that the node decided"
    # Nginx leaves out headers of odd names and takes single line feeds, so it reads some payloads as two requests.
    # These it hands on as two, and its client gets two answers: nobody else pays for it.
    told = [answer for seen in by_nginx for answer in seen.answers if b'"sale":"marker"' in answer.body]
    assert bought.count("/v1/sales/marker/reservations") == len(told)


def through_nginx(door: Door, node: int) -> tuple[list[Seen], list[str], int]:
    """What each sender got to see, what was wrong, and how many purchases the node has decided."""
    by_nginx, found, began = [], [], decided(node)
    before = began
    for number, payload in enumerate(PAYLOADS):
        bob = purchase(number, Connection="close")
        seen = send(door.port, payload, bob, says_all=False, patience_s=SILENCE_S)
        answer = call_as_carol(door, number + 1)
        after = decided(node)
        if not is_own(answer, number + 1):
            found.append(f"another buyer got {answer}: {payload}")
        if after - before != seen.told + 1:
            found.append(f"the node decided {after - before}, Nginx told {seen.told + 1}: {payload}")
        by_nginx.append(seen)
        before = after
    return by_nginx, found, before - began


def laxer_than(by_nginx: list[Seen], node: int) -> dict[str, list[str]]:
    """Payloads that a node takes and Nginx does not, by the reason in `LAXER`, "" if there is none."""
    lax: dict[str, list[str]] = defaultdict(list)
    for number, (payload, seen) in enumerate(zip(PAYLOADS, by_nginx, strict=True)):
        alone = send(node, payload, purchase(number), says_all=True)
        if alone.takes(payload) and not seen.takes(payload):
            why = next((part for part in LAXER if part in payload.name), "")
            lax[why].append(f"the node answers {alone.own(payload)[0].status}: {payload}")
    return lax


def call_as_carol(door: Door, number: int) -> Answer:
    """The purchase of another buyer, through Nginx."""
    with Wire(door.port) as wire:
        wire.send(purchase(number, "carol", Connection="close"))
        return wire.answer()
