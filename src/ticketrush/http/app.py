"""The whole HTTP API as an ASGI application: complete on any ASGI server."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import TypedDict

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ticketrush import logs
from ticketrush._version import __version__
from ticketrush.errors import InvalidRequest, JournalError, TicketrushError
from ticketrush.http import buyers, openapi, operations, operators, orders, problems, webhooks
from ticketrush.http.answers import Header
from ticketrush.http.docs import add_docs
from ticketrush.http.framing import coding_fault
from ticketrush.http.lane import Lane, is_local
from ticketrush.http.requests import respond
from ticketrush.http.services import Services
from ticketrush.settings import is_loopback

ROUTERS = (buyers.router, orders.router, operators.router, operations.router, webhooks.router)

log = logs.get("ticketrush.http")


class LifespanState(TypedDict):
    """What the server's protocol class gets to see of the application."""

    lane: Lane


class AnyServer:
    """What our protocol class does, for servers without it.

    It bounds headers, ends a connection on which it is doubtful where a request ends, and takes a lost client calmly.
    """

    def __init__(self, app: ASGIApp, most_bytes: int, is_open: bool) -> None:
        self.app = app
        self.most_bytes = most_bytes
        self.is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            size = len(scope["path"]) + sum(len(name) + len(value) + 4 for name, value in scope["headers"])
            fault = coding_fault(scope["http_version"], scope["headers"])
            if fault:
                refused = problems.problem("malformed", fault, (b"connection", b"close"))
                await respond(refused)(scope, receive, send)
                return
            if size > self.most_bytes:
                await respond(problems.problem("headers_too_large"))(scope, receive, send)
                return
            if self.is_open and scope["path"].startswith("/v1/") and not _is_ours(scope):
                await respond(problems.problem("not_local"))(scope, receive, send)
                return
        gone = False

        async def send_if_there(message: Message) -> None:
            nonlocal gone
            if gone:
                return
            try:
                await send(message)
            except (OSError, RuntimeError) as error:
                gone = True
                log.debug("client_gone", error=str(error))

        await self.app(scope, receive, send_if_there)


def _is_ours(scope: Scope) -> bool:
    """Whether a request without a token comes from this machine, and not from a page of another site."""
    headers = dict(scope["headers"])
    client = scope.get("client")
    at_home = client is None or is_loopback(client[0])
    return at_home and is_local(headers.get(b"host"), headers.get(b"origin"))


def create_app(services: Services, *, running: bool = False) -> FastAPI:
    """The application around `services`, which it starts and stops with its lifespan unless they are `running`."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[LifespanState]:
        async with nullcontext() if running else services.running():
            yield {"lane": services.lane}

    app = FastAPI(
        title="ticketrush",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.services = services
    app.state.registry = operations.registry_of(services.engine)
    for router in ROUTERS:
        app.include_router(router)
    if services.demo is not None:
        app.include_router(buyers.demo_router)
    add_docs(app)
    app.add_middleware(webhooks.Webhooks)
    app.add_middleware(AnyServer, most_bytes=services.lane.limits.header_bytes, is_open=services.tokens is None)
    app.add_exception_handler(InvalidRequest, _on_invalid)
    app.add_exception_handler(TicketrushError, _on_unavailable)
    app.add_exception_handler(RequestValidationError, _on_validation)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_defect)
    described = functools.cache(lambda: openapi.schema(app))  # made once: it takes long, and anybody may ask for it
    app.openapi = described  # type: ignore[method-assign]
    return app


async def _on_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, InvalidRequest)
    return respond(problems.invalid(error))


async def _on_unavailable(request: Request, error: Exception) -> Response:
    """The ledger could not be read; a payment or a cancellation may have happened all the same."""
    log.error("read_failed", error=str(error), journal=isinstance(error, JournalError))
    code = "unavailable" if request.method == "GET" else "unknown"
    return respond(problems.problem(code, "", (b"retry-after", b"1")))


async def _on_validation(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    details = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
    return respond(problems.problem("invalid_request", details))


async def _on_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers: tuple[Header, ...] = ()
    if error.status_code == 405:
        headers = ((b"allow", ", ".join(sorted(_methods_at(request.url.path))).encode()),)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "malformed")
    return respond(problems.problem(code, "", *headers))


def _methods_at(path: str) -> set[str]:
    """All methods that the calls at `path` take together."""
    methods: set[str] = set()
    for router in ROUTERS:
        for route in router.routes:
            if isinstance(route, APIRoute) and route.path_regex.match(path):
                methods |= route.methods or set()
    return methods


async def _on_disconnect(_: Request, error: Exception) -> Response:
    """The client went away before its request was complete; nobody reads this."""
    return respond(problems.problem("timeout"))


async def _on_defect(request: Request, error: Exception) -> Response:
    log.error("defect", path=request.url.path, exc_info=error)
    return respond(problems.problem("internal"))
