"""What an order is, and what is told of it.

An order has the id of its reservation. It is made from *notices*: facts about one reservation, taken
from the ledger's events. A reservation has at most one notice of each kind, so its id and the kind
together are the notice's id, and the times of an order are written once and never changed. That is
why notices may come more than once, late, and in any order, and lead to the same order.
"""

from __future__ import annotations

import enum
from typing import Annotated, Final

import msgspec


class Kind(enum.StrEnum):
    """What a notice tells."""

    HELD = "held"
    PAID = "paid"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REFUNDED = "refunded"


class OrderState(enum.StrEnum):
    """Where an order stands. INCOMPLETE: something that was before is not known yet."""

    INCOMPLETE = "incomplete"
    HELD = "held"
    PAID = "paid"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REFUNDED = "refunded"


_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]


class Claim(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """What was reserved, by whom, until when (UTC milliseconds), and what it costs in minor units (ISO 4217).

    `key` is the idempotency key that it was asked for with; "" if there was none.
    """

    sale: _Id
    item: _Id
    buyer: _Id
    quantity: Annotated[int, msgspec.Meta(ge=1, le=1_000)]
    expires_at_ms: _Time
    amount_minor: Annotated[int, msgspec.Meta(ge=0, le=10**15)]
    currency: Annotated[str, msgspec.Meta(pattern="^[A-Z]{3}$")]
    key: Annotated[str, msgspec.Meta(max_length=200)] = ""


class Notice(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True, omit_defaults=True):
    """One fact about a reservation: `claim` comes with HELD, `payment` with PAID, and with nothing else."""

    order: _Id
    kind: Kind
    at_ms: _Time
    claim: Claim | None = None
    payment: Annotated[str, msgspec.Meta(max_length=200)] = ""

    def __post_init__(self) -> None:
        if (self.claim is not None) != (self.kind is Kind.HELD):
            raise ValueError("a claim comes with held, and only with it")
        if bool(self.payment) != (self.kind is Kind.PAID):
            raise ValueError("a payment comes with paid, and only with it")

    @property
    def id(self) -> str:
        """Which fact it is: the same one always has the same id."""
        return f"{self.order}/{self.kind.value}"


class Order(msgspec.Struct, frozen=True, gc=False):
    """An order as the store has it; times are UTC milliseconds, None for what has not happened.

    `number` counts orders up in the order in which the store first heard of them, with gaps, and those of
    one batch in the order of their ids. `claim` is None only while `state` is INCOMPLETE.
    """

    id: str
    number: int
    state: OrderState
    claim: Claim | None
    payment: str = ""
    held_at_ms: int | None = None
    paid_at_ms: int | None = None
    cancelled_at_ms: int | None = None
    expired_at_ms: int | None = None
    refunded_at_ms: int | None = None


PAYLOAD_MAX: Final = 64 * 1024
"""Bytes of a message that a dead letter keeps; more is cut off."""


class DeadLetter(msgspec.Struct, frozen=True, gc=False):
    """A message that cannot become part of an order: where it came from, what it said, and why not.

    `where` names it in its source (topic/partition/offset, stream/entry) and, by a checksum, what it says: once and
    for all.
    """

    where: str
    payload: bytes
    error: str
    at_ms: int
    number: int = 0
    """Given by the store."""


class Repair(msgspec.Struct, frozen=True, gc=False):
    """A difference between ledger and store that was put right: which order, what it was and became, and why."""

    order: str
    before: str
    after: str
    reason: str
    at_ms: int
