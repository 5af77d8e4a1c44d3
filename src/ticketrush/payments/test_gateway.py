"""A payment gateway for trying things out: it approves, declines or is late, as asked.

No money moves. It lives in the process and forgets with it; a reservation that it settled stays
settled in the ledger.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from typing import Final

import msgspec

from ticketrush.payments.protocol import Charge, ChargeState

CHARGES_MAX: Final = 100_000
"""Charges it remembers; the oldest are forgotten first."""

LATE_MS: Final = 2_000
"""How late the card "late" is when no delay is asked for."""

CARDS: Final = ("approve", "decline", "late")


class TestGateway:
    """A `Gateway` whose cards are "approve", "decline" and "late" (approves after a delay)."""

    __test__ = False  # not a test class, whatever its name begins with

    def __init__(self) -> None:
        self._charges: OrderedDict[str, Charge] = OrderedDict()

    async def charge(self, order: str, amount_minor: int, currency: str, card: str, delay_ms: int) -> Charge:
        """See `Gateway.charge`."""
        if card == "late":
            delay_ms = delay_ms or LATE_MS
        if delay_ms:
            await asyncio.sleep(delay_ms / 1_000)
        before = self._charges.get(order)
        if before is not None and before.state is ChargeState.APPROVED:
            return before
        state = ChargeState.DECLINED if card == "decline" else ChargeState.APPROVED
        return self._keep(Charge(f"ch_{secrets.token_hex(12)}", order, amount_minor, currency, state))

    async def refund(self, order: str) -> Charge | None:
        """See `Gateway.refund`."""
        charge = self._charges.get(order)
        if charge is None or charge.state is ChargeState.DECLINED:
            return None
        return self._keep(msgspec.structs.replace(charge, state=ChargeState.REFUNDED))

    def latest(self, order: str) -> Charge | None:
        """See `Gateway.latest`."""
        return self._charges.get(order)

    def _keep(self, charge: Charge) -> Charge:
        self._charges[charge.order] = charge
        self._charges.move_to_end(charge.order)
        if len(self._charges) > CHARGES_MAX:
            self._charges.popitem(last=False)
        return charge
