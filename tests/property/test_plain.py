"""A plain request is read exactly as the parser reads it, or it is not read as plain."""

from __future__ import annotations

from collections.abc import Callable

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.profiles import PROFILE
from ticketrush.http.plain import Plain, read

URL = b"/v1/sales/g1/reservations"
BODY = b'{"item":"second"}'


class Parsed:
    """What llhttp makes of some bytes, set up as uvicorn sets it up."""

    def __init__(self, data: bytes) -> None:
        self.url, self.headers, self.body, self.begun, self.done = b"", list[tuple[bytes, bytes]](), b"", 0, 0
        self.failed = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.failed = True

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.done += 1

    def only(self, name: bytes) -> bytes | None:
        """The value of a header that must not be there twice."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, name
        return values[0] if values else None


def check(data: bytes, plain: Plain | None) -> None:
    """What was read as plain is what the parser reads, and nothing about the message is left to say."""
    if plain is None:
        return
    url, host, authorization, key, x_buyer, body = plain
    parsed = Parsed(data)
    assert not parsed.failed
    assert (parsed.begun, parsed.done) == (1, 1)
    assert parsed.parser.get_http_version() == "1.1"
    assert parsed.parser.should_keep_alive()
    assert not parsed.parser.should_upgrade()
    asked = (parsed.parser.get_method(), parsed.url)
    assert asked == ((b"GET", b"/buy/ticket") if url is None else (b"POST", url))
    assert parsed.only(b"host") == host
    assert parsed.only(b"authorization") == authorization
    assert parsed.only(b"idempotency-key") == key
    assert parsed.only(b"x-buyer") == x_buyer
    assert parsed.body == body
    for name in (b"transfer-encoding", b"upgrade", b"expect", b"origin", b"proxy-connection"):
        assert parsed.only(name) is None
    assert {value.lower() for name, value in parsed.headers if name == b"connection"} <= {b"keep-alive"}


NAMES = st.sampled_from(
    b"Host Authorization Idempotency-Key X-Buyer Content-Length Transfer-Encoding Connection Proxy-Connection "
    b"Upgrade Expect Origin Accept Content-Type X".split(b" ")
    + b"Host ,Ho st,".split(b",")
)
VALUES = st.sampled_from(
    b"a,17,0,017,17 ,+17,1_7,chunked,close,keep-alive,Keep-Alive,100-continue,websocket".split(b",")
    + b"|17, 17| |a b\tc |\xe4|a\x00|a\rb|a\nb|a\r\n b|\x7f".split(b"|")
)
SEPARATORS = st.sampled_from([b": "] * 6 + [b":", b":  ", b":\t", b" : ", b"", b":\r\n "])
ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\n ", b"\r\r\n", b"\n\r\n"])


def cased(name: bytes, upper: list[bool]) -> bytes:
    return (
        bytes(byte ^ 0x20 if up and chr(byte).isalpha() else byte for byte, up in zip(name, upper, strict=False))
        + (name[len(upper) :])
    )


lines = st.builds(
    lambda name, upper, separator, value, end: cased(name, upper) + separator + value + end,
    NAMES,
    st.lists(st.booleans(), max_size=3),
    SEPARATORS,
    VALUES,
    ENDS,
)
good = st.sampled_from(
    b"Host: a|Content-Length: 17|Authorization: Bearer a.b.c|Accept: */*|Accept:a b |X-Buyer: ada|"
    b"Connection: keep-alive|Idempotency-Key: k".split(b"|")
).map(lambda line: line + b"\r\n")
starts = st.sampled_from(
    [b"POST /v1/sales/g1/reservations HTTP/1.1\r\n"] * 8
    + [b"GET /buy/ticket HTTP/1.1\r\n"] * 4
    + [b"POST /v1/sales/g1/reservations HTTP/1.0\r\n", b"POST  /v1/sales/g1/reservations HTTP/1.1\r\n"]
    + [b"\r\nPOST /v1/sales/g1/reservations HTTP/1.1\r\n", b"POST /v1/sales/g1/reservations?a HTTP/1.1\r\n"]
    + [b"PUT /v1/sales/g1/reservations HTTP/1.1\r\n", b"POST /v1/sales/g1/reservations HTTP/1.1\n"]
    + [b"POST http://a/v1/sales/g1/reservations HTTP/1.1\r\n", b"POST /v1/sales/g%31/reservations HTTP/1.1\r\n"]
)
usual = st.permutations([b"Host: a\r\n", b"Content-Length: 17\r\n", b"Authorization: Bearer a\r\n"]).map(list)
odd = st.one_of(st.lists(good, max_size=2), st.lists(st.one_of(good, lines), max_size=3))
bodies = st.sampled_from([BODY] * 6 + [b"", BODY[:-1], BODY + b"\r\n", BODY + BODY, b"0\r\n\r\n"])
requests = st.builds(
    lambda start, heads, more, body: start + b"".join(more + heads) + b"\r\n" + body,
    starts,
    st.one_of(usual, st.just([b"Host: a\r\n"]), st.just([])),
    odd,
    bodies,
)


@settings(PROFILE)
@given(requests)
def test_a_request_is_read_as_the_parser_reads_it_or_not_as_plain(data: bytes) -> None:
    check(data, read(data))


@settings(PROFILE)
@given(requests, st.integers(0, 300), st.binary(max_size=2))
def test_so_is_one_with_a_byte_changed_anywhere(data: bytes, at: int, change: bytes) -> None:
    data = data[:at] + change + data[at + 1 :]
    check(data, read(data))


HEAD = b"POST %b HTTP/1.1\r\nHost: a\r\n" % URL


def test_what_clients_send_is_plain() -> None:
    tail = b"Content-Length: 17\r\n\r\n" + BODY
    by_curl = (
        HEAD + b"User-Agent: curl/8.0\r\nAccept: */*\r\nAuthorization: Bearer a.b.c\r\nIdempotency-Key: k-1\r\n" + tail
    )
    assert read(by_curl) == (URL, b"a", b"Bearer a.b.c", b"k-1", None, BODY)
    by_proxy = HEAD.lower().replace(b"post", b"POST").replace(b"http", b"HTTP") + b"x-buyer:ada\r\n" + tail.lower()
    assert read(by_proxy) == (URL, b"a", None, None, b"ada", BODY.lower())
    assert read(HEAD + b"Connection: Keep-Alive\r\nAccept: a\r\nAccept: b\r\n" + tail) == (
        URL,
        b"a",
        None,
        None,
        None,
        BODY,
    )
    assert read(b"GET /buy/ticket HTTP/1.1\r\nHost: a\r\n\r\n") == (None, b"a", None, None, None, b"")


ODD = {
    "no host": (HEAD[:-9] + b"Content-Length: 17\r\n\r\n" + BODY),
    "two hosts": HEAD + b"Host: b\r\nContent-Length: 17\r\n\r\n" + BODY,
    "no length": HEAD + b"\r\n",
    "two lengths": HEAD + b"Content-Length: 17\r\nContent-Length: 17\r\n\r\n" + BODY,
    "two keys": HEAD + b"Idempotency-Key: a\r\nidempotency-key: b\r\nContent-Length: 17\r\n\r\n" + BODY,
    "chunked": HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "length and chunked": HEAD + b"Content-Length: 17\r\nTransfer-Encoding: chunked\r\n\r\n" + BODY,
    "close": HEAD + b"Connection: close\r\nContent-Length: 17\r\n\r\n" + BODY,
    "old close": HEAD + b"Proxy-Connection: close\r\nContent-Length: 17\r\n\r\n" + BODY,
    "upgrade": HEAD + b"Upgrade: h2c\r\nContent-Length: 17\r\n\r\n" + BODY,
    "continue": HEAD + b"Expect: 100-continue\r\nContent-Length: 17\r\n\r\n" + BODY,
    "origin": HEAD + b"Origin: http://evil.example\r\nContent-Length: 17\r\n\r\n" + BODY,
    "not whole": HEAD + b"Content-Length: 18\r\n\r\n" + BODY,
    "more behind it": HEAD + b"Content-Length: 17\r\n\r\n" + BODY + b"POST",
    "body of a get": b"GET /buy/ticket HTTP/1.1\r\nHost: a\r\n\r\nGET",
    "folded": HEAD + b"Accept: a\r\n b\r\nContent-Length: 17\r\n\r\n" + BODY,
    "space before colon": HEAD + b"Content-Length : 17\r\nContent-Length: 17\r\n\r\n" + BODY,
    "bare line feed": HEAD + b"Accept: a\nContent-Length: 17\r\n\r\n" + BODY,
}


@pytest.mark.parametrize("why", ODD)
def test_what_is_odd_is_left_to_the_parser(why: str) -> None:
    assert read(ODD[why]) is None


def test_a_header_of_many_words_takes_no_longer_than_it_is_long() -> None:
    assert read(HEAD + b"A: a\r\n" * 2_000 + b"Accept" + b" a" * 2_000) is None


def trusting_the_last_length(data: bytes) -> Plain | None:
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    if not head.startswith(b"POST " + URL) or fields.get(b"content-length") != b"%d" % len(body):
        return None
    return URL, fields.get(b"host", b""), fields.get(b"authorization"), fields.get(b"idempotency-key"), None, body


def trusting_the_connection(data: bytes) -> Plain | None:
    return read(data.replace(b"Connection: close\r\n", b""))


@pytest.mark.parametrize(
    ("planted", "data"),
    [
        (trusting_the_last_length, ODD["length and chunked"]),
        (trusting_the_last_length, ODD["two hosts"]),
        (trusting_the_connection, ODD["close"]),
    ],
)
def test_a_planted_reader_that_trusts_too_much_is_caught(planted: Callable[[bytes], Plain | None], data: bytes) -> None:
    plain = planted(data)
    assert plain is not None
    with pytest.raises(AssertionError):
        check(data, plain)
