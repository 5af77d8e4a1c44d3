"""An HTTP/1.1 client connection that costs a few microseconds a request.

Requests are bytes that the caller prepared; one is in flight at a time; the answer comes as a call
of the owner's `answered`. There is no task, no future and no timer for a request.

Losers of a sale get the same bytes over and over. An answer of which the same bytes were seen (and
parsed) before is looked up instead of parsed again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, cast

import httptools
import msgspec

MEMO_MAX: Final = 256
"""Different answers remembered; a server's Date and Retry-After make a few new ones each second."""

MEMO_BYTES_MAX: Final = 2_048


class Reply(msgspec.Struct, frozen=True, gc=False):
    """An HTTP answer. `code` is the problem document's, "" if there is none."""

    status: int
    code: str
    retry_after_s: float
    keep_alive: bool
    body: bytes


class Problem(msgspec.Struct):
    """The part of an RFC 9457 document that buyers read."""

    code: str = ""
    detail: str = ""


class Owner(Protocol):
    """Who uses connections."""

    def ready(self, wire: Wire) -> None:
        """`wire` is connected and has nothing in flight."""

    def answered(self, wire: Wire, reply: Reply) -> None:
        """The request in flight got `reply`.

        The next one may be sent from within this call if `reply.keep_alive`; else the connection
        is about to be closed, and `lost` follows.
        """

    def lost(self, wire: Wire, *, in_flight: bool) -> None:
        """The connection is gone; a request in flight may or may not have had an effect."""


class Memo:
    """Answers by their bytes."""

    __slots__ = ("get", "replies")

    def __init__(self) -> None:
        self.replies: dict[bytes, Reply] = {}
        self.get = self.replies.get

    def keep(self, data: bytes, reply: Reply) -> None:
        """Remember `reply`, unless it says something that was meant for one buyer."""
        if reply.status < 400 or not reply.keep_alive or len(data) > MEMO_BYTES_MAX:
            return
        if len(self.replies) >= MEMO_MAX:
            self.replies.clear()
        self.replies[data] = reply


class Wire(asyncio.Protocol):
    """One keep-alive connection, to the door of number `door`.

    Its owner may leave word in `home`, `job`, `started_ns` and `sent_ns`.
    """

    __slots__ = (
        "_body",
        "_complete",
        "_keep_alive",
        "_memo",
        "_owner",
        "_parser",
        "_partial",
        "_retry_after_s",
        "_transport",
        "busy",
        "door",
        "home",
        "job",
        "sent_ns",
        "started_ns",
        "write",
    )

    write: Callable[[bytes], None]

    def __init__(self, owner: Owner, memo: Memo, home: int = 0, door: int = 0) -> None:
        self._owner = owner
        self._memo = memo
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._body: list[bytes] = []
        self._complete = False
        self._keep_alive = True
        self._partial = False
        self._retry_after_s = 0.0
        self.busy = False
        self.home = home
        self.door = door
        self.job: object = None
        self.started_ns = 0
        self.sent_ns = 0

    def send(self, request: bytes) -> None:
        """Send `request`. Only when connected and nothing is in flight."""
        self.busy = True
        self.write(request)

    def send_and_cut(self, request: bytes, wait_s: float) -> None:
        """Send `request`, read no answer, and break the connection off after `wait_s`."""
        transport = cast("asyncio.Transport", self._transport)
        transport.pause_reading()
        self.send(request)
        asyncio.get_running_loop().call_later(wait_s, self.cut)

    def cut(self) -> None:
        """Break the connection off at once; the owner hears of it as `lost`."""
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.write = self._transport.write
        self._owner.ready(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        in_flight, self.busy = self.busy, False
        self._owner.lost(self, in_flight=in_flight)

    def data_received(self, data: bytes) -> None:
        if not self._partial and self.busy:
            reply = self._memo.get(data)
            if reply is not None:
                self.busy = False
                self._owner.answered(self, reply)
                return
        self._parse(data)

    # --- what has not been seen before --------------------------------------------------------

    def _parse(self, data: bytes) -> None:
        if not self.busy:
            self.cut()  # an answer to no question: nothing on this connection can be trusted
            return
        whole = not self._partial
        self._partial = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.cut()
            return
        if not self._complete:
            return
        reply = self._take_reply()
        if whole:
            self._memo.keep(data, reply)
        self.busy = False
        self._owner.answered(self, reply)
        if not reply.keep_alive:
            self.cut()

    def _take_reply(self) -> Reply:
        body = b"".join(self._body)
        status = self._parser.get_status_code()
        reply = Reply(
            status=status,
            code=_code_of(body) if status >= 400 else "",
            retry_after_s=self._retry_after_s,
            keep_alive=self._keep_alive,
            body=body,
        )
        self._body.clear()
        self._retry_after_s = 0.0
        self._partial = self._complete = False
        return reply

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        if name.lower() == b"retry-after":
            self._retry_after_s = float(value) if value.isdigit() else 1.0

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Called by the parser; a 100 or 103 is only the start of an answer."""
        self._complete = self._parser.get_status_code() >= 200
        self._keep_alive = self._parser.should_keep_alive()


def _code_of(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=Problem).code
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
