"""Notices as rows that a store can write, rows as orders, and what a refusal means in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, Final, TypeAlias

from ticketrush.orders.errors import NoticeRefused
from ticketrush.orders.model import Claim, Kind, Notice, Order, OrderState, Patch, fold

Row: TypeAlias = tuple[str | int | None, ...]
"""id, sale, item, buyer, quantity, expires_at, amount_minor, currency, payment, held_at, paid_at, cancelled_at,
expired_at, refunded_at: None for what a batch does not tell."""

COLUMNS: Final = 14

_NO_CLAIM: Final = (None,) * 7

_REASONS: Final = {
    "orders_written_once": "another claim or payment is known already, and what was written does not change",
    "orders_stay": "orders are never removed",
    "orders_one_end": "an order is paid, cancelled or expired, and only one of them",
    "orders_refund_of_paid": "an order that was cancelled or has expired cannot be refunded",
    "orders_whole_claim": "the claim has a gap",
    "orders_whole_payment": "paid and payment come together",
    "orders_amounts": "a quantity is 1 at least, an amount 0",
}


def refusal(order: object, constraint: str) -> NoticeRefused:
    """The error for an order that a constraint refuses."""
    return NoticeRefused(f"order {order} is refused: {_REASONS.get(constraint, constraint)}")


def rows_of(notices: Iterable[Notice]) -> list[Row]:
    """One row for each order that the notices are about, in the order of the ids.

    Everybody writes in this order, so that no two of them wait for each other.

    Raises:
        NoticeRefused: notices contradict each other, or hold what no store can write.
    """
    rows = [_row(patch) for patch in fold(notices)]
    rows.sort(key=itemgetter(0))
    return rows


def _row(patch: Patch) -> Row:
    claim, times = patch.claim, patch.times.get
    texts = patch.order + patch.payment
    if claim is not None:
        texts += claim.sale + claim.item + claim.buyer + claim.currency
    if "\0" in texts:
        raise NoticeRefused(f"order {patch.order!r} is refused: PostgreSQL cannot store a NUL character in a text")
    return (
        patch.order,
        *(_NO_CLAIM if claim is None else _said(claim)),
        patch.payment or None,
        times(Kind.HELD),
        times(Kind.PAID),
        times(Kind.CANCELLED),
        times(Kind.EXPIRED),
        times(Kind.REFUNDED),
    )


def _said(claim: Claim) -> Row:
    return (
        claim.sale,
        claim.item,
        claim.buyer,
        claim.quantity,
        claim.expires_at_ms,
        claim.amount_minor,
        claim.currency,
    )


def order_of(row: Sequence[Any]) -> Order:
    """An order from id, number and state, and then the columns of a `Row` after the id."""
    id, number, state, *claim, payment, held, paid, cancelled, expired, refunded = row
    return Order(
        id,
        number,
        OrderState(state),
        None if claim[0] is None else Claim(*claim),
        payment or "",
        held,
        paid,
        cancelled,
        expired,
        refunded,
    )
