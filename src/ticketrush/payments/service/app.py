"""The test gateway's HTTP API, and the process around it."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import FrameType
from typing import Annotated, Final

import apsw
import msgspec
import uvicorn
import uvloop
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import Response

from ticketrush._version import __version__
from ticketrush.credentials import check_webhook_secret
from ticketrush.errors import InvalidRequest, SettingsError
from ticketrush.payments.cards import DECLINE, delay_of
from ticketrush.payments.protocol import Charge, ChargeState
from ticketrush.payments.service.book import Book, BookFull
from ticketrush.payments.service.habits import Habits
from ticketrush.payments.service.sender import Sender

HOST: Final = "127.0.0.1"
BODY_BYTES_MAX: Final = 16_384
CHARGES_AT_ONCE: Final = 1_000
DELAY_MS_MAX: Final = 3_600_000
CONNECTIONS_MAX: Final = 2_000


class ChargeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Money to take for an order: minor units of a currency (ISO 4217), by a card, decided after `delay_ms`."""

    order: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,128}\Z")]
    amount_minor: Annotated[int, msgspec.Meta(ge=0, le=10**15)]
    currency: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")]
    card: Annotated[str, msgspec.Meta(max_length=128)]
    delay_ms: Annotated[int, msgspec.Meta(ge=0, le=DELAY_MS_MAX)] = 0


class Health(msgspec.Struct, frozen=True):
    """What the gateway has to do: `waiting` webhooks are not delivered yet, `given_up` never will be."""

    charges: int
    pending: int
    waiting: int
    delivered: int
    retried: int
    given_up: int


_body_of: Final = msgspec.json.Decoder(ChargeBody).decode


def create_app(book: Book, sender: Sender, habits: Habits) -> FastAPI:
    """The application around `book`; `sender` works for as long as it lives."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        work = asyncio.create_task(sender.run())
        try:
            yield
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            book.close()

    app = FastAPI(
        title="ticketrush test gateway", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None
    )

    @app.post("/charges", summary="Charge an order")
    async def charge(request: Request) -> Response:
        """201 with the charge, or 200 with the one that was made before. Its webhook follows."""
        body, key = await _read_charge(request), request.headers.get("idempotency-key")
        now_ms = _now_ms()
        try:
            late_ms = delay_of(body.card, body.delay_ms) or habits.delay_ms
            made, is_new = book.charge(
                body.order,
                body.amount_minor,
                body.currency,
                key=key[:256] if key else None,
                decline=body.card == DECLINE,
                at_ms=now_ms + late_ms,
                now_ms=now_ms,
            )
        except InvalidRequest as error:
            raise HTTPException(422, str(error)) from error
        except BookFull as error:
            raise HTTPException(507, str(error)) from error
        sender.wake()
        return _json(made, 201 if is_new else 200)

    @app.post("/charges/{id}/refund", summary="Refund a charge")
    async def refund(id: str) -> Response:
        """Give the money back. Repeating it is harmless; 409 if the charge took none."""
        charge = _found(book.refund(id, _now_ms()))
        if charge.state is not ChargeState.REFUNDED:
            raise HTTPException(409, f"the charge is {charge.state.value}, there is no money to give back")
        sender.wake()
        return _json(charge)

    @app.get("/charges/{id}", summary="Read a charge")
    async def read(id: str) -> Response:
        """The charge as it is now."""
        return _json(_found(book.read(id)))

    @app.get("/charges", summary="List charges")
    async def list_charges(
        order: str = "",
        after: Annotated[str, Query(description="Id of the last charge already read.")] = "",
        limit: Annotated[int, Query(ge=1, le=CHARGES_AT_ONCE)] = CHARGES_AT_ONCE,
    ) -> Response:
        """Of an order, the last one first; else all, the first one first, a page at a time."""
        return _json(book.of_order(order, limit) if order else book.page(after, limit))

    @app.get("/healthz", summary="What there is to do")
    async def health() -> Response:
        """Nothing is under way when `pending` and `waiting` are 0."""
        return _json(Health(*book.open_matters(), sender.delivered, sender.retried, sender.given_up))

    return app


def serve(
    port: int, urls: Sequence[str], secret: str, habits: Habits, *, file: str, announce: Callable[[str], None]
) -> None:
    """Serve on loopback until SIGTERM or Ctrl-C. `announce` gets the URL once connections are accepted.

    Raises:
        SettingsError: the port, the file or the secret cannot be used.
    """
    try:
        check_webhook_secret(secret)
    except ValueError as error:
        raise SettingsError(f"the webhook secret {error}") from None
    try:
        book = Book(file, habits)
    except apsw.Error as error:
        raise SettingsError(f"the book {file} cannot be used: {error}") from error
    uvloop.run(_serve(port, create_app(book, Sender(book, urls, secret), habits), announce))


async def _serve(port: int, app: FastAPI, announce: Callable[[str], None]) -> None:
    config = uvicorn.Config(
        app,
        HOST,
        port,
        http="httptools",
        access_log=False,
        log_config=None,
        log_level="warning",  # where it serves, and how it is stopped, is announced
        limit_concurrency=CONNECTIONS_MAX,
    )
    server = _Server(config, announce)
    server.stop_on_signals()
    await server.serve()


class _Server(uvicorn.Server):
    """uvicorn's server, which says where it serves."""

    def __init__(self, config: uvicorn.Config, started: Callable[[str], None]) -> None:
        super().__init__(config)
        self._tell = started

    def stop_on_signals(self) -> None:
        """Take the signals that uvicorn raises once more after it has stopped; it has done its work by then."""

        def stop(number: int, frame: FrameType | None) -> None:
            self.should_exit = True

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        try:
            await super().startup()
        except SystemExit:
            raise SettingsError(f"cannot listen on {HOST} port {self.config.port}; choose another --port") from None
        if self.servers:
            self._tell(f"http://{HOST}:{self.servers[0].sockets[0].getsockname()[1]}")


async def _read_charge(request: Request) -> ChargeBody:
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > BODY_BYTES_MAX:
            raise HTTPException(413, f"the body is larger than {BODY_BYTES_MAX} bytes")
    try:
        return _body_of(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise HTTPException(422, f"this is no charge: {error}") from error


def _found(charge: Charge | None) -> Charge:
    if charge is None:
        raise HTTPException(404, "there is no such charge")
    return charge


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
