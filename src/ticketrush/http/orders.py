"""A buyer's orders, from the order store: what the worker has written of them so far."""

from __future__ import annotations

import asyncio
from typing import Annotated, Final, Literal

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from ticketrush import logs
from ticketrush.clock import iso
from ticketrush.http.answers import json_answer
from ticketrush.http.openapi import describe
from ticketrush.http.problems import problem
from ticketrush.http.requests import buyer_of, respond, services_of
from ticketrush.orders.errors import StoreOutdated, StoreUnavailable
from ticketrush.orders.model import Order

router = APIRouter()

LIMIT_MAX: Final = 100

RECORD_S: Final = 0.5
"""How long the store may take to say whether it has an order: who reads one, or has paid, waits no longer."""

LIST_S: Final = 5.0
"""How long it may take to list orders."""

log = logs.get("ticketrush.http")
away = logs.Seldom(log, "orders_away")

_AWAY: Final = "The order store does not answer now; try again. Each order is at /v1/orders/{id} all the same."

Record = Literal["stored", "pending", "not_kept"]
"""Whether an order is in the store: it is, it will be in a moment, or this server keeps none."""


class StoredOrderView(msgspec.Struct, frozen=True, gc=False):
    """An order as the store has it. `ended_at` is when it was cancelled or so.

    `number` is its place in the store, by which pages are asked for; a store made anew has others. Quote the id.
    """

    id: str
    number: int
    state: str
    sale: str
    item: str
    quantity: int
    amount_minor: int
    currency: str
    payment: str
    held_at: str
    expires_at: str
    paid_at: str | None
    ended_at: str | None

    @classmethod
    def of(cls, order: Order) -> StoredOrderView:
        """The view of a complete order."""
        claim = order.claim
        assert claim is not None, "incomplete orders are not shown"
        assert order.held_at_ms is not None
        ended_at_ms = order.cancelled_at_ms or order.expired_at_ms or order.refunded_at_ms
        return cls(
            order.id,
            order.number,
            order.state.value,
            claim.sale,
            claim.item,
            claim.quantity,
            claim.amount_minor,
            claim.currency,
            order.payment,
            iso(order.held_at_ms),
            iso(claim.expires_at_ms),
            iso(order.paid_at_ms) if order.paid_at_ms is not None else None,
            iso(ended_at_ms) if ended_at_ms is not None else None,
        )


class OrdersView(msgspec.Struct, frozen=True, gc=False):
    """A page of orders, newest first. `next` is what to send as `before` for the next page; null at the end."""

    orders: list[StoredOrderView]
    next: int | None


@router.get(
    "/v1/orders",
    summary="List your orders",
    openapi_extra=describe(None, {200: OrdersView}, {"unauthorized", "invalid_request", "orders_not_kept"}),
)
async def list_orders(
    request: Request,
    before: Annotated[int | None, Query(ge=1, le=2**53, description="Only orders with lower numbers.")] = None,
    limit: Annotated[int, Query(ge=1, le=LIMIT_MAX, description="Orders at most.")] = 20,
) -> Response:
    """Your orders, newest first.

    An order is written a moment after its reservation was answered: one that is not here yet is at
    `/v1/orders/{id}` already, where `order` says `pending`.
    """
    buyer = buyer_of(request)
    store = services_of(request).orders
    if store is None:
        return respond(problem("orders_not_kept"))
    try:
        async with asyncio.timeout(LIST_S):
            orders = await store.orders_of(buyer, before=before, limit=limit)
    except (StoreUnavailable, StoreOutdated, TimeoutError) as error:
        away.warning(error=str(error) or f"no answer within {LIST_S:g} s")
        return respond(problem("unavailable", _AWAY, (b"retry-after", b"1")))
    last = orders[-1].number if len(orders) == limit else None
    return respond(json_answer(OrdersView([StoredOrderView.of(order) for order in orders], last)))


async def record_of(request: Request, id: str) -> tuple[Record, int | None]:
    """Whether the store has an order (of a reservation that exists), and its number."""
    store = services_of(request).orders
    if store is None:
        return "not_kept", None
    try:
        async with asyncio.timeout(RECORD_S):
            order = await store.order(id)
    except (StoreUnavailable, StoreOutdated, TimeoutError) as error:  # the ledger's answer is one all the same
        away.warning(error=str(error) or f"no answer within {RECORD_S:g} s")
        return "pending", None
    return ("pending", None) if order is None or order.claim is None else ("stored", order.number)
