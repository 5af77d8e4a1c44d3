"""How a reservation is paid: a charge at the gateway, then its settlement in the ledger.

The gateway answers at once, or tells by a webhook later. Both settle the payment by the same steps
(`settlement`), at the same time if it so happens; so it does not matter which of them comes first, or
whether this process lives to hear the answer. Whatever happens, money is not kept without a ticket.
"""

from __future__ import annotations

import asyncio
import enum
from typing import Final

import msgspec

from ticketrush import logs
from ticketrush import model as m
from ticketrush.engine import Engine
from ticketrush.errors import LedgerUnavailable
from ticketrush.model import Refused, State
from ticketrush.payments.notices import Payment, Told
from ticketrush.payments.protocol import Charge, ChargeState, Gateway, GatewayUnavailable
from ticketrush.settlement import LATE_KEY, Effect, Settled, Settler

__all__ = ["LATE_KEY", "Cashier", "Mismatch", "PaymentState", "Settlement"]

PENDING_MAX: Final = 10_000
"""Payments under way at once; past it a payment is refused before money moves."""

WAIT_S: Final = 1.0
"""How long `pay` waits for the gateway before it answers PENDING; the payment goes on."""

ASK_AGAIN_S: Final = 0.25
"""How long to wait before a ledger or a gateway that did not answer is asked again."""

log = logs.get("ticketrush.payments")


class Mismatch(enum.StrEnum):
    """Why news of a payment is not believed; the values are codes of the HTTP API."""

    UNKNOWN_ORDER = "unknown_order"
    WRONG_AMOUNT = "payment_mismatch"


class PaymentState(enum.StrEnum):
    """How a payment stands."""

    APPROVED = "approved"
    DECLINED = "declined"
    REFUNDED = "refunded"
    PENDING = "pending"
    REFUSED = "refused"
    BUSY = "busy"
    UNKNOWN = "unknown"
    """The gateway did not answer. If it took the money its webhook settles that; paying again is safe."""


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """Where a payment led: its state, its id, and the reservation as it is now.

    The reservation is another one than asked for if the hold was gone and the units were reserved again.
    """

    state: PaymentState
    reservation: m.Reservation
    payment: str = ""


class Cashier:
    """Takes payments for one engine through one gateway."""

    def __init__(self, engine: Engine, gateway: Gateway) -> None:
        self._engine = engine
        self._gateway = gateway
        self._settler = Settler(engine, gateway)
        self._pending: dict[str, asyncio.Task[Settlement]] = {}

    async def pay(self, reservation: m.Reservation, card: str, delay_ms: int = 0) -> Settlement:
        """Pay for `reservation`. A second payment while one is under way joins the first.

        Returns after at most about a second; PENDING means the payment goes on by itself.
        """
        if reservation.state is State.EXPIRED and (again := await self.replacement(reservation)) is not None:
            if again.state is State.PAID:
                return Settlement(PaymentState.APPROVED, again, again.payment)
            if again.state is not State.HELD:
                return Settlement(PaymentState.REFUSED, again)
        task = self._pending.get(reservation.id)
        if task is None:
            if reservation.state is State.PAID:
                return Settlement(PaymentState.APPROVED, reservation, reservation.payment)
            if reservation.state not in {State.HELD, State.EXPIRED}:
                return Settlement(PaymentState.REFUSED, reservation)
            if len(self._pending) >= PENDING_MAX:
                return Settlement(PaymentState.BUSY, reservation)
            task = asyncio.get_running_loop().create_task(self._charge(reservation, card, delay_ms))
            self._pending[reservation.id] = task
            task.add_done_callback(lambda _: self._pending.pop(reservation.id, None))
        done, _ = await asyncio.wait((task,), timeout=WAIT_S)
        return task.result() if done else Settlement(PaymentState.PENDING, reservation)

    async def told(self, told: Told, payment: Payment) -> Settled | Mismatch:
        """Do what a webhook's news of a payment asks for. When this returns, the effect is durable.

        The same news may come again, and in any order with others: it has one effect. News of an order that
        does not exist, or of another amount than its price, has none.

        Raises:
            LedgerUnavailable, GatewayUnavailable: it may have happened; the news must come again.
        """
        reservation = await self._engine.reservation(payment.order)
        if reservation is None:
            log.error("payment_of_unknown_order", order=payment.order, payment=payment.payment, told=told.value)
            return Mismatch.UNKNOWN_ORDER
        price = self._settler.price(reservation)
        if price != (payment.amount_minor, payment.currency):
            log.error("payment_of_wrong_amount", told=told.value, price=price, **msgspec.structs.asdict(payment))
            return Mismatch.WRONG_AMOUNT
        if told is Told.APPROVED:
            return await self._settler.approved(reservation, payment.payment)
        if told is Told.REFUNDED:
            return await self._settler.refunded(reservation, payment.payment)
        if reservation.payment == payment.payment:
            log.error("paid_payment_declined", order=payment.order, payment=payment.payment)
        return Settled(Effect.NOTED, reservation)

    async def refund(self, id: str) -> m.Changed | Refused:
        """PAID -> REFUNDED, and the money goes back.

        The money goes first: if this process ends in between, the gateway's webhook does the rest.

        Raises:
            GatewayUnavailable: the money may have gone back; repeat it.
        """
        reservation = await self._engine.reservation(id)
        if reservation is None:
            return Refused(m.Reason.UNKNOWN_RESERVATION)
        if reservation.state not in {State.PAID, State.REFUNDED}:
            return Refused(m.Reason.WRONG_STATE, reservation=reservation)  # also if it is paid at this moment
        await self._gateway.refund(reservation.payment)
        return await self._engine.refund(id)

    async def charge_of(self, reservation: m.Reservation) -> Charge | None:
        """The last charge of an order, if the gateway still knows it, and if it answers."""
        try:
            return await self._gateway.latest(reservation.id)
        except GatewayUnavailable as error:
            log.warning("gateway_unavailable", asked="latest", error=str(error))
            return None

    def is_pending(self, order: str) -> bool:
        """Whether a payment for the order is under way in this process."""
        return order in self._pending

    async def replacement(self, reservation: m.Reservation) -> m.Reservation | None:
        """The reservation that a late payment made in place of `reservation`."""
        return await self._settler.replacement(reservation)

    def price(self, reservation: m.Reservation) -> tuple[int, str]:
        """What a reservation costs: minor units and currency. Raises LedgerUnavailable if its sale is not known yet."""
        return self._settler.price(reservation)

    async def close(self) -> None:
        """Wait for payments under way, for a moment; those that do not end are given up. Then let the gateway go."""
        if self._pending:
            _, late = await asyncio.wait(list(self._pending.values()), timeout=WAIT_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._gateway.close()

    async def _charge(self, reservation: m.Reservation, card: str, delay_ms: int) -> Settlement:
        amount_minor, currency = self.price(reservation)
        try:
            charge = await self._gateway.charge(reservation.id, amount_minor, currency, card, delay_ms)
        except GatewayUnavailable as error:
            log.warning("gateway_unavailable", asked="charge", order=reservation.id, error=str(error))
            return Settlement(PaymentState.UNKNOWN, reservation)
        if charge.state is ChargeState.APPROVED:
            return await self._settle(reservation, charge)
        return Settlement(PaymentState(charge.state.value), reservation, charge.id)

    async def _settle(self, reservation: m.Reservation, charge: Charge) -> Settlement:
        """Settle a charge, however long it takes: money has been taken and waits for it."""
        while True:
            try:
                settled = await self._settler.approved(reservation, charge.id)
            except (LedgerUnavailable, GatewayUnavailable) as error:
                log.warning("payment_waits", order=reservation.id, payment=charge.id, error=str(error))
                await asyncio.sleep(ASK_AGAIN_S)
                continue
            now = settled.reservation
            if now.state is State.PAID:  # by this charge, or at another node by another at the same time
                return Settlement(PaymentState.APPROVED, now, now.payment)
            return Settlement(PaymentState.REFUNDED, now, charge.id)
