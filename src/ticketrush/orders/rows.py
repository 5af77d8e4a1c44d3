"""Notices as rows that a store can write, rows as orders, and what a refusal means in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, Final, TypeAlias

from ticketrush.orders.errors import NoticeRefused
from ticketrush.orders.model import Claim, Kind, Notice, Order, OrderState

Row: TypeAlias = Sequence[str | int | None]
"""id, sale, item, buyer, quantity, expires_at, amount_minor, currency, key, payment, held_at, paid_at, cancelled_at,
expired_at, refunded_at: None for what a batch does not tell."""

COLUMNS: Final = 15

_CLAIM: Final = slice(1, 9)
_PAYMENT: Final = 9
_HELD: Final = 10
_TIME: Final = {Kind.HELD: _HELD, Kind.PAID: 11, Kind.CANCELLED: 12, Kind.EXPIRED: 13, Kind.REFUNDED: 14}
"""Where a row has what."""

_NOTHING: Final = (None,) * (COLUMNS - 1)

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


def rows_of(notices: Iterable[Notice]) -> list[list[str | int | None]]:
    """One row for each order that the notices are about, in the order of the ids.

    Everybody writes in this order, so that no two of them wait for each other.

    Raises:
        NoticeRefused: notices contradict each other, or hold what no store can write.
    """
    rows: dict[str, list[str | int | None]] = {}
    for notice in notices:
        row = rows.get(notice.order)
        if row is None:
            row = rows[notice.order] = [notice.order, *_NOTHING]
        _add(row, notice)
    return sorted(rows.values(), key=itemgetter(0))


def parted(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Rows that tell a claim, and of the others what they can tell: id, payment, and the times after held."""
    claims: list[Row] = []
    more: list[Row] = []
    for row in rows:
        if row[_HELD] is not None:
            claims.append(row)
        else:
            more.append((row[0], row[_PAYMENT], *row[_HELD + 1 :]))
    return claims, more


def _add(row: list[str | int | None], notice: Notice) -> None:
    """Take a notice in; a repetition changes nothing, and another time of the same thing is one."""
    column, claim, payment = _TIME[notice.kind], notice.claim, notice.payment
    is_first, texts = row[column] is None, notice.order
    if is_first:
        row[column] = notice.at_ms
    if claim is not None:
        said: list[str | int | None] = [
            claim.sale,
            claim.item,
            claim.buyer,
            claim.quantity,
            claim.expires_at_ms,
            claim.amount_minor,
            claim.currency,
            claim.key,
        ]
        if not is_first and row[_CLAIM] != said:
            raise refusal(notice.order, "orders_written_once")
        row[_CLAIM] = said
        texts += claim.sale + claim.item + claim.buyer + claim.currency + claim.key
    if payment:
        if not is_first and row[_PAYMENT] != payment:
            raise refusal(notice.order, "orders_written_once")
        row[_PAYMENT] = payment
        texts += payment
    if "\0" in texts:
        raise NoticeRefused(f"order {notice.order!r} is refused: PostgreSQL cannot store a NUL character in a text")


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
