"""The call of the payment gateway: news of payments, signed by Standard Webhooks.

A crowd that pays is a crowd of webhooks, and finding the route of a request costs FastAPI more than all that
is done here. So `Webhooks` answers this one call before the routes are looked at; the route is there too, for
the description of the API and for applications that are put together in another way.
"""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from ticketrush import logs
from ticketrush.cashier import Mismatch
from ticketrush.errors import InvalidRequest, LedgerUnavailable
from ticketrush.http.answers import Answer, json_answer
from ticketrush.http.openapi import describe
from ticketrush.http.problems import invalid, problem
from ticketrush.http.purchase import decode_error
from ticketrush.http.requests import header, read_body, respond, services_of
from ticketrush.payments import notices
from ticketrush.payments.notices import Notice, Told
from ticketrush.payments.protocol import GatewayUnavailable
from ticketrush.settlement import Effect

PATH = "/v1/webhooks/payments"

router = APIRouter()

log = logs.get("ticketrush.payments")
forged = logs.Seldom(log, "webhook_forged")

_ID_SHOWN_MAX = 64

_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")


class WebhookView(msgspec.Struct, frozen=True, gc=False):
    """What came of the news: paid, replaced, refunded, noted, or ignored."""

    effect: str


_DONE = {effect: json_answer(WebhookView(effect.value)) for effect in Effect}
_IGNORED = json_answer(WebhookView("ignored"))
_FORGED = problem("invalid_signature")
_CODES = {
    "invalid_signature",
    "payment_mismatch",
    "invalid_request",
    "malformed",
    "body_too_large",
}
_described = describe(Notice, {200: WebhookView}, _CODES)
_described["parameters"] = [
    {"name": name, "in": "header", "required": True, "schema": {"type": "string"}} for name in _HEADERS
]


@router.post(PATH, summary="Tell of a payment", openapi_extra=_described)
async def receive(request: Request) -> Response:
    """For the payment gateway: `payment.approved`, `payment.declined`, `payment.refunded`.

    200 comes when the effect is durable, and not before. Whatever else is answered, send it again: it
    has one effect, however often and in whatever order it comes. Other kinds of messages are ignored.
    """
    return respond(await _answer(request))


class Webhooks:
    """Answers the call above, and lets the application inside have all others."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != PATH or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        try:
            answer = await _answer(Request(scope, receive))
        except InvalidRequest as error:
            answer = invalid(error)
        except ClientDisconnect:
            answer = problem("timeout")  # nobody reads this
        await respond(answer)(scope, receive, send)


async def _answer(request: Request) -> Answer:
    body = await read_body(request)
    id, timestamp, signatures = (header(request, name.encode()) for name in _HEADERS)
    flaw = services_of(request).webhooks.flaw(body, id, timestamp, signatures)
    if flaw:
        client = request.client.host if request.client else ""
        forged.warning(reason=flaw, id=_readable(id or b""), client=client)
        return _FORGED
    try:
        notice = notices.read(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        log.warning("webhook_unreadable", id=(id or b"").decode("ascii"), error=str(error))
        raise decode_error(error) from error
    return _IGNORED if notice is None else await _settle(request, notice)


def _readable(id: bytes) -> str:
    """The start of what somebody sent as the id, safe to log."""
    text = id[:_ID_SHOWN_MAX].decode("ascii", "replace")
    return "".join(each if each.isprintable() else "?" for each in text)


async def _settle(request: Request, notice: Notice) -> Answer:
    try:
        done = await services_of(request).cashier.told(Told(notice.type), notice.data)
    except (LedgerUnavailable, GatewayUnavailable) as error:
        log.warning("webhook_waits", payment=notice.data.payment, error=str(error))
        return problem("unknown", "This was not settled yet; send it again.", (b"retry-after", b"1"))
    return problem(done.value) if isinstance(done, Mismatch) else _DONE[done.effect]
