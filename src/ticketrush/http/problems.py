"""Errors and refusals as RFC 9457 problem documents: the one place where they become HTTP."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import msgspec

from ticketrush.errors import InvalidRequest
from ticketrush.http.answers import Answer, Header, encode
from ticketrush.model import Reason, Refused


class Problem(msgspec.Struct, frozen=True, gc=False):
    """A problem document. `code` is stable and for programs, `detail` for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str


class Kind(NamedTuple):
    """The HTTP status of a problem, its title, and what it means to the one who gets it."""

    status: int
    title: str
    detail: str


KINDS: Final[dict[str, Kind]] = {
    "sold_out": Kind(409, "Sold out", "Every unit is sold."),
    "all_held": Kind(409, "All held", "Every unit is held by somebody; unpaid ones come back. Try again later."),
    "purchase_limit": Kind(409, "Purchase limit", "That is more than one buyer may have of this item."),
    "not_open": Kind(403, "Not open", "The sale has not opened yet."),
    "closed": Kind(410, "Closed", "The sale is over."),
    "unknown_sale": Kind(404, "Unknown sale", "There is no such sale."),
    "unknown_item": Kind(404, "Unknown item", "The sale has no such item."),
    "unknown_reservation": Kind(404, "Unknown reservation", "You have no such reservation."),
    "unknown_order": Kind(404, "Unknown order", "You have no such order."),
    "orders_not_kept": Kind(
        404, "Orders not kept", "This server has no order store; each order is at /v1/orders/{id} all the same."
    ),
    "not_found": Kind(404, "Not found", "There is nothing at this address; see /docs."),
    "method_not_allowed": Kind(405, "Method not allowed", "This address does not take that method; see /docs."),
    "idempotency_key_reused": Kind(
        422, "Idempotency key reused", "This key was used for another request; use a new key for a new request."
    ),
    "wrong_state": Kind(409, "Wrong state", "The reservation is in a state that does not allow this."),
    "sale_exists": Kind(409, "Sale exists", "A sale of this id exists and is another one; its id cannot be reused."),
    "limit_exceeded": Kind(409, "Limit exceeded", "That is more than this server takes on."),
    "payment_declined": Kind(
        402, "Payment declined", "The payment was declined; the units are held until the hold ends."
    ),
    "payment_refunded": Kind(
        409, "Payment refunded", "The hold had ended and no unit was free; the money was given back."
    ),
    "payment_mismatch": Kind(
        422, "Payment mismatch", "The amount or the currency is not the price of the order; nothing was settled."
    ),
    "payment_unknown": Kind(
        503, "Payment unknown", "The payment gateway did not answer. Pay again: an order is charged once."
    ),
    "invalid_signature": Kind(401, "Invalid signature", "This is not a webhook that was signed for this server, now."),
    "unauthorized": Kind(401, "Unauthorized", "Send a valid token as `Authorization: Bearer <token>`."),
    "forbidden": Kind(403, "Forbidden", "This call needs a token with the scope `operator`."),
    "not_local": Kind(
        403,
        "Not local",
        "Without tokens a server answers this machine only: use its loopback address, no proxy.",
    ),
    "malformed": Kind(400, "Malformed request", "The request is not valid HTTP or not valid JSON."),
    "invalid_request": Kind(422, "Invalid request", "The request has a value that is not allowed."),
    "body_too_large": Kind(413, "Body too large", "The request body is too large."),
    "headers_too_large": Kind(431, "Headers too large", "The request line and headers are too large."),
    "timeout": Kind(408, "Request timeout", "The request did not arrive in time."),
    "overloaded": Kind(503, "Overloaded", "Too many requests are waiting. This one did not happen; try again."),
    "unavailable": Kind(
        503, "Unavailable", "The ledger cannot be written now. This request did not happen; try again."
    ),
    "unknown": Kind(
        503, "Unknown", "It is not known whether this happened. Repeat it with the same Idempotency-Key to find out."
    ),
    "internal": Kind(500, "Internal error", "A defect of the server; it has been logged."),
}

PROBLEM_JSON: Final[Header] = (b"content-type", b"application/problem+json")

EDGE_MS: Final = 1_000
"""For how long a proxy may give the answer of a closed gate in our place; a unit that comes back is seen after it."""

EDGE: Final[Header] = (b"x-accel-expires", b"%d" % (EDGE_MS // 1_000))
"""Says so, in seconds, to Nginx, which does not pass it on."""

_CHALLENGE: Final[Header] = (b"www-authenticate", b'Bearer realm="ticketrush"')
_CHALLENGES: Final[dict[str, Header]] = {
    "invalid_signature": (b"www-authenticate", b'Webhook-Signature realm="ticketrush"'),
}
"""Of problems with a 401 that a bearer token would not solve."""


def problem(code: str, detail: str = "", *headers: Header, status: int = 0) -> Answer:
    """The answer for a problem of kind `code`."""
    kind = KINDS[code]
    status = status or kind.status
    if status == 401:
        headers = (_CHALLENGES.get(code, _CHALLENGE), *headers)
    body = Problem(f"urn:ticketrush:problem:{code}", kind.title, status, detail or kind.detail, code)
    return Answer(status, (PROBLEM_JSON, *headers), encode(body))


def invalid(error: InvalidRequest) -> Answer:
    """The answer to a request that cannot be understood."""
    return problem(error.code, str(error), status=error.status)


def turned_away(refused: Refused, now_ms: int) -> Answer:
    """The answer of a closed gate. It is the same for everybody, so a proxy may give it for a moment."""
    answer = refusal(refused, now_ms)
    if (
        refused.reason is Reason.NOT_OPEN and 0 < refused.retry_at_ms < now_ms + 2 * EDGE_MS
    ):  # this answer is prepared a second ahead
        return answer
    return answer._replace(headers=(*answer.headers, EDGE))


def refusal(refused: Refused, now_ms: int) -> Answer:
    """The answer for a command that had no effect."""
    detail = ""
    if refused.reason is Reason.WRONG_STATE and refused.reservation is not None:
        detail = f"The reservation is {refused.reservation.state.value}, which does not allow this."
    if not refused.retry_at_ms:
        return problem(refused.reason.value, detail)
    seconds = max(1, math.ceil((refused.retry_at_ms - now_ms) / 1_000))
    return problem(refused.reason.value, detail, (b"retry-after", str(seconds).encode()))
