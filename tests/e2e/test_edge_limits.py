"""Nginx before real nodes: how much one address may ask for, whichever way to a node it takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Container
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.test_rush import eventually
from tests.front_doors import call, front_door
from tests.wire import Wire, request

RESERVE: Final = "/v1/sales/demo/reservations"
TICKET: Final = b'{"item":"ticket","quantity":1}'


def test_one_address_may_not_ask_for_more_than_its_rate(tmp_path: Path) -> None:
    with front_door(tmp_path, keep_host=False, rate={"per_second": 1, "burst": 4}) as door:
        began_s = time.monotonic()
        answers = [call(door, "GET", "/buy/ticket") for _ in range(30)]
        took_s = time.monotonic() - began_s
        refused = [answer for answer in answers if answer.status != 200]
        assert 5 <= len(answers) - len(refused) <= 6 + took_s, "one, the burst, and what time has brought"
        assert {(answer.status, answer.code, answer.header("retry-after")) for answer in refused} == {
            (429, "overloaded", "1")
        }
        assert {call(door, "GET", path).status for path in ("/healthz", "/readyz") for _ in range(10)} == {200}
        likewise = [call(door, "GET", path).status for path in ("/HEALTHZ", "/Readyz") for _ in range(10)]
        assert likewise.count(429) >= 15, "which is not how they are spelt, and goes to a node"


def test_who_asks_whether_it_is_well_is_not_limited_and_takes_nothing_from_others(tmp_path: Path) -> None:
    with front_door(tmp_path, keep_host=False, rate={"per_second": 1, "burst": 2, "at_once": 1}) as door:
        assert {call(door, "GET", path).status for path in ("/healthz", "/readyz") for _ in range(10)} == {200}
        with Wire(door.port) as wire:
            wire.send(request("POST", RESERVE, headers={"Content-Length": "9"}))
            eventually(lambda: call(door, "GET", "/buy/ticket").status == 429)
            assert {call(door, "GET", path).status for path in ("/healthz", "/readyz") for _ in range(10)} == {200}


WAYS: Final = {
    "purchase": ("POST", RESERVE, ""),
    "purchase with a key": ("POST", RESERVE, "k1"),
    "call": ("POST", "/v1/x", ""),
    "call with a key": ("POST", "/v1/x", "k1"),
    "read": ("GET", "/v1/x", ""),
    "demo": ("GET", "/buy/ticket", ""),
}
"""Every way to a node, of which each has a location of its own or shares one that is chosen by the key."""


@pytest.mark.parametrize("sold_out_at_edge", [True, False])
def test_no_way_to_a_node_leads_around_the_limits(tmp_path: Path, sold_out_at_edge: bool) -> None:
    rate = {"per_second": 1, "burst": 0}
    with front_door(tmp_path, (1,), keep_host=False, rate=rate, sold_out_at_edge=sold_out_at_edge) as door:
        for way, (method, path, key) in WAYS.items():
            headers: dict[str, Any] = {"Idempotency-Key": key} if key else {}
            answers = [call(door, method, path, TICKET, **headers).status for _ in range(6)]
            assert answers.count(429) >= 4, (way, answers)


@pytest.mark.parametrize("way", [way for way, (method, _, _) in WAYS.items() if method == "POST"])
def test_no_way_to_a_node_takes_more_bodies_at_once_than_one_address_may_have(tmp_path: Path, way: str) -> None:
    _, path, key = WAYS[way]
    head = request("POST", path, headers={"Content-Length": "9"} | ({"Idempotency-Key": key} if key else {}))
    with (
        front_door(tmp_path, (1,), keep_host=False, rate={"burst": 1_000, "at_once": 2}) as door,
        contextlib.ExitStack() as stack,
    ):
        wires = [stack.enter_context(Wire(door.port, timeout_s=0.2)) for _ in range(5)]
        for wire in wires:
            wire.send(head)
        said: dict[Wire, int] = {}
        until_s = time.monotonic() + 5.0
        while len(said) < 3 and time.monotonic() < until_s:
            said |= _answers(wires, said)
        said |= _answers(wires, said)
        assert list(said.values()) == [429] * 3, "and two are waited for"


def _answers(wires: list[Wire], known: Container[Wire]) -> dict[Wire, int]:
    """The status of those that have been answered, and were not known."""
    found = {}
    for wire in (each for each in wires if each not in known):
        with contextlib.suppress(TimeoutError):
            found[wire] = wire.answer().status
    return found


ASKS: Final = ("/readyz", "//readyz", "/%72eadyz", "/healthz")
BODIES: Final = (
    ("POST", {"Content-Length": "999"}, 413),
    ("POST", {"Transfer-Encoding": "chunked"}, 405),
    ("POST", {"Content-Length": "1"}, 405),
    ("GET", {"Content-Length": "999"}, 413),
    ("GET", {"Transfer-Encoding": "chunked"}, 413),
)
"""Bodies that do not come, and what is said of them where the nodes are asked; /healthz says 200 whatever comes."""

LINGERS_S: Final = 5.0
"""How long Nginx still takes in what comes behind its answer (lingering_time)."""


def test_who_asks_whether_it_is_well_is_waited_for_with_no_body(tmp_path: Path) -> None:
    """There is no limit by address for it, so a body that trickles would be one of as many as there are connections."""
    with front_door(tmp_path, (1,), keep_host=False, rate={"at_once": 5}) as door, contextlib.ExitStack() as stack:
        asks = [(path, *body) for path in ASKS for body in BODIES]
        wires = [stack.enter_context(Wire(door.port, timeout_s=1.0)) for _ in asks]
        for wire, (path, method, how, _) in zip(wires, asks, strict=True):
            wire.send(request(method, path, headers=how))
        for wire, (path, method, how, status) in zip(wires, asks, strict=True):
            assert wire.answer().status == (200 if path == "/healthz" else status), (path, method, how)
        until_s = time.monotonic() + LINGERS_S + 2
        while wires:
            assert time.monotonic() < until_s, f"{len(wires)} of {len(asks)} are still there"
            wires = [wire for wire in wires if _takes(wire)]
            time.sleep(0.5)


def _takes(wire: Wire) -> bool:
    """Whether the connection still takes a byte."""
    try:
        wire.send(b"1")
    except OSError:
        return False
    return True


def test_who_asks_whether_it_is_well_may_say_that_there_is_no_body(tmp_path: Path) -> None:
    with front_door(tmp_path, (1,), keep_host=False) as door:
        assert [call(door, "GET", path, Content_Length="0").status for path in ("/healthz", "/readyz")] == [200, 200]
