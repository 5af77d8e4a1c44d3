"""Plain requests: a hot call that arrives whole, in one piece, and leaves nothing to interpret.

Nearly every purchase is such a request. Its shape is checked by one regular expression, instead of by
a parser that calls back ten times. What is accepted here is a strict part of HTTP/1.1, in which the
parser reads exactly the same (the tests compare the two), so no request can mean one thing here and
another one there or at a proxy:

- the request line of one of the two hot calls, lines that end in CR LF, names of token characters, one
  colon and at most one space, values of visible ASCII (spaces and tabs inside);
- Host exactly once; Authorization, Idempotency-Key and X-Buyer at most once;
- Content-Length exactly once and exactly as long as what follows (none for the demo call by GET);
- no header that changes how a message or a connection is read, and no Origin.

Everything else is left to the parser, from its first byte.
"""

from __future__ import annotations

import re
from typing import Final

from ticketrush.http.framing import HOST

_FRAMING: Final = b"|".join(
    (
        b"content-length",
        b"transfer-encoding",
        b"connection",
        b"proxy-connection",
        b"upgrade",
        b"expect",
        b"te",
        b"trailer",
    )
)
_ONCE: Final = b"host|authorization|idempotency-key|x-buyer"


def _once(group: int, name: bytes, value: bytes) -> bytes:
    """A header whose value is the group number `group`, and which cannot come a second time."""
    return b"[%b%b](?i:%b)(?(%d)(?!)): ?(%b)\r\n" % (name[:1].upper(), name[:1], name[1:], group, value)


# Possessive throughout ("++"): the expression never goes back, so its time is linear in the request's length.
_HEADERS: Final = b"|".join(
    (
        _once(2, b"host", HOST + b"++"),
        _once(3, b"authorization", b"[!-~][ -~]*+"),
        _once(4, b"idempotency-key", b"[!-~]++"),
        _once(5, b"content-length", b"[0-9]{1,9}+"),
        _once(6, b"x-buyer", b"[!-~]++"),
        rb"[Cc](?i:onnection: keep-alive)\r\n",
        rb"(?!(?i:%b|%b|origin):)[!#$%%&'*+.^_`|~0-9A-Za-z-]++: ?[!-~][\t -~]*+\r\n" % (_ONCE, _FRAMING),
    )
)
_match: Final = re.compile(
    rb"(?:POST (/v1/sales/[A-Za-z0-9._~-]{1,64}+/reservations)|GET /buy/ticket) HTTP/1\.1\r\n(?:%b)++\r\n" % _HEADERS
).match


Plain = tuple[bytes | None, bytes, bytes | None, bytes | None, bytes | None, bytes]
"""URL (None for the demo call), Host, Authorization, Idempotency-Key, X-Buyer, and the body."""


def read(data: bytes) -> Plain | None:
    """The one plain request that `data` is, from its first byte to its last; None if it is anything else."""
    found = _match(data)
    if found is None:
        return None
    url, host, authorization, key, length, x_buyer = found.groups()
    body = data[found.end() :]
    if host is None or (url is None) is not (length is None) or (length is not None and int(length) != len(body)):
        return None
    if length is None and body:
        return None
    return url, host, authorization, key, x_buyer, body
