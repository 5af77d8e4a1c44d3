"""The calls of buyers: reservations, orders, payments, and the articles' demo call."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response

from ticketrush import model as m
from ticketrush.cashier import Cashier, PaymentState, Settlement
from ticketrush.clock import iso
from ticketrush.http.answers import ReservationView, json_answer
from ticketrush.http.openapi import describe
from ticketrush.http.orders import Record, record_of
from ticketrush.http.problems import problem
from ticketrush.http.purchase import PurchaseBody
from ticketrush.http.requests import (
    ReservationId,
    SaleId,
    header,
    own_reservation,
    read_body,
    read_json,
    refuse,
    respond,
    services_of,
)
from ticketrush.model import Refused, State

router = APIRouter()
demo_router = APIRouter()


class PaymentBody(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """How to pay. The gateway says which cards there are: at the test gateway approve, decline, and late."""

    card: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,128}$")]
    delay_ms: Annotated[int, msgspec.Meta(ge=0, le=30_000)] = 0


class PaymentView(msgspec.Struct, frozen=True, gc=False):
    """A payment: approved, declined, refunded, pending, or none; and its id."""

    state: Literal["approved", "declined", "refunded", "pending", "none"]
    id: str = ""


class OrderView(msgspec.Struct, frozen=True, gc=False):
    """An order: the business side of a reservation of the same id.

    `order` says whether it is written into the order store: stored, with its `number`; pending, for a moment;
    or not_kept, where the server has no such store.
    """

    id: str
    sale: str
    item: str
    quantity: int
    state: str
    amount_minor: int
    currency: str
    held_at: str
    expires_at: str
    paid_at: str | None
    payment: PaymentView
    replaced_by: str | None
    order: Record
    number: int | None


class PaidView(msgspec.Struct, frozen=True, gc=False):
    """What came of a payment, and the order as it is now."""

    order: OrderView
    payment: PaymentView


_payment_body = msgspec.json.Decoder(PaymentBody)

_TAKEN = {"unknown_sale", "unknown_item", "sold_out", "all_held", "purchase_limit", "not_open", "closed"}


@router.post(
    "/v1/sales/{sale}/reservations",
    summary="Reserve units",
    openapi_extra=describe(
        PurchaseBody,
        {201: ReservationView, 200: ReservationView},
        _TAKEN | {"unauthorized", "malformed", "invalid_request", "body_too_large", "overloaded"},
        key="optional",
    ),
)
async def reserve(request: Request, sale: SaleId) -> Response:
    """Hold units of an item, all or nothing, until `expires_at`.

    With an `Idempotency-Key` the call may be repeated: it answers 200 with the first reservation.
    When nothing can be bought, the answer comes before a token is looked at.
    """
    services = services_of(request)
    purchases = services.lane.purchases
    body = await read_body(request)
    asked = purchases.ask(
        sale,
        body,
        header(request, b"idempotency-key"),
        header(request, b"authorization"),
        header(request, b"x-buyer"),
    )
    if isinstance(asked, Refused):
        return respond(purchases.turn_away(asked))
    return respond(purchases.answer(await services.engine.execute(asked)))


@router.get(
    "/v1/reservations/{id}",
    summary="Read a reservation",
    openapi_extra=describe(None, {200: ReservationView}, {"unauthorized", "unknown_reservation"}),
)
async def read_reservation(request: Request, id: ReservationId) -> Response:
    """The state of one of your reservations."""
    return respond(json_answer(ReservationView.of(await own_reservation(request, id))))


@router.delete(
    "/v1/reservations/{id}",
    summary="Cancel a reservation",
    openapi_extra=describe(None, {200: ReservationView}, {"unauthorized", "unknown_reservation", "wrong_state"}),
)
async def cancel(request: Request, id: ReservationId) -> Response:
    """Give the held units back. Repeating it is harmless."""
    reservation = await own_reservation(request, id)
    outcome = await services_of(request).engine.cancel(reservation.id)
    if isinstance(outcome, Refused):
        return refuse(request, outcome)
    return respond(json_answer(ReservationView.of(outcome.reservation)))


@router.get(
    "/v1/orders/{id}",
    summary="Read an order",
    openapi_extra=describe(None, {200: OrderView}, {"unauthorized", "unknown_order"}),
)
async def read_order(request: Request, id: ReservationId) -> Response:
    """One of your orders: what it costs and how its payment stands."""
    return respond(json_answer(await order_of(request, await own_reservation(request, id, "unknown_order"))))


@router.post(
    "/v1/orders/{id}/payment",
    summary="Pay an order",
    openapi_extra=describe(
        PaymentBody,
        {200: PaidView, 202: PaidView},
        {
            "unauthorized",
            "unknown_order",
            "wrong_state",
            "payment_declined",
            "payment_refunded",
            "payment_unknown",
            "malformed",
            "invalid_request",
            "body_too_large",
            "overloaded",
        },
    ),
)
async def pay(request: Request, id: ReservationId) -> Response:
    """Pay for a reservation. Repeating it is harmless: what is paid is not charged again.

    202 means that the gateway has not answered yet; read the order to see what came of it. If the
    hold has ended meanwhile, the units are reserved again under a new id (`replaced_by`), or the
    money is given back.
    """
    reservation = await own_reservation(request, id, "unknown_order")
    body = await read_json(request, _payment_body)
    settlement = await services_of(request).cashier.pay(reservation, body.card, body.delay_ms)
    return await _settled(request, settlement, id)


async def _settled(request: Request, settlement: Settlement, id: str) -> Response:
    state = settlement.state
    if state is PaymentState.BUSY:
        return respond(problem("overloaded", "", (b"retry-after", b"1")))
    if state is PaymentState.UNKNOWN:
        return respond(problem("payment_unknown", "", (b"retry-after", b"1")))
    if state is PaymentState.DECLINED:
        return respond(problem("payment_declined"))
    if state is PaymentState.REFUNDED:
        return respond(problem("payment_refunded"))
    if state is PaymentState.REFUSED:
        return refuse(request, Refused(m.Reason.WRONG_STATE, reservation=settlement.reservation))
    paid = settlement.reservation
    if paid.id != id:  # the units were reserved again: the order asked for tells by which reservation
        paid = await services_of(request).engine.reservation(id) or paid
    order = await order_of(request, paid)
    if state is PaymentState.PENDING:
        return respond(json_answer(PaidView(order, PaymentView("pending", settlement.payment)), 202))
    return respond(json_answer(PaidView(order, PaymentView("approved", settlement.payment))))


async def order_of(request: Request, reservation: m.Reservation) -> OrderView:
    """The order of a reservation."""
    cashier = services_of(request).cashier
    amount_minor, currency = cashier.price(reservation)
    replaced_by = None
    if reservation.state is State.EXPIRED:
        replacement = await cashier.replacement(reservation)
        replaced_by = replacement.id if replacement else None
    payment = await _payment_of(cashier, reservation)
    record, number = await record_of(request, reservation.id)
    return OrderView(
        reservation.id,
        reservation.sale,
        reservation.item,
        reservation.quantity,
        reservation.state,
        amount_minor,
        currency,
        iso(reservation.held_at_ms),
        iso(reservation.expires_at_ms),
        iso(reservation.changed_at_ms) if reservation.state is State.PAID else None,
        payment,
        replaced_by,
        record,
        number,
    )


async def _payment_of(cashier: Cashier, reservation: m.Reservation) -> PaymentView:
    """How the order's payment stands: the ledger knows of what is paid, the gateway of all else.

    It is "none" also when the gateway does not say so in time; the order does not wait for it.
    """
    if reservation.payment:
        return PaymentView("refunded" if reservation.state is State.REFUNDED else "approved", reservation.payment)
    if cashier.is_pending(reservation.id):
        return PaymentView("pending")
    charge = await cashier.charge_of(reservation)
    return PaymentView("none") if charge is None else PaymentView(charge.state.value, charge.id)


@demo_router.api_route("/buy/ticket", methods=["GET", "POST"], summary="The articles' call", include_in_schema=False)
async def buy_ticket(request: Request) -> Response:
    """One anonymous ticket of the demo sale: code 1 is a ticket, code -1 is sold out."""
    demo = services_of(request).demo
    assert demo is not None
    async for _ in request.stream():
        pass  # a request that turns out to be malformed buys nothing
    return respond(await demo.buy())
