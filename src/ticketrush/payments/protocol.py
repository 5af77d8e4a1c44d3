"""What a payment gateway promises."""

from __future__ import annotations

import enum
from typing import Protocol

import msgspec


class ChargeState(enum.StrEnum):
    """Where the money is."""

    APPROVED = "approved"
    DECLINED = "declined"
    REFUNDED = "refunded"


class Charge(msgspec.Struct, frozen=True, gc=False):
    """An attempt to take money for an order, in minor units of a currency (ISO 4217)."""

    id: str
    order: str
    amount_minor: int
    currency: str
    state: ChargeState


class Gateway(Protocol):
    """Takes money for orders and gives it back."""

    async def charge(self, order: str, amount_minor: int, currency: str, card: str, delay_ms: int) -> Charge:
        """Try to take the money. An order that has an approved charge is not charged again: it gets that one."""
        ...

    async def refund(self, payment: str) -> Charge | None:
        """Give back what the charge of this id took; repeating it is harmless. None if it took nothing."""
        ...

    def latest(self, order: str) -> Charge | None:
        """The last charge of an order."""
        ...
