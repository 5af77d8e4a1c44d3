"""What the application's calls have in common: who asks, and what the body says."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, TypeVar, cast

import msgspec
from fastapi import Path, Request
from fastapi.responses import Response

from ticketrush import model as m
from ticketrush.errors import InvalidRequest
from ticketrush.http import problems
from ticketrush.http.answers import Answer
from ticketrush.http.purchase import decode_error
from ticketrush.http.services import Services
from ticketrush.ids import DRAWN

_T = TypeVar("_T")

_IDENTIFIER: dict[str, Any] = {"pattern": "^[A-Za-z0-9._~-]{1,64}$"}

SaleId = Annotated[str, Path(description="Id of a sale.", json_schema_extra=_IDENTIFIER)]
ItemId = Annotated[str, Path(description="Id of an item of the sale.", json_schema_extra=_IDENTIFIER)]
ID_MAX: Final = 52
"""Characters of a reservation's id at most: what is drawn, and in a shared ledger -SALE.BOOK, two numbers in hex."""

_ID: Final = re.compile(rf"[0-9a-f]{{{DRAWN}}}(-[0-9a-f]+\.[0-9a-f]+)?", re.ASCII)
"""What is drawn for reservations: of any other form is none, and no ledger is asked for it."""

ReservationId = Annotated[
    str, Path(description=f"Id of a reservation, and of its order: opaque, at most {ID_MAX} of `0-9 a-f . -`.")
]


def services_of(request: Request) -> Services:
    """The services of the application that got the request."""
    return cast("Services", request.app.state.services)


def respond(answer: Answer) -> Response:
    """An answer as an ASGI response."""
    response = Response(answer.body, answer.status)
    response.raw_headers = [*answer.headers, (b"content-length", str(len(answer.body)).encode())]
    return response


def refuse(request: Request, refused: m.Refused) -> Response:
    """The response for a command that had no effect."""
    return respond(problems.refusal(refused, services_of(request).engine.now_ms()))


def header(request: Request, name: bytes) -> bytes | None:
    """The value of a header that may come once. Raises InvalidRequest if it comes twice."""
    values = [value for key, value in request.scope["headers"] if key == name]
    if len(values) > 1:
        raise InvalidRequest(f"The header {name.decode()} may come only once.", code="malformed", status=400)
    return values[0].rstrip(b" \t") if values else None


def buyer_of(request: Request) -> str:
    """Who asks. Raises Unauthorized."""
    authorization, x_buyer = header(request, b"authorization"), header(request, b"x-buyer")
    return services_of(request).lane.purchases.buyer_of(authorization, x_buyer)


def check_operator(request: Request) -> None:
    """Raises Unauthorized without a valid token, InvalidRequest (403) without the scope "operator"."""
    tokens = services_of(request).tokens
    if tokens is not None and not tokens.verify(header(request, b"authorization")).is_operator:
        raise InvalidRequest("This call needs a token with the scope `operator`.", code="forbidden", status=403)


async def own_reservation(request: Request, id: str, unknown: str = "unknown_reservation") -> m.Reservation:
    """The reservation of the buyer who asks; another's looks like one that does not exist."""
    buyer = buyer_of(request)
    reservation = await services_of(request).engine.reservation(id) if _ID.fullmatch(id) else None
    if reservation is None or reservation.buyer != buyer:
        kind = problems.KINDS[unknown]
        raise InvalidRequest(kind.detail, code=unknown, status=kind.status)
    return reservation


def _length(request: Request) -> int:
    """How long the body is said to be, 0 if nothing is said; not every server has looked whether it is a number."""
    try:
        return int(header(request, b"content-length") or 0)
    except ValueError:
        raise InvalidRequest("The Content-Length is not a number.", code="malformed", status=400) from None


async def read_body(request: Request) -> bytes:
    """The body, if it is not too large. Raises InvalidRequest."""
    most = services_of(request).lane.limits.body_bytes
    pieces: list[bytes] = []
    size = 0
    if _length(request) <= most:
        async for piece in request.stream():
            pieces.append(piece)
            size += len(piece)
            if size > most:
                break
        else:
            return b"".join(pieces)
    raise InvalidRequest(f"The request body is larger than {most} bytes.", code="body_too_large", status=413)


async def read_json(request: Request, decoder: msgspec.json.Decoder[_T]) -> _T:
    """The body as the value that `decoder` makes of it. Raises InvalidRequest."""
    body = await read_body(request)
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise decode_error(error) from error
