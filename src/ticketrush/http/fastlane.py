"""The fast lane: the one hot call answered inside the HTTP protocol, all else by the application.

A purchase costs no task, no future and no ASGI scope. Its `HotCycle` stands where uvicorn keeps its
request/response cycle, so pipelining, shutdown and disconnects work as for any other request. A
closed gate is answered from prepared bytes; all others when their batch is durable.

Requests that are in any way unusual (another method, a header twice, an unknown sale, an upgrade)
go to the application, which says what is wrong with them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from ticketrush import model as m
from ticketrush.errors import InvalidRequest
from ticketrush.http import problems
from ticketrush.http.lane import DEMO, Lane, closing
from ticketrush.http.protocol import SteadyProtocol, is_done
from ticketrush.model import Refused

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Unheard:
    """An event that nobody waits for."""

    def set(self) -> None:
        pass


class HotCycle:
    """One hot request: what was asked, and whose turn it is."""

    __slots__ = (
        "body",
        "disconnected",
        "expects",
        "head",
        "keep_alive",
        "protocol",
        "response_complete",
        "sale",
        "turn",
        "whole",
    )

    message_event = _Unheard()
    response_started = False

    def __init__(self, protocol: FastLane, sale: str | None, head: dict[bytes, bytes], keep_alive: bool) -> None:
        self.protocol = protocol
        self.sale = sale
        """The sale, or None for the demo call."""
        self.head = head
        self.keep_alive = keep_alive
        self.body = b""
        self.turn = self.whole = self.response_complete = self.disconnected = self.expects = False

    def start(self) -> None:
        """All earlier answers are out."""
        self.turn = True
        if self.whole:
            self.decide()
        elif self.expects:
            self.protocol.transport.write(_CONTINUE)

    def complete(self) -> None:
        """The body is complete."""
        self.whole = True
        if self.turn:
            self.decide()

    def decide(self) -> None:
        """Answer now, or when the ledger has decided."""
        lane = self.protocol.lane
        if self.sale is None:
            self.decide_demo(lane)
            return
        get = self.head.get
        try:
            asked = lane.purchases.ask(
                self.sale, self.body, get(b"idempotency-key"), get(b"authorization"), get(b"x-buyer")
            )
        except InvalidRequest as error:
            self.reply(lane.render(problems.invalid(error)))
            return
        if isinstance(asked, Refused):
            self.reply(lane.refusal(asked))
        else:
            lane.purchases.engine.offer(asked, self.settle)

    def settle(self, outcome: m.Outcome) -> None:
        """The ledger has decided."""
        lane = self.protocol.lane
        if type(outcome) is Refused:
            self.reply(lane.refusal(outcome))
        else:
            self.reply(lane.render(lane.purchases.answer(outcome)))

    def decide_demo(self, lane: Lane) -> None:
        """The same for the articles' call."""
        demo = lane.demo
        assert demo is not None
        asked = demo.ask()
        if isinstance(asked, Refused):
            self.reply(lane.render(demo.answer(asked)))
        else:
            lane.purchases.engine.offer(asked, lambda outcome: self.reply(lane.render(demo.answer(outcome))))

    def reply(self, data: bytes) -> None:
        """Send the answer."""
        self.response_complete = True
        protocol = self.protocol
        transport = protocol.transport
        if self.disconnected or transport.is_closing():
            return
        if self.keep_alive:
            transport.write(data)
        else:
            transport.write(closing(data))
            transport.close()
        protocol.on_response_complete()


class FastLane(SteadyProtocol):
    """One connection with a fast lane."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.hot: HotCycle | None = None
        self.head: dict[bytes, bytes] = {}

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.head = {}
        self.expect_100_continue = False
        self.hot = None
        self.begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self.headers.append((name, value))
        self.head[name] = value

    def on_headers_complete(self) -> None:
        url = self.url
        sale = self.lane.sale_of(url)
        if (sale is None and (url != DEMO or self.lane.demo is None)) or not self.is_plain(sale):
            self.hand_over()
            return
        self.in_head = False
        self.check_size()
        before = self.cycle
        cycle = self.hot = HotCycle(self, sale, self.head, self.parser.should_keep_alive())
        cycle.expects = self.head.get(b"expect", b"").lower() == b"100-continue"
        self.cycle = cast("RequestResponseCycle", cycle)
        self.owns_cycle = True
        if is_done(before):
            cycle.start()
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, _no_application))

    def is_plain(self, sale: str | None) -> bool:
        """Whether the request is one that the fast lane understands completely."""
        method = self.parser.get_method()
        return (
            (method == b"POST" or (sale is None and method == b"GET"))
            and len(self.head) == len(self.headers)
            and b"upgrade" not in self.head
            and (b"connection" not in self.head or self.parser.get_http_version() == "1.1")
        )

    def hand_over(self) -> None:
        """Let the application have this request, as if the fast lane had not looked at it."""
        url, headers = self.url, self.headers
        began_tick, head_fed = self.began_tick, self.head_fed
        super().on_message_begin()
        self.began_tick, self.head_fed = began_tick, head_fed
        self.url = url
        for name, value in headers:
            super().on_header(name, value)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        hot = self.hot
        if hot is None:
            super().on_body(body)
            return
        hot.body += body
        if len(hot.body) > self.limits.body_bytes:
            self.stop(self.too_large())

    def on_message_complete(self) -> None:
        hot = self.hot
        if hot is None:
            super().on_message_complete()
            return
        self.reading = self.owns_cycle = False
        hot.complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if app is _no_application:
            cast("HotCycle", cycle).start()
        else:
            super()._start_asgi_task(cycle, app)


async def _no_application(*_: object) -> None:
    """Stands in the pipeline where a hot request has no application."""
    raise AssertionError("a hot request was handed to an application")
