"""Whatever is sent, the answer is a problem document that says what is wrong, and others are served on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.contract.conftest import NewSale
from tests.servers import FRONTS, OURS, Server
from tests.wire import Answer, Wire, request

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Call:
    """A call that takes JSON; `good` is a body it takes, in which `1` is a quantity."""

    method: str
    path: str
    good: bytes
    headers: dict[str, str] = field(default_factory=dict)

    def bytes_for(self, body: bytes, **headers: str) -> bytes:
        return request(self.method, self.path, body, self.headers | headers)


@pytest.fixture(params=["hot", "cold"])
def call(request: pytest.FixtureRequest, server: Server, new_sale: NewSale) -> Call:
    """The hot call, and one that the application answers."""
    sale = new_sale(100)
    if request.param == "hot":
        return Call("POST", f"/v1/sales/{sale}/reservations", b'{"item":"second","quantity":1}', server.head("ada"))
    return Call("POST", f"/v1/sales/{sale}/items/second/stock", b'{"units":1}', server.head(key="k1"))


@pytest.fixture
def others(server: Server, new_sale: NewSale) -> Iterator[None]:
    """Somebody who buys on a connection of their own, before and after."""
    path = f"/v1/sales/{new_sale()}/reservations"
    data = request("POST", path, b'{"item":"second"}', server.head("bob"))
    with server.connect() as wire:
        wire.send(data)
        assert wire.answer().status == 201
        yield
        wire.send(data)
        assert wire.answer().status == 201
    assert "Traceback" not in server.errors()


def ask(server: Server, data: bytes) -> Answer:
    with server.connect() as wire:
        wire.send(data)
        return wire.answer()


NOT_JSON = {
    "empty": b"",
    "blank": b"   ",
    "words": b"item=second&quantity=1",
    "single quotes": b"{'item':'second'}",
    "byte order mark": b"\xef\xbb\xbf{}",
    "utf-16": '{"item":"second"}'.encode("utf-16"),
    "nul": b"\0" * 64,
}

BAD_UTF8 = {
    "a byte that is none": b'{"item":"\xff\xfe"}',
    "overlong": b'{"item":"\xc0\xaf"}',
    "cut": b'{"item":"\xe6\x8a"}',
    "surrogate": b'{"item":"\xed\xa0\x80"}',
    "in a name": b'{"\xff":1}',
}


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=list(NOT_JSON))
def test_what_is_not_json_is_malformed(server: Server, call: Call, body: bytes) -> None:
    answer = ask(server, call.bytes_for(body))

    assert (answer.status, answer.code) == (400, "malformed")


@pytest.mark.usefixtures("others")
def test_json_that_breaks_off_or_goes_on_is_malformed(server: Server, call: Call) -> None:
    good = call.good
    for body in (good[:-1], good + b"{}", good + b",", good.replace(b":1}", b":NaN}"), good.replace(b":1}", b":01}")):
        answer = ask(server, call.bytes_for(body))
        assert (answer.status, answer.code) == (400, "malformed"), body


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("body", BAD_UTF8.values(), ids=list(BAD_UTF8))
def test_bad_utf8_is_refused(server: Server, call: Call, body: bytes) -> None:
    answer = ask(server, call.bytes_for(body))

    assert (answer.status, answer.code) in {(400, "malformed"), (422, "invalid_request")}


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"second"', b"true", b"{}", b'[{"item":"second"}]'])
def test_json_of_another_shape_is_refused(server: Server, call: Call, body: bytes) -> None:
    answer = ask(server, call.bytes_for(body))

    assert (answer.status, answer.code) == (422, "invalid_request")


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize(
    "quantity",
    [
        "0",
        "-1",
        "1.5",
        "-0.0",
        "1e3",
        "1000000001",
        str(2**63),
        str(2**64),
        "1" * 400,
        '"1"',
        "null",
        "true",
        "[1]",
        "{}",
    ],
)
def test_a_quantity_that_is_not_a_small_whole_number_is_refused(server: Server, call: Call, quantity: str) -> None:
    body = call.good.replace(b":1}", f":{quantity}}}".encode())
    assert body != call.good

    answer = ask(server, call.bytes_for(body))

    assert (answer.status, answer.code) == (422, "invalid_request")
    assert "quantity" in answer.json()["detail"] or "units" in answer.json()["detail"]


@pytest.mark.usefixtures("others")
def test_an_unknown_field_is_refused_by_its_name(server: Server, call: Call) -> None:
    answer = ask(server, call.bytes_for(call.good.replace(b"{", b'{"colour":"red",')))

    assert (answer.status, answer.code) == (422, "invalid_request")
    assert "colour" in answer.json()["detail"]


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("item", ["", "x" * 65, "a b", "a\\u0000b", "\\ud83c", "抢票", "../second", "%73econd"])
def test_an_item_that_cannot_be_is_refused_or_unknown(server: Server, new_sale: NewSale, item: str) -> None:
    path = f"/v1/sales/{new_sale()}/reservations"

    answer = server.call("POST", path, f'{{"item":"{item}"}}'.encode(), buyer="ada")

    assert (answer.status, answer.code) in {(422, "invalid_request"), (404, "unknown_item"), (400, "malformed")}


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("depth", [5_000, 100_000])
@pytest.mark.parametrize("shape", ["bare", "in a field", "in an unknown field"])
def test_deep_json_is_refused(server: Server, call: Call, depth: int, shape: str) -> None:
    deep = b"[" * depth + b"]" * depth
    body = {"bare": deep, "in a field": b'{"item":%s}' % deep, "in an unknown field": b'{"x":%s}' % deep}[shape]

    answer = ask(server, call.bytes_for(body))

    assert answer.code in {"malformed", "invalid_request", "body_too_large"}
    assert 400 <= answer.status < 500


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [16_385, 10 * MEGABYTE])
def test_a_large_body_is_refused_also_when_all_of_it_is_sent_first(
    server: Server, call: Call, size: int, framing: str
) -> None:
    body = call.good.ljust(size)
    if framing == "length":
        data = call.bytes_for(body)
    else:
        data = call.bytes_for(b"%x\r\n%s\r\n0\r\n\r\n" % (size, body), **{"Transfer-Encoding": "chunked"})

    answer = ask(server, data)

    assert (answer.status, answer.code) == (413, "body_too_large")


@pytest.mark.usefixtures("others")
def test_the_largest_body_is_taken(server: Server, call: Call) -> None:
    assert ask(server, call.bytes_for(call.good.ljust(16_384))).status in {200, 201}


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("where", ["a value", "a name", "many"])
@pytest.mark.parametrize("size", [40_000, 100_000])
def test_large_headers_are_refused(server: Server, call: Call, where: str, size: int) -> None:
    headers = {
        "a value": {"X-Large": "x" * size},
        "a name": {"X" * size: "1"},
        "many": {f"X-{number}": "x" * 86 for number in range(size // 100)},
    }[where]

    answer = ask(server, call.bytes_for(call.good, **headers))

    assert (answer.status, answer.code) == (431, "headers_too_large")


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize(
    ("server", "size"),
    [*((front, 40_000) for front in FRONTS), *((front, 100_000) for front in OURS)],
    indirect=["server"],
)
def test_a_large_address_is_refused(server: Server, size: int) -> None:
    answer = server.call("POST", f"/v1/sales/{'x' * size}/reservations", {"item": "second"}, buyer="ada")

    assert (answer.status, answer.code) == (431, "headers_too_large")


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("sale", ["nowhere", "x" * 200, "%ff", "%00", "a%20b", "%E6%8A%A2", "%2e%2e", "..", "%"])
def test_a_sale_that_cannot_be_is_unknown(server: Server, sale: str) -> None:
    answer = server.call("POST", f"/v1/sales/{sale}/reservations", {"item": "second"}, buyer="ada")

    assert answer.status == 404
    assert answer.code in {"unknown_sale", "not_found"}


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("name", ["Idempotency-Key", "Authorization"])
def test_a_header_that_may_come_once_is_refused_twice(server: Server, call: Call, name: str) -> None:
    headers = {"Idempotency-Key": "k1"} | call.headers
    twice = {f"{name.upper()}": headers[name], f"{name.lower()}": headers.pop(name)}

    answer = ask(server, request(call.method, call.path, call.good, headers | twice))

    assert (answer.status, answer.code) == (400, "malformed")
    assert name.lower() in answer.json()["detail"]


NOT_HTTP = {
    "words": b"hello\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 500,
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "version": b"GET /healthz HTTP/9.9\r\nHost: a\r\n\r\n",
    "method": b"BUY /healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    "no address": b"GET  HTTP/1.1\r\nHost: a\r\n\r\n",
    "relative address": b"GET healthz HTTP/1.1\r\nHost: a\r\n\r\n",
    "address not ascii": b"GET /\xff\xfe HTTP/1.1\r\nHost: a\r\n\r\n",
    "tunnel": b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    "header without a colon": b"GET /healthz HTTP/1.1\r\nHost: a\r\nbroken\r\n\r\n",
    "space before the colon": b"GET /healthz HTTP/1.1\r\nHost : a\r\n\r\n",
    "folded header": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-A: a\r\n b\r\n\r\n",
    "nul in a header": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX-A: a\0b\r\n\r\n",
    "line feeds only": b"GET /healthz HTTP/1.1\nHost: a\n\n",
}

LENGTHS = ["-1", "+17", "1e1", "0x11", "17, 18", "9" * 30, "1 7", ""]

CHUNKS = {
    "not a number": b"zz\r\n{}\r\n0\r\n\r\n",
    "negative": b"-2\r\n{}\r\n0\r\n\r\n",
    "0x": b"0x2\r\n{}\r\n0\r\n\r\n",
    "too long a number": b"fffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "longer than it says": b"2\r\n{}{}\r\n0\r\n\r\n",
    "no line end": b"2\r\n{}0\r\n\r\n",
}


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("server", OURS, indirect=True)
@pytest.mark.parametrize("data", NOT_HTTP.values(), ids=list(NOT_HTTP))
def test_what_is_not_http_gets_an_answer_and_the_end(server: Server, data: bytes) -> None:
    with server.connect() as wire:
        wire.send(data)
        assert_refused(wire)


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("server", OURS, indirect=True)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_length_that_is_none_gets_an_answer_and_the_end(server: Server, call: Call, length: str) -> None:
    with server.connect() as wire:
        wire.send(call.bytes_for(call.good, **{"Content-Length": length}))
        assert_refused(wire)


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("server", OURS, indirect=True)
@pytest.mark.parametrize("body", CHUNKS.values(), ids=list(CHUNKS))
def test_a_bad_chunk_gets_an_answer_and_the_end(server: Server, call: Call, body: bytes) -> None:
    with server.connect() as wire:
        wire.send(call.bytes_for(body, **{"Transfer-Encoding": "chunked"}))
        assert_refused(wire)


def assert_refused(wire: Wire) -> None:
    answer = wire.answer()
    assert (answer.status, answer.code) == (400, "malformed")
    assert answer.header("connection") == "close"
    assert wire.rest() == b""
