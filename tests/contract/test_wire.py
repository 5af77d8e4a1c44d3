"""HTTP/1.1 as it is on the wire: order, heads, and the end of a connection (RFC 9112)."""

from __future__ import annotations

import socket
import struct
import time

import pytest

from tests.contract.conftest import NewSale
from tests.contract.shop import BODY, COLD, HOT, Shop, done, good_body, is_ended
from tests.servers import OURS
from tests.wire import request

pytestmark = pytest.mark.parametrize("server", OURS, indirect=True)

both = pytest.mark.parametrize("kind", [HOT, COLD])


# --- one request after the other ------------------------------------------------------------------


def test_a_connection_serves_one_request_after_the_other(shop: Shop) -> None:
    with shop.server.connect() as wire:
        for data in [shop.hot(), shop.cold(), shop.hot(), shop.hot()] * 5:
            wire.send(data)
            answer = wire.answer()
            assert done(answer)
            assert answer.header("connection") != "close"
            assert answer.header("date") is not None


@both
def test_connection_close_is_answered_and_obeyed(shop: Shop, kind: str) -> None:
    with shop.server.connect() as wire:
        wire.send(shop.of_kind(kind, Connection="close"))
        answer = wire.answer()

        assert done(answer)
        assert answer.header("connection") == "close"
        assert is_ended(wire)


@both
def test_http_1_0_gets_one_answer_and_the_end(shop: Shop, kind: str) -> None:
    with shop.server.connect() as wire:
        wire.send(shop.of_kind(kind, version="HTTP/1.0"))

        assert done(wire.answer())
        assert is_ended(wire)


@both
def test_http_1_0_that_asks_to_be_kept_is_kept_or_told_that_it_is_not(shop: Shop, kind: str) -> None:
    data = shop.of_kind(kind, version="HTTP/1.0", Connection="keep-alive")
    with shop.server.connect() as wire:
        wire.send(data)
        answer = wire.answer()

        assert done(answer)
        if (answer.header("connection") or "").lower() == "keep-alive":
            wire.send(data)
            assert done(wire.answer())
        else:
            assert is_ended(wire)


# --- pipelining -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 50, 500])
def test_pipelined_requests_are_answered_in_order(shop: Shop, new_sale: NewSale, count: int) -> None:
    sales = [new_sale(1) for _ in range(3)]
    requests, expected = [], []
    for number in range(count):
        if number % 5 == 2:
            requests.append(request("GET", f"/v1/sales/{sales[number % 3]}"))
            expected.append(sales[number % 3])
        elif number % 5 == 4:
            requests.append(shop.hot(b'{"item":"third"}'))
            expected.append("unknown_item")
        else:
            quantity = number % 7 + 1
            requests.append(shop.hot(b'{"item":"second","quantity":%d}' % quantity, Idempotency_Key=f"k{number}"))
            expected.append(str(quantity))
    with shop.server.connect() as wire:
        wire.send(b"".join(requests))
        answers = [answer.json() for answer in wire.answers(count)]

        told = [str(each.get("quantity") or each.get("code") or each["id"]) for each in answers]
        assert told == expected
        wire.send(shop.hot())
        assert done(wire.answer())


def test_pipelined_requests_cut_anywhere_are_answered_in_order(shop: Shop) -> None:
    data = b"".join(shop.hot(b'{"item":"second","quantity":%d}' % number) for number in range(1, 8)) + shop.cold()
    with shop.server.connect() as wire:
        for start in range(0, len(data), 61):
            wire.send(data[start : start + 61])
            time.sleep(0.001)
        answers = wire.answers(8)

    assert [answer.json().get("quantity") for answer in answers[:7]] == list(range(1, 8))
    assert answers[7].status == 200


ENDS = {
    "not http": (b"BUY ME\r\n\r\n", 400),
    "bad chunk": (b"POST /v1/sales/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    "large headers": (b"GET / HTTP/1.1\r\nHost: a\r\nX-A: " + b"x" * 40_000 + b"\r\n\r\n", 431),
    "large body": (b"PUT /v1/sales/a HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", 413),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("before", [1, 2, 40])
def test_an_error_in_a_pipeline_comes_after_the_answers_before_it_and_ends_it(
    shop: Shop, end: str, before: int
) -> None:
    bad, status = ENDS[end]
    good = [shop.cold() if number % 4 == 1 else shop.hot() for number in range(before)]
    with shop.server.connect() as wire:
        wire.send(b"".join([*good, bad, *good]))

        assert all(done(answer) for answer in wire.answers(before))
        last = wire.answer()
        assert last.status == status
        assert last.code
        assert last.header("connection") == "close"
        assert is_ended(wire)
    assert shop.held == before - len(range(1, before, 4))


def test_a_hot_error_in_a_pipeline_of_large_bodies_is_the_last_answer(shop: Shop) -> None:
    with shop.server.connect() as wire:
        wire.send(shop.hot() + shop.hot(BODY.ljust(20_000)) + shop.hot())

        assert [answer.status for answer in wire.answers(2)] == [201, 413]
        assert is_ended(wire)
    assert shop.held == 1


@both
def test_after_connection_close_in_a_pipeline_nothing_more_is_answered(shop: Shop, kind: str) -> None:
    with shop.server.connect() as wire:
        wire.send(shop.hot() + shop.of_kind(kind, Connection="close") + shop.hot())

        assert all(done(answer) for answer in wire.answers(2))
        assert is_ended(wire)
    assert shop.held == (2 if kind == HOT else 1)


# --- heads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["lower", "upper"])
def test_names_of_headers_have_no_case(shop: Shop, case: str) -> None:
    token = shop.server.mint("ada")
    names = [getattr(name, case)() for name in ("Authorization", "Idempotency-Key", "Content-Length", "Connection")]
    values = [f"Bearer {token}", "k1", str(len(BODY)), "Close"]
    headers = dict(zip(names, values, strict=True))
    statuses = []
    for _ in range(2):
        with shop.server.connect() as wire:
            wire.send(request("POST", shop.path, BODY, headers))
            statuses.append(wire.answer().status)
            assert is_ended(wire)

    assert statuses == [201, 200]


def test_spaces_around_the_value_of_a_header_do_not_count(shop: Shop) -> None:
    spaced = [shop.hot(Idempotency_Key=key) for key in ("k1", "   k1", "k1  ", "\tk1\t")]

    assert [shop.ask(data).status for data in spaced] == [201, 200, 200, 200]


@pytest.mark.parametrize("form", ["absolute", "escaped", "with a query"])
def test_an_address_may_be_written_in_other_ways(shop: Shop, form: str) -> None:
    path = {
        "absolute": f"http://127.0.0.1:{shop.server.port}{shop.path}",
        "escaped": shop.path.replace("sale-", "%73ale%2D"),
        "with a query": f"{shop.path}?utm=1",
    }[form]

    answer = shop.ask(request("POST", path, BODY, shop.server.head("ada")))

    assert (answer.status, answer.json()["sale"]) == (201, shop.sale)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_only_post_buys(shop: Shop, method: str) -> None:
    with shop.server.connect() as wire:
        wire.send(request(method, shop.path, b"", shop.server.head("ada")) + shop.hot())
        answer = wire.answer(has_body=method != "HEAD")

        assert answer.status == 405
        assert answer.header("allow") == "POST"
        assert answer.header("content-type") == "application/problem+json"
        assert wire.answer().status == 201


@both
def test_an_offer_to_speak_another_protocol_is_declined_and_the_request_answered(shop: Shop, kind: str) -> None:
    with shop.server.connect() as wire:
        wire.send(shop.of_kind(kind, Connection="Upgrade, HTTP2-Settings", Upgrade="h2c", HTTP2_Settings="AAMAAABk"))

        assert done(wire.answer())


@both
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_what_follows_an_offer_to_speak_another_protocol_is_no_part_of_its_body(
    shop: Shop, kind: str, framing: str
) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "h2c"}
    body = good_body(kind).ljust(12_000)
    if framing == "chunks":
        body, headers["Transfer_Encoding"] = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body), "chunked"
    for after in (shop.hot(), shop.cold(), b"0\r\n\r\n", b"BUY ME\r\n\r\n", b"{}"):
        with shop.server.connect() as wire:
            wire.send(shop.of_kind(kind, body, **headers) + after)
            wire.end_of_sending()

            assert done(wire.answer())
            assert is_ended(wire)


def test_a_websocket_is_not_opened(shop: Shop) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}

    answer = shop.ask(request("GET", "/healthz", b"", headers | {"Sec-WebSocket-Version": "13"}))

    assert answer.status == 200


def test_a_line_break_before_a_request_is_forgiven(shop: Shop) -> None:
    with shop.server.connect() as wire:
        wire.send(shop.hot() + b"\r\n" + shop.hot())

        assert [answer.status for answer in wire.answers(2)] == [201, 201]


# --- ends -----------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("count", [1, 5])
def test_who_has_said_all_still_gets_the_answers(shop: Shop, kind: str, count: int) -> None:
    with shop.server.connect() as wire:
        wire.send(shop.hot() + shop.of_kind(kind) * count)
        wire.end_of_sending()

        assert all(done(answer) for answer in wire.answers(count + 1))
        assert is_ended(wire)


@both
@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_who_leaves_before_the_answer_breaks_nothing(shop: Shop, kind: str, how: str) -> None:
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", shop.server.port)) as leaver:
            leaver.sendall(shop.of_kind(kind) * 3)
            if how == "reset":
                leaver.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif how == "half":
                leaver.shutdown(socket.SHUT_WR)
    with socket.create_connection(("127.0.0.1", shop.server.port)) as leaver:
        leaver.sendall(shop.of_kind(kind)[:-3])

    assert shop.ask(shop.hot()).status == 201
    assert shop.held <= 61
    assert shop.server.audit()["ok"] is True
    assert "Traceback" not in shop.server.errors()
