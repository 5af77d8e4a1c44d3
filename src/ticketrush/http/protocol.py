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
from typing import Any, Final

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from ticketrush.http.answers import Answer
from ticketrush.http.lane import Lane, closing
from ticketrush.http.problems import problem

LINGER_TICKS: Final = 3

_MALFORMED: Final = problem("malformed", "The request is not valid HTTP/1.1.")


class Stop(Exception):
    """Raised in a parser callback to stop parsing; the connection's `verdict` says why."""


class SteadyProtocol(HttpToolsProtocol):
    """One connection. The application must have a `Lane` in its lifespan state under "lane"."""

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
        self.reading = self.in_head = False
        """A request has begun to arrive; its headers are not complete."""
        self.owns_cycle = False
        """`cycle` belongs to the request that is arriving."""
        self.began_tick = self.seen_tick = self.paused_tick = self.watch.tick
        self.head_fed = self.body_fed = 0
        self.check_head = self.advancing = self.doomed = False
        self.linger_until_tick = 0
        self.verdict: Answer | None = None
        self.last: bytes | None = None
        """The answer to a request that ended the connection, while earlier answers are due."""

    # --- the connection ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.watch.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.watch.connections.discard(self)
        self.doomed = True
        super().connection_lost(exc)

    def on_tick(self, tick: int) -> None:
        """Once a second: end what is too slow or idle."""
        limits = self.limits
        if self.transport.is_closing():
            return
        if self.linger_until_tick:
            if tick >= self.linger_until_tick:
                self.transport.abort()
        elif self.flow.write_paused:
            if tick - self.paused_tick > limits.request_timeout_s:
                self.transport.abort()
        elif self.reading:
            if tick - self.began_tick > limits.request_timeout_s:
                self.refuse(problem("timeout"))
        elif is_done(self.cycle) and tick - self.seen_tick > limits.keep_alive_timeout_s:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.paused_tick = self.watch.tick
        self.flow.pause_reading()  # who does not read answers may not send requests

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self.pipeline:
            self.flow.resume_reading()

    # --- parsing ----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self.doomed:
            return
        self.seen_tick = self.watch.tick
        size = len(data)
        self.check_head = self.in_head or size > self.limits.header_bytes
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # No other protocol is spoken here: the request is answered as HTTP/1.1, and is the last one.
            self.cycle.keep_alive = False
            self.doomed = True
        except httptools.HttpParserError:
            self.refuse(self.verdict or _MALFORMED)
        else:
            if self.in_head:
                self.head_fed += size
                if self.head_fed > self.limits.header_bytes:
                    self.refuse(problem("headers_too_large"))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.begin()

    def begin(self) -> None:
        """A request begins to arrive."""
        self.reading = self.in_head = True
        self.owns_cycle = False
        self.began_tick = self.watch.tick
        self.head_fed = self.body_fed = 0

    def on_headers_complete(self) -> None:
        self.in_head = False
        self.check_size()
        super().on_headers_complete()
        self.owns_cycle = True

    def check_size(self) -> None:
        """Stop parsing a request whose headers are, or whose body will be, too large."""
        if self.check_head:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self.limits.header_bytes:
                self.stop(problem("headers_too_large"))
        for name, value in self.headers:
            if name == b"content-length" and int(value) > self.limits.body_bytes:
                self.stop(self.too_large())

    def on_body(self, body: bytes) -> None:
        self.body_fed += len(body)
        if self.body_fed > self.limits.body_bytes:
            self.stop(self.too_large())
        super().on_body(body)

    def on_message_complete(self) -> None:
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
        if not transport.can_write_eof():
            transport.close()
            return
        transport.write_eof()
        self.linger_until_tick = self.watch.tick + LINGER_TICKS
        self.flow.resume_reading()

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
                if not cycle.response_complete or self.transport.is_closing():
                    return
        finally:
            self.advancing = False
        if self.last is not None:
            self.linger(self.last)
        elif not self.flow.write_paused:
            self.flow.resume_reading()


def is_done(cycle: RequestResponseCycle | None) -> bool:
    """Whether a connection owes no answer for `cycle`, its newest request (None before the first)."""
    return cycle is None or cycle.response_complete
