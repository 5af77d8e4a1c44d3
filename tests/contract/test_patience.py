"""Clients who are slow, idle, greedy or many, and a server that stops: nobody else pays for it."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tests.servers import FAST_LANE, FRONTS, NO_FAST_LANE, OURS, Server, running
from tests.wire import Answer, ConnectionEnded, Wire, request

TIMEOUT_S = 1.0
BODY = b'{"item":"second"}'


@pytest.fixture(scope="module", params=OURS)
def hurried(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that waits a second for a request and for the next one, with an open sale "g1"."""
    env = {"TICKETRUSH_REQUEST_TIMEOUT_S": str(TIMEOUT_S), "TICKETRUSH_KEEP_ALIVE_TIMEOUT_S": "1"}
    with running(request.param, env=env) as server:
        server.open_sale("g1", {"second": 100_000})
        yield server


def purchase(server: Server, buyer: str = "ada", key: str = "") -> bytes:
    return request("POST", "/v1/sales/g1/reservations", BODY, server.head(buyer, key))


# --- slow and idle --------------------------------------------------------------------------------


def test_requests_that_do_not_arrive_are_timed_out_and_others_are_served(hurried: Server) -> None:
    whole = [purchase(hurried), request("PUT", "/v1/sales/g2", BODY, hurried.head())]
    cuts = {"line": 5, "headers": -len(BODY) - 2, "no body": -len(BODY), "part of the body": -1}
    with contextlib.ExitStack() as open_wires:
        other = open_wires.enter_context(hurried.connect())
        slow = [(name, open_wires.enter_context(hurried.connect())) for name in cuts for _ in whole]
        began_s = time.monotonic()
        for number, (name, wire) in enumerate(slow):
            wire.send(whole[number % 2][: cuts[name]])
        served = 0
        while slow[0][1].is_silent(0.05):
            other.send(purchase(hurried))
            assert other.answer().status == 201
            served += 1
        assert served > 1, "the other one was made to wait for the slow ones"
        for name, wire in slow:
            answer = wire.answer()
            assert (answer.status, answer.code) == (408, "timeout"), name
            assert answer.header("connection") == "close", name
            assert wire.rest() == b"", name
        assert TIMEOUT_S <= time.monotonic() - began_s < TIMEOUT_S + 3


def test_a_trickle_does_not_keep_a_request_alive(hurried: Server) -> None:
    with hurried.connect() as slow:
        slow.send(b"POST /v1/sales/g1/reservations HTTP/1.1\r\nHost: a\r\nX-A: ")
        began_s = time.monotonic()
        while slow.is_silent(0.1):
            slow.send(b"x")
            assert time.monotonic() - began_s < TIMEOUT_S + 3

        assert slow.answer().status == 408


def test_a_timeout_comes_after_the_answers_before_it(hurried: Server) -> None:
    with hurried.connect() as slow:
        slow.send(purchase(hurried) * 2 + purchase(hurried)[:-1])

        assert [answer.status for answer in slow.answers(3)] == [201, 201, 408]
        assert slow.rest() == b""


def test_an_idle_connection_is_closed_without_a_word(hurried: Server) -> None:
    with hurried.connect() as fresh, hurried.connect() as used:
        began_s = time.monotonic()
        used.send(purchase(hurried))
        assert used.answer().status == 201

        assert (fresh.rest(), used.rest()) == (b"", b"")
        assert 1 <= time.monotonic() - began_s < 5


def test_a_connection_in_use_is_not_idle(hurried: Server) -> None:
    with hurried.connect() as wire:
        for _ in range(15):
            wire.send(purchase(hurried))
            assert wire.answer().status == 201
            time.sleep(0.2)


def flood(wire: Wire, data: bytes, for_s: float) -> int:
    """Send `data` again and again without reading until the server drops the connection; bytes that went out."""
    wire.patience(0.2)
    sent, until = 0, time.monotonic() + for_s
    while time.monotonic() < until:
        try:
            sent += wire.send_some(data[sent % len(data) :])
        except TimeoutError:
            continue
        except ConnectionError:
            return sent
    raise AssertionError(f"the server did not drop a client that does not read, after {sent} bytes")


@pytest.mark.parametrize("kind", ["hot", "cold"])
def test_who_does_not_read_is_dropped_and_costs_no_memory(hurried: Server, kind: str) -> None:
    hot, cold = purchase(hurried), request("GET", "/v1/sales/g1", b"", hurried.head("ada"))
    data = {"hot": hot, "cold": hot + cold}[kind] * 500
    before_mb = hurried.rss_mb()
    with Wire(hurried.port, receive_buffer=4_096) as greedy:
        sent = flood(greedy, data, for_s=15)

    assert sent < 100_000_000
    assert hurried.rss_mb() - before_mb < 40
    assert hurried.call("GET", "/healthz").status == 200
    assert hurried.audit()["ok"] is True


# --- too many -------------------------------------------------------------------------------------


@pytest.mark.parametrize("front", FRONTS)
def test_past_its_queue_the_server_says_so_at_once(front: str) -> None:
    env = {"TICKETRUSH_QUEUE_MAX": "2", "TICKETRUSH_BATCH_MAX": "1", "TICKETRUSH_PATIENCE_S": "60"}
    with running(front, env=env) as server:
        server.open_sale("g1", {"second": 1_000})
        wires = [server.connect() for _ in range(100)]
        for wire in wires:
            wire.send(request("GET", "/healthz"))
            assert wire.answer().status == 200
        server.process.send_signal(signal.SIGSTOP)
        for number, wire in enumerate(wires):
            wire.send(purchase(server, f"buyer-{number}"))
        server.process.send_signal(signal.SIGCONT)
        answers = [wire.answer() for wire in wires]  # within ten seconds each, and patience is a minute
        for wire in wires:
            wire.close()

        refused = [answer for answer in answers if answer.status == 503]
        assert {answer.status for answer in answers} == {201, 503}
        assert {(answer.code, answer.header("retry-after")) for answer in refused} == {("overloaded", "1")}
        assert server.level("g1")["held"] == len(answers) - len(refused)
        assert f"ticketrush_overloaded_total {len(refused)}.0" in server.call("GET", "/metrics").body.decode()
        assert server.reserve("g1", buyer="ada").status == 201


# --- the end --------------------------------------------------------------------------------------


class Buyer(threading.Thread):
    """Buys without a pause on one connection, `at_once` purchases at a time, until the server ends it."""

    def __init__(self, server: Server, name: str, at_once: int) -> None:
        super().__init__(name=name)
        self.server, self.at_once = server, at_once
        self.acknowledged: dict[str, str] = {}
        """Key -> id of the reservation."""
        self.refused: list[Answer] = []
        self.sent = 0

    def run(self) -> None:
        with self.server.connect() as wire:
            try:
                while True:
                    self._buy(wire)
            except (ConnectionEnded, ConnectionError):
                return

    def _buy(self, wire: Wire) -> None:
        keys = [f"{self.name}-{self.sent + number}" for number in range(self.at_once)]
        self.sent += len(keys)
        wire.send(b"".join(purchase(self.server, self.name, key) for key in keys))
        for key in keys:
            answer = wire.answer()
            if answer.status == 201:
                self.acknowledged[key] = answer.json()["id"]
            else:
                self.refused.append(answer)


@pytest.mark.parametrize("front", [FAST_LANE, NO_FAST_LANE])
@pytest.mark.parametrize("at_once", [1, 8])
def test_a_server_that_stops_has_answered_what_it_committed(front: str, at_once: int) -> None:
    with running(front) as server:
        server.open_sale("g1", {"second": 1_000_000})
        buyers = [Buyer(server, f"buyer-{number}", at_once) for number in range(12)]
        for buyer in buyers:
            buyer.start()
        until = time.monotonic() + 30
        while min(len(buyer.acknowledged) for buyer in buyers) < 50:  # all of them are at it
            assert time.monotonic() < until
            time.sleep(0.02)
        server.terminate()
        code = server.wait()
        for buyer in buyers:
            buyer.join(15)
        assert not any(buyer.is_alive() for buyer in buyers)
        again = Server(server.folder)
        try:
            events = again.journal()
        finally:
            again.stop()

    held = {event["key"]: event["id"] for event in events if event["type"] == "held"}
    told = {key: id for buyer in buyers for key, id in buyer.acknowledged.items()}
    assert code == 0
    assert held == told
    assert {answer.code for buyer in buyers for answer in buyer.refused} <= {"unavailable"}


@pytest.mark.parametrize("front", OURS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_with_nothing_but_idle_clients_stops_at_once(front: str, number: signal.Signals) -> None:
    with running(front) as server, server.connect() as idle, server.connect() as fresh:
        idle.send(request("GET", "/healthz"))
        assert idle.answer().status == 200
        began_s = time.monotonic()
        server.process.send_signal(number)

        assert server.wait() == 0
        assert time.monotonic() - began_s < 8, "for requests under way it would wait ten seconds"
        assert (idle.rest(), fresh.rest()) == (b"", b"")


@pytest.mark.parametrize("front", OURS)
@pytest.mark.parametrize("path", ["/v1/sales/g1/reservations", "/v1/sales/g1/items/second/stock"])
def test_clients_who_left_in_the_middle_of_a_request_do_not_hold_up_a_stop(front: str, path: str) -> None:
    with running(front) as server:
        server.open_sale("g1", {"second": 10})
        for _ in range(5):
            with server.connect() as wire:
                wire.send(request("POST", path, BODY, server.head(key="k1"))[:-3])
        server.call("GET", "/healthz")
        began_s = time.monotonic()

        assert server.stop() == 0
        assert time.monotonic() - began_s < 8, "for requests under way it would wait ten seconds"
