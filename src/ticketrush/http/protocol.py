"""uvicorn's HTTP/1.1 protocol, made steady: bounds, time-outs, and an answer before every close.

What it adds to `uvicorn.protocols.http.httptools_impl`:

- malformed HTTP, too large headers, too large bodies and too slow requests get a problem
  document, in order behind the answers to earlier requests on the connection;
- then the connection lingers for a moment, so that a client in the middle of sending gets to read
  the answer instead of a reset (RFC 9112, 9.6);
- one watch for all connections instead of a timer for each.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from ticketrush.http.answers import Answer
from ticketrush.http.flow import Body, Flow
from ticketrush.http.framing import coding_fault, host_fault
from ticketrush.http.lane import Lane, closing
from ticketrush.http.problems import problem

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

LINGER_TICKS: Final = 3

PIECE_BYTES: Final = 8_192
"""What is parsed at once: requests that come after it wait as bytes until those before them are answered."""

FORGOTTEN_BYTES_MAX: Final = 64 << 20
"""What a client may go on sending after its connection is as good as closed."""

_NOT_HTTP: Final = "The request is not valid HTTP/1.1."
_MALFORMED: Final = problem("malformed", _NOT_HTTP)
_VERSIONS: Final = frozenset(("1.1", "1.0"))


class Stop(Exception):
    """Raised in a parser callback to stop parsing; the connection's `verdict` says why."""


class SteadyProtocol(HttpToolsProtocol):
    """One connection. The application must have a `Lane` in its lifespan state under "lane"."""

    # CPython keeps the attributes of an object fast up to 30 of them; uvicorn's class has nearly as many.
    __slots__ = (
        "advancing",
        "began_tick",
        "body_fed",
        "check_head",
        "doomed",
        "fed",
        "feeding",
        "fresh",
        "header_bytes",
        "heard_all",
        "held",
        "in_head",
        "lane",
        "last",
        "limits",
        "linger_until_tick",
        "owns_cycle",
        "paused_tick",
        "reading",
        "request_bytes",
        "running",
        "seen_tick",
        "trailed",
        "upgrading",
        "verdict",
        "watch",
    )

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        lane: Lane = app_state["lane"]
        self.lane = lane
        self.watch = lane.watch
        self.limits = lane.limits
        self.header_bytes = lane.limits.header_bytes
        self.request_bytes = lane.limits.header_bytes + 8 * lane.limits.body_bytes
        """What a request may take in all, so that tiny chunks and their extensions are bounded too."""
        self.reading = self.in_head = False
        """A request has begun to arrive; its headers are not complete."""
        self.owns_cycle = False
        """`cycle` belongs to the request that is arriving."""
        self.began_tick = self.seen_tick = self.paused_tick = self.watch.tick
        self.fed = self.body_fed = self.trailed = 0
        """Bytes of the request that is arriving: in all but its first piece, of its body, of its trailers."""
        self.held = b""
        """What has arrived and has not been parsed."""
        self.fresh = self.feeding = False
        self.upgrading = False
        self.check_head = self.advancing = self.doomed = self.heard_all = False
        self.linger_until_tick = 0
        self.verdict: Answer | None = None
        self.running: RequestResponseCycle | None = None
        """The oldest request that owes an answer, if it had to wait or is the application's."""
        self.last: bytes | None = None
        """The answer to a request that ended the connection, while earlier answers are due."""

    # --- the connection ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport, self)
        self.watch.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.watch.connections.discard(self)
        self.doomed = True
        self.held = b""
        self.pipeline.clear()
        running = self.running
        if running is not None and not running.response_complete:
            running.disconnected = True
            running.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that has said all still gets the answers it waits for."""
        self.heard_all = True
        if self.doomed:
            return not (self.linger_until_tick or is_done(self.cycle))  # an answer is due
        if is_done(self.cycle) and not self.reading:
            return False
        if self.reading:
            self.refuse(problem("malformed", "The connection was closed before the request was complete."))
            return self.last is not None
        self.doomed = True
        self.cycle.keep_alive = False
        return True

    def on_tick(self, tick: int) -> None:
        """Once a second: end what is too slow or idle."""
        lane = self.lane
        if self.transport.is_closing():
            return
        if self.linger_until_tick:
            if tick >= self.linger_until_tick:
                self.transport.abort()
        elif self.flow.write_paused:
            if tick - self.paused_tick > lane.request_ticks:
                self.transport.abort()
        elif self.reading and not self.held:
            if tick - self.began_tick > lane.request_ticks:
                self.refuse(problem("timeout"))
        elif is_done(self.cycle) and tick - self.seen_tick > lane.idle_ticks:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.paused_tick = self.watch.tick
        self.flow.pause_reading()  # who does not read answers may not send requests

    def resume_writing(self) -> None:
        super().resume_writing()
        self.flow.resume_reading()

    # --- parsing ----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.doomed:
            self.fed += len(data)
            if self.fed > FORGOTTEN_BYTES_MAX:
                self.transport.abort()
            return
        self.seen_tick = self.watch.tick
        if self.held or self.pipeline or len(data) > PIECE_BYTES:
            self.held += data
            self.feed()
        else:
            self.parse(data)

    def feed(self) -> None:
        """Parse what has arrived, until requests have to wait for answers to others, or answers for who reads them."""
        while self.held and not (self.pipeline or self.flow.write_paused or self.doomed):
            piece, self.held = self.held[:PIECE_BYTES], self.held[PIECE_BYTES:]
            self.parse(piece)

    def feed_soon(self) -> None:
        """Go on with it, after other connections had their turn."""
        if not self.feeding:
            self.feeding = True
            self.loop.call_soon(self._feed_on)

    def _feed_on(self) -> None:
        self.feeding = False
        self.feed()
        if self.doomed:
            self.held = b""
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def parse(self, data: bytes) -> None:
        """Let the parser have the next piece; what is in it, it calls back."""
        size = len(data)
        self.check_head = self.in_head or size > self.header_bytes
        try:
            self.parser.feed_data(data)
            if self.fresh:
                self.fresh = False  # what came before it in `data` does not count
            elif self.reading:
                self.fed += size
                if self.in_head:
                    if self.fed > self.header_bytes:
                        self.refuse(problem("headers_too_large"))
                elif self.fed > self.request_bytes:
                    self.refuse(self.too_large())
        except httptools.HttpParserUpgrade as upgrade:
            self.ignore_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            if not self.doomed:
                self.refuse(self.verdict or _MALFORMED)

    def ignore_upgrade(self, rest: bytes) -> None:
        """No other protocol is spoken here: the request is answered as HTTP/1.1, and is the last one.

        The parser has given up before the body; another one reads it.
        """
        self.cycle.keep_alive = False
        self.upgrading = False
        self.parser = httptools.HttpRequestParser(Body(self))
        framing = [(n, v) for n, v in self.headers if n in {b"content-length", b"transfer-encoding"}]
        head = b"".join(b"%b: %b\r\n" % header for header in framing)
        self.held = b"POST / HTTP/1.1\r\n" + head + b"\r\n" + rest + self.held
        self.feed()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.begin()

    def begin(self) -> None:
        """A request begins to arrive."""
        self.reading = self.in_head = self.fresh = True
        self.owns_cycle = False
        self.began_tick = self.watch.tick
        self.fed = self.body_fed = self.trailed = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:
            super().on_header(name, value)
        else:
            self.count_trailer(name, value)

    def count_trailer(self, name: bytes, value: bytes) -> None:
        """Trailers are not merged into the headers (RFC 9110, 6.5.1); they only count against the bound."""
        self.trailed += len(name) + len(value) + 4
        if self.trailed > self.header_bytes:
            self.stop(problem("headers_too_large"))

    def on_headers_complete(self) -> None:
        self.in_head = False
        version = self.parser.get_http_version()
        head = dict(self.headers)
        fault = host_fault(version, self.headers)
        if b"transfer-encoding" in head:
            fault = fault or coding_fault(version, self.headers)
        if fault or version not in _VERSIONS:
            self.stop(problem("malformed", fault or _NOT_HTTP))
        self.check_size(head.get(b"content-length"))
        if version == "1.0":
            self.expect_100_continue = False  # RFC 9110, 10.1.1
        super().on_headers_complete()
        self.owns_cycle = True
        self.upgrading = self.parser.should_upgrade()

    def check_size(self, length: bytes | None) -> None:
        """Stop parsing a request whose headers are, or whose body of `length` will be, too large."""
        if self.check_head:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self.header_bytes:
                self.stop(problem("headers_too_large"))
        if length is not None and len(length) > 4 and int(length) > self.limits.body_bytes:
            self.stop(self.too_large())

    def on_body(self, body: bytes) -> None:
        self.body_fed += len(body)
        if self.body_fed > self.limits.body_bytes:
            self.stop(self.too_large())
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.upgrading:
            return
        super().on_message_complete()
        self.reading = self.owns_cycle = False

    def too_large(self) -> Answer:
        """What a too large body gets."""
        return problem("body_too_large", f"The request body is larger than {self.limits.body_bytes} bytes.")

    def stop(self, verdict: Answer) -> None:
        """Stop parsing this connection; `verdict` is its last answer."""
        self.verdict = verdict
        raise Stop

    # --- answers ----------------------------------------------------------------------------

    def refuse(self, answer: Answer) -> None:
        """Answer the request that is arriving, behind the answers due before it, and close."""
        self.doomed = True
        data = closing(self.lane.render(answer))
        cycle = self.cycle
        if not self.owns_cycle:
            if is_done(cycle):
                self.linger(data)
            else:
                self.last = data
        elif self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()
            self.last = data
        elif cycle.response_complete:
            self.linger(b"")
        elif cycle.response_started:
            self.transport.close()
        else:
            cycle.disconnected = True
            cycle.message_event.set()
            self.linger(data)

    def linger(self, data: bytes) -> None:
        """Send the last bytes, and go on reading (and forgetting) until the client has closed too."""
        transport = self.transport
        if transport.is_closing():
            return
        transport.write(data)
        if self.heard_all or not transport.can_write_eof():
            transport.close()
            return
        transport.write_eof()
        self.linger_until_tick = self.watch.tick + LINGER_TICKS
        self.flow.resume_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self.running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """An answer is out: start the next request that waits on this connection."""
        self.server_state.total_requests += 1
        if self.advancing or self.transport.is_closing():
            return
        self.advancing = True  # a row of requests answered at once is a loop, not a recursion
        try:
            while self.pipeline:
                cycle, app = self.pipeline.pop()
                self._start_asgi_task(cycle, app)
                if self.transport.is_closing():
                    return
                if not cycle.response_complete:
                    self.flow.resume_reading()  # its body may still be on the way
                    return
        finally:
            self.advancing = False
        if self.last is not None:
            self.linger(self.last)
        else:
            self.flow.resume_reading()


def is_done(cycle: RequestResponseCycle | None) -> bool:
    """Whether a connection owes no answer for `cycle`, its newest request (None before the first)."""
    return cycle is None or cycle.response_complete
