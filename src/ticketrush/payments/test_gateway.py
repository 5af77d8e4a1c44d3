"""A payment gateway for trying things out: it approves, declines or is late, as asked.

No money moves. It lives in the process and forgets with it; a reservation that it settled stays
settled in the ledger. It never answers "pending": a late charge is one that it takes long to answer.
`ticketrush.payments.service` is the same as a process of its own, with webhooks.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from typing import Final

import msgspec

from ticketrush.payments.cards import DECLINE, delay_of
from ticketrush.payments.protocol import Charge, ChargeState

CHARGES_MAX: Final = 100_000
"""Charges it remembers; the oldest are forgotten first."""


class TestGateway:
    """A `Gateway` whose cards are "approve", "decline" and "late" (approves after a delay)."""

    __test__ = False  # not a test class, whatever its name begins with

    def __init__(self) -> None:
        self._charges: OrderedDict[str, Charge] = OrderedDict()
        self._latest: dict[str, str] = {}
        """Order -> id of its last charge."""

    async def charge(self, order: str, amount_minor: int, currency: str, card: str, delay_ms: int) -> Charge:
        """See `Gateway.charge`. Raises InvalidRequest for a card that is none of `cards.CARDS`."""
        if late_ms := delay_of(card, delay_ms):
            await asyncio.sleep(late_ms / 1_000)
        before = await self.latest(order)
        if before is not None and before.state is ChargeState.APPROVED:
            return before
        state = ChargeState.DECLINED if card == DECLINE else ChargeState.APPROVED
        made = self._keep(Charge(f"ch_{secrets.token_hex(12)}", order, amount_minor, currency, state))
        self._latest[order] = made.id
        return made

    async def refund(self, payment: str) -> Charge | None:
        """See `Gateway.refund`. A charge of another process, or of before a restart, took no money either."""
        charge = self._charges.get(payment)
        if charge is None:
            return Charge(payment, "", 0, "", ChargeState.REFUNDED)
        if charge.state is ChargeState.DECLINED:
            return None
        return self._keep(msgspec.structs.replace(charge, state=ChargeState.REFUNDED))

    async def read(self, payment: str) -> Charge | None:
        """See `Gateway.read`."""
        return self._charges.get(payment)

    async def latest(self, order: str) -> Charge | None:
        """See `Gateway.latest`."""
        return self._charges.get(self._latest.get(order, ""))

    async def close(self) -> None:
        """See `Gateway.close`."""

    def _keep(self, charge: Charge) -> Charge:
        self._charges[charge.id] = charge
        if len(self._charges) > CHARGES_MAX:
            _, oldest = self._charges.popitem(last=False)
            if self._latest.get(oldest.order) == oldest.id:
                del self._latest[oldest.order]
        return charge
