"""A small server that sells by one strategy: the product's calls and answers, so that the same crowd can ask."""

from __future__ import annotations

import contextlib
import hashlib
import signal
import socket
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec
import uvicorn
import uvloop
from fastapi import FastAPI, Request
from fastapi.responses import Response

from ticketrush.cluster.ports import LOCALHOST
from ticketrush.garbage import collect_rarely
from ticketrush.http.answers import Answer, json_answer
from ticketrush.http.problems import problem
from ticketrush.http.requests import respond
from ticketrush.http.server import BACKLOG
from ticketrush.strategies.errors import StoreBusy, StrategyError
from ticketrush.strategies.shop import Strategy, Told
from ticketrush.strategies.store import ITEM, Books, Order, Store

STOP_S: Final = 5
_AGAIN: Final = (b"retry-after", b"1")
_NO_UNIT: Final = "No unit was left when the payment came; the money was given back."


class _Purchase(msgspec.Struct, frozen=True, gc=False):
    item: str
    quantity: int


class _Made(msgspec.Struct, frozen=True, gc=False):
    """To its buyer, "held" is success: a ticket that is only to be paid."""

    id: str
    sale: str
    item: str
    quantity: int = 1
    state: str = "held"


class _Part(msgspec.Struct, frozen=True, gc=False):
    id: str
    state: str


class _Receipt(msgspec.Struct, frozen=True, gc=False):
    order: _Part
    payment: _Part


_purchase: Final = msgspec.json.Decoder(_Purchase)


Lifespan = Callable[[FastAPI], contextlib.AbstractAsyncContextManager[None]]


def create_app(strategy: Strategy, lifespan: Lifespan | None = None) -> FastAPI:
    """The application that sells by `strategy`; `lifespan` opens its store, if it is not open yet."""
    app = FastAPI(title=f"ticketrush strategies: {strategy.name}", openapi_url=None, lifespan=lifespan)

    @app.post("/v1/sales/{sale}/reservations")
    async def order(request: Request, sale: str) -> Response:
        return respond(await _order(strategy, request, sale))

    @app.post("/v1/orders/{id}/payment")
    async def pay(request: Request, id: str) -> Response:
        return respond(await _pay(strategy, request, id))

    @app.exception_handler(StoreBusy)
    async def busy(_: Request, error: StoreBusy) -> Response:
        return respond(problem("unknown", f"{error} Repeat with the same Idempotency-Key.", _AGAIN))

    return app


def order_of(buyer: str, key: str) -> Order:
    """The order that `buyer` makes under an idempotency key; always the same one."""
    return Order(hashlib.blake2b(f"{buyer}\n{key}".encode(), digest_size=16).hexdigest(), buyer)


async def _order(strategy: Strategy, request: Request, sale: str) -> Answer:
    buyer, key = request.headers.get("x-buyer"), request.headers.get("idempotency-key")
    if not buyer or not key:
        return problem("invalid_request", "Send the headers X-Buyer and Idempotency-Key.")
    try:
        purchase = _purchase.decode(await request.body())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return problem("malformed", str(error))
    if purchase != _Purchase(ITEM, 1):
        return problem("invalid_request", f"One unit of {ITEM!r} is what there is to order.")
    made = order_of(buyer, key)
    match await strategy.order(made):
        case Told.SUCCESS:
            return json_answer(_Made(made.id, sale, ITEM), 201)
        case Told.SUCCESS_BEFORE:
            return json_answer(_Made(made.id, sale, ITEM), 200)
        case Told.ALL_HELD:
            return problem("all_held", "", _AGAIN)
        case told:
            return problem(told.value)


async def _pay(strategy: Strategy, request: Request, id: str) -> Answer:
    match await strategy.pay(Order(id, request.headers.get("x-buyer", ""))):
        case Told.PAID:
            return json_answer(_Receipt(_Part(id, "paid"), _Part(id, "approved")))
        case Told.REFUNDED:
            return problem("payment_refunded", _NO_UNIT)
        case told:
            return problem(told.value)


def serve(strategy: Strategy, store: Store, capacity: int, port: int, announce: Callable[[str], None]) -> Books:
    """Sell `capacity` units from `store` until SIGTERM; what the books say then.

    `announce` gets the URL once connections are accepted.
    """
    books: list[Books] = []

    @contextlib.asynccontextmanager
    async def with_store(_: FastAPI) -> AsyncIterator[None]:
        await store.open(capacity)
        yield
        books.append(await store.close())

    with socket.create_server((LOCALHOST, port), backlog=BACKLOG) as listener:
        url = f"http://{LOCALHOST}:{listener.getsockname()[1]}"
        config = uvicorn.Config(
            create_app(strategy, with_store),
            http="httptools",
            ws="none",
            lifespan="on",
            backlog=BACKLOG,
            access_log=False,
            log_level="warning",
            server_header=False,
            timeout_graceful_shutdown=STOP_S,
        )
        server = _Server(config, lambda: announce(url))
        # uvicorn raises the signal again when it has stopped; the books are yet to be told then.
        signal.signal(signal.SIGTERM, lambda *_: setattr(server, "should_exit", True))
        uvloop.run(server.serve(sockets=[listener]))
    if not books:
        raise StrategyError("the server ended before its books were closed; its log says why")
    return books[0]


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it serves, with the garbage collector set as the product's is."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and not self.should_exit:
            collect_rarely()
            self._started()
