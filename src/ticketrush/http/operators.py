"""The calls of operators: sales, stock, refunds and the audit; and the public look at a sale."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from ticketrush import model as m
from ticketrush.clock import iso
from ticketrush.errors import InvalidRequest
from ticketrush.http.answers import JSON, Answer, ReservationView, SaleView, encode, json_answer
from ticketrush.http.openapi import describe
from ticketrush.http.problems import problem
from ticketrush.http.requests import (
    ItemId,
    ReservationId,
    SaleId,
    check_operator,
    header,
    read_json,
    refuse,
    respond,
    services_of,
)
from ticketrush.model import Refused

router = APIRouter()

_OPERATOR = {"unauthorized", "forbidden"}
_WITH_BODY = _OPERATOR | {"malformed", "invalid_request", "body_too_large"}

EVENTS_AT_ONCE = 10_000


class ItemBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An item to sell. Without a `purchase_limit` a buyer may have any number."""

    id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._~-]{1,64}$")]
    capacity: Annotated[int, msgspec.Meta(ge=0, le=m.CAPACITY_MAX)]
    purchase_limit: Annotated[int, msgspec.Meta(ge=1, le=m.CAPACITY_MAX)] | None = None
    price_minor: Annotated[int, msgspec.Meta(ge=0, le=10**12)] = 0
    currency: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}$")] = "CNY"


class SaleBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sale to create. Without `opens_at` it opens when it is told to."""

    items: Annotated[list[ItemBody], msgspec.Meta(min_length=1, max_length=m.ITEMS_MAX)]
    opens_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    closes_at: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    hold_window_s: Annotated[float, msgspec.Meta(ge=0.001, le=m.HOLD_WINDOW_MS_MAX / 1_000)] = 300.0


class StockBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Units to add to an item."""

    units: Annotated[int, msgspec.Meta(ge=1, le=m.CAPACITY_MAX)]


class AuditView(msgspec.Struct, frozen=True):
    """The invariants, checked on the whole journal; `violations` says in words what is wrong."""

    as_of: str
    ok: bool
    checks: dict[str, bool]
    report: dict[str, Any]


class EventsView(msgspec.Struct, frozen=True):
    """A page of the journal. `next` is what to send as `after` for the next page; null at the end."""

    events: list[dict[str, Any]]
    next: int | None


class StateView(msgspec.Struct, frozen=True):
    """What the ledger holds in memory to be true after event `seq`."""

    seq: int
    levels: dict[str, dict[str, dict[str, int]]]
    digest: str


_sale_body = msgspec.json.Decoder(SaleBody)
_stock_body = msgspec.json.Decoder(StockBody)


def _ms(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp() * 1_000)


@router.get(
    "/v1/sales/{sale}",
    summary="Look at a sale",
    openapi_extra=describe(None, {200: SaleView}, {"unknown_sale"}),
)
async def read_sale(request: Request, sale: SaleId) -> Response:
    """Levels of all items, as of a moment; anybody may ask, and may keep the answer for a second."""
    return _sale(request, sale, 200, (b"cache-control", b"public, max-age=1"))


def _sale(request: Request, sale: str, status: int, *headers: tuple[bytes, bytes]) -> Response:
    engine = services_of(request).engine
    stock = engine.stock(sale)
    if stock is None:
        return respond(problem("unknown_sale"))
    return respond(json_answer(SaleView.of(stock, engine.now_ms()), status, *headers))


@router.put(
    "/v1/sales/{sale}",
    summary="Create a sale",
    openapi_extra=describe(SaleBody, {201: SaleView, 200: SaleView}, _WITH_BODY | {"sale_exists", "limit_exceeded"}),
)
async def create_sale(request: Request, sale: SaleId) -> Response:
    """Create a sale. The same one again is harmless (200); another one under its id is refused."""
    check_operator(request)
    body = await read_json(request, _sale_body)
    try:
        items = tuple(
            m.Item(item.id, item.capacity, item.purchase_limit, item.price_minor, item.currency) for item in body.items
        )
        hold_window_ms = max(1, round(body.hold_window_s * 1_000))
        created = m.Sale(sale, items, _ms(body.opens_at), _ms(body.closes_at), hold_window_ms)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(str(error)) from error
    return _changed(request, await services_of(request).engine.create_sale(created), sale, 201)


def _changed(request: Request, outcome: m.SaleChanged | Refused, sale: str, status: int = 200) -> Response:
    if isinstance(outcome, Refused):
        return refuse(request, outcome)
    return _sale(request, sale, 200 if outcome.repeated else status)


@router.post(
    "/v1/sales/{sale}/open",
    summary="Open a sale",
    openapi_extra=describe(None, {200: SaleView}, _OPERATOR | {"unknown_sale"}),
)
async def open_sale(request: Request, sale: SaleId) -> Response:
    """Open a sale now, also one that was closed."""
    check_operator(request)
    return _changed(request, await services_of(request).engine.open_sale(sale), sale)


@router.post(
    "/v1/sales/{sale}/close",
    summary="Close a sale",
    openapi_extra=describe(None, {200: SaleView}, _OPERATOR | {"unknown_sale"}),
)
async def close_sale(request: Request, sale: SaleId) -> Response:
    """Close a sale now. What is held may still be paid."""
    check_operator(request)
    return _changed(request, await services_of(request).engine.close_sale(sale), sale)


@router.post(
    "/v1/sales/{sale}/items/{item}/stock",
    summary="Add stock",
    openapi_extra=describe(
        StockBody,
        {200: SaleView},
        _WITH_BODY | {"unknown_sale", "unknown_item", "idempotency_key_reused", "limit_exceeded"},
        key="required",
    ),
)
async def add_stock(request: Request, sale: SaleId, item: ItemId) -> Response:
    """Add units to an item, once for each `Idempotency-Key`, which is required here."""
    check_operator(request)
    key = (header(request, b"idempotency-key") or b"").decode("latin-1")
    body = await read_json(request, _stock_body)
    return _changed(request, await services_of(request).engine.add_stock(sale, item, body.units, key=key), sale)


@router.post(
    "/v1/reservations/{id}/refund",
    summary="Refund a reservation",
    openapi_extra=describe(None, {200: ReservationView}, _OPERATOR | {"unknown_reservation", "wrong_state"}),
)
async def refund(request: Request, id: ReservationId) -> Response:
    """Give the money back and the units to the sale. Repeating it is harmless."""
    check_operator(request)
    outcome = await services_of(request).cashier.refund(id)
    if isinstance(outcome, Refused):
        return refuse(request, outcome)
    return respond(json_answer(ReservationView.of(outcome.reservation)))


@router.get("/v1/audit", summary="Audit", openapi_extra=describe(None, {200: AuditView}, _OPERATOR))
async def read_audit(request: Request) -> Response:
    """Check the invariants I1 to I8 on the whole journal, while the sale goes on."""
    check_operator(request)
    engine = services_of(request).engine
    report = await engine.audit()
    checks = report.invariants()
    return respond(json_answer(AuditView(iso(engine.now_ms()), report.ok, checks, msgspec.to_builtins(report))))


@router.get(
    "/v1/audit/events",
    summary="Read the journal",
    openapi_extra=describe(None, {200: EventsView}, _OPERATOR | {"invalid_request"}),
)
async def read_events(
    request: Request,
    after: Annotated[int, Query(ge=0, le=2**53, description="Number of the last event already read.")] = 0,
    limit: Annotated[int, Query(ge=1, le=EVENTS_AT_ONCE, description="Events at most.")] = EVENTS_AT_ONCE,
) -> Response:
    """Events in order, each with its number and its type."""
    check_operator(request)
    page = await services_of(request).engine.events(after, limit)
    last = page[-1][0] if len(page) == limit else None
    return respond(Answer(200, (JSON,), encode(EventsView([_event(seq, event) for seq, event in page], last))))


def _event(seq: int, event: Any) -> dict[str, Any]:
    return {"seq": seq, "type": event.__struct_config__.tag, **msgspec.structs.asdict(event)}


@router.get(
    "/v1/audit/state", summary="Read the ledger's state", openapi_extra=describe(None, {200: StateView}, _OPERATOR)
)
async def read_state(request: Request) -> Response:
    """Levels, and a digest of all reservations and their states, from the ledger's memory."""
    check_operator(request)
    return respond(json_answer(await services_of(request).engine.state()))
