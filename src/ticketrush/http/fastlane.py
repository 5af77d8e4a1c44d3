"""The fast lane: the one hot call answered inside the HTTP protocol, all else by the application.

A purchase costs no task, no future and no ASGI scope. A closed gate is answered at once, from bytes
prepared for all losers of the same second. A request that must wait, for its batch (`HotCycle`) or for
earlier answers on its connection (`QueuedCycle`), stands where uvicorn keeps its request/response
cycle: so pipelining, shutdown and disconnects work as for any other request.

Most requests are plain and arrive alone and whole: these are read by `plain.read`. Any other is read by
uvicorn's parser, callback by callback, and may still be a hot one.

Requests that are in any way unusual (another method, a header twice, an unknown sale, an upgrade)
go to the application, which says what is wrong with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from ticketrush import logs
from ticketrush import model as m
from ticketrush.http.framing import host_fault
from ticketrush.http.lane import DEMO, Lane, closing, is_local
from ticketrush.http.plain import read
from ticketrush.http.problems import problem
from ticketrush.http.protocol import SteadyProtocol, is_done

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

log = logs.get("ticketrush.http")

_MEANS_MORE: Final = frozenset((b"connection", b"expect", b"transfer-encoding"))
"""What HTTP/1.0 does not know, or not as HTTP/1.1 does."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Unheard:
    """An event that nobody waits for."""

    def set(self) -> None:
        pass


class HotCycle:
    """A hot request that waits for its batch. `sale` is None for the demo call."""

    __slots__ = ("disconnected", "keep_alive", "protocol", "response_complete", "sale")

    message_event = _Unheard()
    response_started = False

    def __init__(self, protocol: FastLane, sale: str | None, keep_alive: bool) -> None:
        self.protocol = protocol
        self.sale = sale
        self.keep_alive = keep_alive
        self.response_complete = self.disconnected = False

    def settle(self, outcome: m.Outcome) -> None:
        """The ledger has decided."""
        lane = self.protocol.lane
        try:
            data = lane.answer(self.sale, outcome)
        except Exception:
            log.exception("defect")
            data = lane.render(problem("internal"))
        self.reply(data)

    def reply(self, data: bytes) -> None:
        """Send the answer."""
        self.response_complete = True
        protocol = self.protocol
        if not self.disconnected:
            protocol.send(data, self.keep_alive)
            if protocol.pipeline or protocol.last is not None:
                protocol.on_response_complete()


class QueuedCycle(HotCycle):
    """A hot request behind others on its connection."""

    __slots__ = ("body", "head", "turn", "whole")

    def __init__(self, protocol: FastLane, keep_alive: bool) -> None:
        super().__init__(protocol, protocol.sale, keep_alive)
        self.head = protocol.head
        self.body = b""
        self.turn = self.whole = False

    def start(self) -> None:
        """All earlier answers are out."""
        self.turn = True
        if self.whole:
            self.decide()
        elif _expects_continue(self.head):
            self.protocol.transport.write(_CONTINUE)

    def complete(self, body: bytes) -> None:
        """The body has arrived."""
        self.body = body
        self.whole = True
        if self.turn:
            self.decide()

    def decide(self) -> None:
        """Answer now, or when the ledger has decided."""
        lane = self.protocol.lane
        asked = _ask(lane, self.sale, self.head, self.body)
        if type(asked) is bytes:
            self.reply(asked)
        else:
            lane.engine.offer(cast("m.Reserve", asked), self.settle)


class FastLane(SteadyProtocol):
    """One connection with a fast lane."""

    __slots__ = ("body", "head", "hot", "queued", "sale")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.hot = False
        """The request that is arriving is a hot one."""
        self.sale: str | None = None
        self.head: dict[bytes, bytes] = {}
        self.body = b""
        self.queued: QueuedCycle | None = None
        """The same request, if earlier answers are due on this connection."""

    def data_received(self, data: bytes) -> None:
        """A plain request is understood at once, if nothing is under way; the parser gets all else."""
        is_idle = is_done(self.cycle) and not (self.reading or self.doomed or self.held)
        if not (is_idle and len(data) <= self.lane.plain_bytes and self.take(data)):
            super().data_received(data)

    def take(self, data: bytes) -> bool:
        """Answer, or offer to the ledger, the plain request that `data` is; False if it is none."""
        plain = read(data)
        if plain is None:
            return False
        url, host, authorization, key, x_buyer, body = plain
        lane = self.lane
        if url is None:
            sale = None
            if lane.demo is None:
                return False
        else:
            sale = lane.routes.get(url) or lane.sale_of(url)
            if sale is None or (lane.is_open and not is_local(host, None)):
                return False
        self.seen_tick = self.watch.tick
        self.answer(sale, lane.ask(sale, body, key, authorization, x_buyer), True)
        return True

    def answer(self, sale: str | None, asked: bytes | m.Reserve, keep_alive: bool) -> None:
        """Send the answer that is known, or wait for the ledger to decide."""
        if type(asked) is bytes:
            self.send(asked, keep_alive)
        else:
            cycle = HotCycle(self, sale, keep_alive)
            self.cycle = cast("RequestResponseCycle", cycle)
            self.lane.engine.offer(cast("m.Reserve", asked), cycle.settle)

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.hot = False
        self.begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:
            self.headers.append((name.lower(), value))
        else:
            self.count_trailer(name, value)

    def on_headers_complete(self) -> None:
        lane = self.lane
        sale = lane.routes.get(self.url) or lane.sale_of(self.url)
        head = dict(self.headers)
        if not self.is_plain(sale, head):
            self.hand_over()
            return
        self.in_head = False
        self.hot = True
        self.sale, self.head, self.body = sale, head, b""
        length = head.get(b"content-length")
        if self.check_head or (length is not None and len(length) > 4):
            self.check_size(length)
        if is_done(self.cycle):
            self.queued = None
            if _expects_continue(head):
                self.transport.write(_CONTINUE)
            return
        self.queued = QueuedCycle(self, self.parser.should_keep_alive())
        self.cycle = cast("RequestResponseCycle", self.queued)
        self.owns_cycle = True
        self.flow.pause_reading()
        self.pipeline.appendleft((self.cycle, _no_application))

    def is_plain(self, sale: str | None, head: dict[bytes, bytes]) -> bool:
        """Whether the request is hot, and one that the fast lane understands completely."""
        method = self.parser.get_method()
        if sale is None:
            if self.url != DEMO or self.lane.demo is None or method not in {b"GET", b"POST"}:
                return False
        elif method != b"POST":
            return False
        if len(head) != len(self.headers) or b"host" not in head or b"upgrade" in head:
            return False
        if host_fault("1.1", ((b"host", head[b"host"]),)):
            return False
        if self.lane.is_open and sale is not None and not is_local(head[b"host"], head.get(b"origin")):
            return False
        if b"transfer-encoding" in head and head[b"transfer-encoding"] != b"chunked":
            return False
        version = self.parser.get_http_version()
        if version == "1.1":
            return True
        return version == "1.0" and head.keys().isdisjoint(_MEANS_MORE)

    def hand_over(self) -> None:
        """Let the application have this request, as if the fast lane had not looked at it."""
        url, headers = self.url, self.headers
        began_tick, fed = self.began_tick, self.fed
        super().on_message_begin()
        self.began_tick, self.fed = began_tick, fed
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self.hot:
            super().on_body(body)
            return
        self.body += body
        if len(self.body) > self.limits.body_bytes:
            self.stop(self.too_large())

    def on_message_complete(self) -> None:
        if not self.hot:
            super().on_message_complete()
            return
        self.reading = self.owns_cycle = False
        if self.queued is not None:
            self.queued.complete(self.body)
            return
        self.answer(self.sale, _ask(self.lane, self.sale, self.head, self.body), self.parser.should_keep_alive())

    def send(self, data: bytes, keep_alive: bool) -> None:
        """Write an answer; the last one, unless `keep_alive`."""
        transport = self.transport
        if transport.is_closing():
            return
        if keep_alive:
            transport.write(data)
        else:
            transport.write(closing(data))
            transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if app is _no_application:
            self.running = cycle
            cast("QueuedCycle", cycle).start()
        else:
            super()._start_asgi_task(cycle, app)


def _ask(lane: Lane, sale: str | None, head: dict[bytes, bytes], body: bytes) -> bytes | m.Reserve:
    get = head.get
    return lane.ask(sale, body, get(b"idempotency-key"), get(b"authorization"), get(b"x-buyer"))


def _expects_continue(head: dict[bytes, bytes]) -> bool:
    return b"expect" in head and head[b"expect"].lower() == b"100-continue"


async def _no_application(*_: object) -> None:
    """Stands in the pipeline where a hot request has no application."""
    raise AssertionError("a hot request was handed to an application")
