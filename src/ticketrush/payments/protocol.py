"""What a payment gateway promises.

A gateway is told of a charge. It answers at once whether the money was taken (APPROVED, DECLINED), or
that this will be known later (PENDING), and then tells it by a webhook. Nothing here knows which
of the two a gateway does: who asks for a charge must take both.
"""

from __future__ import annotations

import enum
from typing import Annotated, Literal, Protocol, TypeAlias

import msgspec

from ticketrush.errors import TicketrushError

Name: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=128, pattern=r"^[!-~]+\Z")]
"""The id of a charge or of an order, from whoever tells it."""


class GatewayUnavailable(TicketrushError):
    """The gateway did not answer. What it was asked may or may not have happened; ask again, it is safe."""


class ChargeState(enum.StrEnum):
    """Where the money is: PENDING -> APPROVED -> REFUNDED, PENDING -> DECLINED."""

    PENDING = "pending"
    APPROVED = "approved"
    DECLINED = "declined"
    REFUNDED = "refunded"


class Charge(msgspec.Struct, frozen=True, gc=False):
    """An attempt to take money for an order, in minor units of a currency (ISO 4217)."""

    id: Name
    order: Name
    amount_minor: int
    currency: str
    state: ChargeState


class Gateway(Protocol):
    """Takes money for orders and gives it back. Every call ends within a bounded time.

    All calls may be repeated. Each raises GatewayUnavailable when there is no answer: it is not known then
    what happened, and repeating the call finds out.
    """

    async def charge(self, order: str, amount_minor: int, currency: str, card: str, delay_ms: int) -> Charge:
        """Try to take the money. An order whose last charge is pending or approved gets that one, no other."""
        ...

    async def refund(self, payment: str) -> Charge | None:
        """Give back what the charge of this id took; repeating it is harmless.

        The charge, REFUNDED; None if it took nothing or is not known. Who gets None must not take it for done.
        """
        ...

    async def read(self, payment: str) -> Charge | None:
        """The charge of this id as it is now; None if the gateway knows none."""
        ...

    async def latest(self, order: str) -> Charge | None:
        """The last charge of an order; None if the gateway knows none."""
        ...

    async def close(self) -> None:
        """Let connections go. May be called twice."""
        ...


Flaw: TypeAlias = Literal["", "signature", "timestamp"]
"""What is wrong with a webhook; "" is nothing."""


class Verifies(Protocol):
    """Knows who sent a webhook."""

    def flaw(self, body: bytes, id: bytes | None, timestamp: bytes | None, signatures: bytes | None) -> Flaw:
        """What is wrong with `body` and these headers, as they came; "" if they are the gateway's, and not too old."""
        ...
