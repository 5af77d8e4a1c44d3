"""Notices as rows that a store can write, rows as orders, and what a refusal means in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeAlias

from msgspec.structs import astuple

from ticketrush.orders.errors import NoticeRefused
from ticketrush.orders.model import Claim, Kind, Notice, Order, OrderState

Row: TypeAlias = tuple[str | int | None, ...]
"""id, sale, item, buyer, quantity, expires_at, amount_minor, currency, key, payment, held_at, paid_at, cancelled_at,
expired_at, refunded_at: None for what a batch does not tell."""

COLUMNS: Final = 15

_CLAIM: Final = slice(1, 9)
_PAYMENT: Final = slice(9, 10)
_HELD: Final = 10
_PAID: Final = 11
"""Where a row has what."""

_NO_CLAIM: Final = (None,) * 8

_TIMES: Final = (Kind.HELD, Kind.PAID, Kind.CANCELLED, Kind.EXPIRED, Kind.REFUNDED)
"""Whose times a row has, in this order, behind the payment."""

_OTHER_TIMES: Final = {
    kind: ((None,) * place, (None,) * (len(_TIMES) - 1 - place)) for place, kind in enumerate(_TIMES)
}
"""What a row with one time has before and after it."""

_UNWRITABLE: Final = re.compile("[\0\ud800-\udfff]")

_REASONS: Final = {
    "orders_written_once": "another claim or payment is known already, and what was written does not change",
    "orders_stay": "orders are never removed",
    "orders_one_end": "an order is paid, cancelled or expired, and only one of them",
    "orders_refund_of_paid": "an order that was cancelled or has expired cannot be refunded",
    "orders_whole_claim": "the claim has a gap",
    "orders_whole_payment": "paid and payment come together",
    "orders_amounts": "a quantity is 1 at least, an amount 0",
}


def clean(said: str) -> str:
    """A text from anywhere, as every store can write it: without NUL, and without halves of surrogate pairs."""
    return _UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", said)


def refusal(order: object, constraint: str) -> NoticeRefused:
    """The error for an order that a constraint refuses."""
    return NoticeRefused(f"order {order} is refused: {_REASONS.get(constraint, constraint)}")


def rows_of(notices: Iterable[Notice]) -> list[Row]:
    """One row for each order that the notices are about, in the order of the ids.

    Everybody writes in this order, so that no two of them wait for each other.

    Raises:
        NoticeRefused: notices contradict each other, or hold what no store can write.
    """
    rows: dict[str, Row] = {}
    for notice in notices:
        row, known = _row(notice), rows.get(notice.order)
        rows[notice.order] = row if known is None else _merged(known, row)
    return [rows[id] for id in sorted(rows)]


def parted(rows: Iterable[Row]) -> tuple[list[Row], list[Row]]:
    """Rows that tell a claim, and of the others what they can tell: id, payment, and the times after held."""
    claims: list[Row] = []
    more: list[Row] = []
    for row in rows:
        if row[_HELD] is not None:
            claims.append(row)
        else:
            more.append((row[0], *row[_PAYMENT], *row[_PAID:]))
    return claims, more


def _row(notice: Notice) -> Row:
    """What one notice tells. Raises NoticeRefused."""
    claim = notice.claim
    texts = notice.order + notice.payment
    if claim is not None:
        texts += claim.sale + claim.item + claim.buyer + claim.currency + claim.key
    if (found := _UNWRITABLE.search(texts)) is not None:
        raise NoticeRefused(f"order {notice.order!r} is refused: no store can write {found[0]!r} in a text")
    said = _NO_CLAIM if claim is None else astuple(claim)
    before, after = _OTHER_TIMES[notice.kind]
    return (notice.order, *said, notice.payment or None, *before, notice.at_ms, *after)


def _merged(known: Row, new: Row) -> Row:
    """Both of one order; a repetition changes nothing, and another time of the same thing is one.

    Raises:
        NoticeRefused: they tell different claims or payments.
    """
    for what, time in (_CLAIM, _HELD), (_PAYMENT, _PAID):
        if known[time] is not None and new[time] is not None and known[what] != new[what]:
            raise refusal(known[0], "orders_written_once")
    return tuple(after if before is None else before for before, after in zip(known, new, strict=True))


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
