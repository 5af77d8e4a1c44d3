"""What a gateway tells by webhook: the JSON of the message, and what becomes of it."""

from __future__ import annotations

import enum
from typing import Annotated, Final

import msgspec

from ticketrush.clock import iso
from ticketrush.payments.protocol import Charge, ChargeState, Name


class Told(enum.StrEnum):
    """What happened to a payment."""

    APPROVED = "payment.approved"
    DECLINED = "payment.declined"
    REFUNDED = "payment.refunded"


class Payment(msgspec.Struct, frozen=True, gc=False):
    """Which payment, of which order, of how much: minor units of a currency (ISO 4217)."""

    payment: Name
    order: Name
    amount_minor: Annotated[int, msgspec.Meta(ge=0, le=10**15)]
    currency: Annotated[str, msgspec.Meta(pattern=r"^[A-Z]{3}\Z")]


class Notice(msgspec.Struct, frozen=True, gc=False):
    """A message as it is sent: `timestamp` is when it happened, ISO 8601. Other fields are let pass."""

    type: str
    timestamp: str
    data: Payment


class Kind(msgspec.Struct, frozen=True, gc=False):
    """No more of a message than what it is about."""

    type: Annotated[str, msgspec.Meta(max_length=128)]


_TOLD: Final = {
    ChargeState.APPROVED: Told.APPROVED,
    ChargeState.DECLINED: Told.DECLINED,
    ChargeState.REFUNDED: Told.REFUNDED,
}
_notice: Final = msgspec.json.Decoder(Notice).decode
_kind: Final = msgspec.json.Decoder(Kind).decode
_known: Final = frozenset(map(str, Told))


def read(body: bytes) -> Notice | None:
    """The message in `body`; None for one of a kind that is not about payments as we know them.

    Raises:
        msgspec.DecodeError, UnicodeDecodeError, RecursionError: it is none, or one with a wrong value.
    """
    return _notice(body) if _kind(body).type in _known else None


def write(charge: Charge, now_ms: int) -> bytes:
    """The message that tells of `charge`, whose state is not PENDING; `now_ms` is when it got into it."""
    timestamp = iso(now_ms)
    payment = Payment(charge.id, charge.order, charge.amount_minor, charge.currency)
    return msgspec.json.encode(Notice(_TOLD[charge.state].value, timestamp, payment))
