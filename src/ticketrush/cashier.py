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
from ticketrush.settlement import LATE_KEY, Effect, NotGivenBack, Settled, Settler

__all__ = ["LATE_KEY", "Cashier", "Mismatch", "PaymentState", "Settlement"]

PENDING_MAX: Final = 10_000
"""Payments under way at once; past it a payment is refused before money moves."""

WAIT_S: Final = 1.0
"""How long `pay` waits for the gateway before it answers PENDING; the payment goes on."""

ASK_AGAIN_S: Final = 0.25
"""How long to wait before a ledger or a gateway that did not answer is asked again."""

LATEST_S: Final = 0.5
"""How long the gateway may take to say how a payment stands: somebody waits to read an order."""

log = logs.get("ticketrush.payments")
waits = logs.Seldom(log, "payment_waits")
away = logs.Seldom(log, "gateway_unavailable")


class Mismatch(enum.StrEnum):
    """Why nothing was done on news of a payment; the values are codes of the HTTP API."""

    WRONG_AMOUNT = "payment_mismatch"
    """The order is paid with this payment, by its price, and now another amount is told of."""


class PaymentState(enum.StrEnum):
    """How a payment stands."""

    APPROVED = "approved"
    DECLINED = "declined"
    REFUNDED = "refunded"
    PENDING = "pending"
    REFUSED = "refused"
    BUSY = "busy"
    UNKNOWN = "unknown"
    """The gateway did not answer, or does not give money back. Its webhook settles that; paying again is safe."""


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

        The same news may come again, and in any order with others: it has one effect. Money for an order that
        does not exist, and money that is not its price, goes back.

        Raises:
            LedgerUnavailable, GatewayUnavailable: it may have happened; the news must come again.
        """
        reservation = await self._engine.reservation(payment.order)
        if reservation is None:
            return await self._told_of_unknown(told, payment)
        if not self._is_price(reservation, payment.amount_minor, payment.currency):
            return await self._told_of_wrong_amount(told, payment, reservation)
        if told is Told.APPROVED:
            return await self._settler.approved(reservation, payment.payment)
        if told is Told.REFUNDED:
            return await self._settler.refunded(reservation, payment.payment)
        if reservation.payment == payment.payment:
            log.error("paid_payment_declined", order=payment.order, payment=payment.payment)
        return Settled(Effect.NOTED, reservation)

    async def _told_of_unknown(self, told: Told, payment: Payment) -> Settled:
        found = await self._settler.find(payment.order, payment.payment) if told is Told.APPROVED else None
        if found is not None:  # paid by now, if it was held
            is_price = self._is_price(found, payment.amount_minor, payment.currency)
            return await (self._settler.approved if is_price else self._settler.wrong)(found, payment.payment)
        log.error("payment_of_unknown_order", order=payment.order, payment=payment.payment, told=told.value)
        if told is Told.APPROVED:
            return await self._settler.lost(payment.order, payment.payment)
        return Settled(Effect.NOTED, None)

    async def _told_of_wrong_amount(
        self, told: Told, payment: Payment, reservation: m.Reservation
    ) -> Settled | Mismatch:
        log.error("payment_of_wrong_amount", told=told.value, **msgspec.structs.asdict(payment))
        if await self._settler.paid_with(reservation, payment.payment) is None:
            if told is Told.APPROVED:
                return await self._settler.wrong(reservation, payment.payment)
            return Settled(Effect.NOTED, reservation)
        if told is Told.REFUNDED:  # a part of it, or all
            charge = await self._gateway.read(payment.payment)
            if charge is not None and charge.state is ChargeState.REFUNDED:
                return await self._settler.refunded(reservation, payment.payment)
        return Mismatch.WRONG_AMOUNT

    def _is_price(self, reservation: m.Reservation, amount_minor: int, currency: str) -> bool:
        return self._settler.price(reservation) == (amount_minor, currency)

    async def refund(self, id: str) -> m.Changed | Refused:
        """PAID -> REFUNDED, and the money goes back.

        The money goes first: if this process ends in between, the gateway's webhook does the rest.

        Raises:
            GatewayUnavailable: the money may have gone back; repeat it. NotGivenBack: the gateway says it did not.
        """
        reservation = await self._engine.reservation(id)
        if reservation is None:
            return Refused(m.Reason.UNKNOWN_RESERVATION)
        if reservation.state not in {State.PAID, State.REFUNDED}:
            return Refused(m.Reason.WRONG_STATE, reservation=reservation)  # also if it is paid at this moment
        await self._settler.return_money(id, reservation.payment)
        return await self._engine.refund(id)

    async def charge_of(self, reservation: m.Reservation) -> Charge | None:
        """The last charge of an order, if the gateway still knows it, and if it answers within LATEST_S."""
        try:
            async with asyncio.timeout(LATEST_S):
                return await self._gateway.latest(reservation.id)
        except (GatewayUnavailable, TimeoutError) as error:
            away.warning(asked="latest", error=str(error) or f"no answer within {LATEST_S:g} s")
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
            away.warning(asked="charge", order=reservation.id, error=str(error))
            return Settlement(PaymentState.UNKNOWN, reservation)
        if charge.state is ChargeState.APPROVED:
            return await self._settle(reservation, charge, (amount_minor, currency))
        return Settlement(PaymentState(charge.state.value), reservation, charge.id)

    async def _settle(self, reservation: m.Reservation, charge: Charge, price: tuple[int, str]) -> Settlement:
        """Settle a charge, however long it takes: money has been taken and waits for it.

        Only a gateway that does not give the money back is not waited for; its webhook comes again.
        """
        settle = self._settler.approved
        if (charge.amount_minor, charge.currency) != price:
            log.error("payment_of_wrong_amount", **msgspec.structs.asdict(charge))
            settle = self._settler.wrong
        while True:
            try:
                settled = await settle(reservation, charge.id)
            except NotGivenBack:
                return Settlement(PaymentState.UNKNOWN, reservation, charge.id)
            except (LedgerUnavailable, GatewayUnavailable) as error:
                waits.warning(order=reservation.id, payment=charge.id, error=str(error))
                await asyncio.sleep(ASK_AGAIN_S)
                continue
            now = settled.reservation
            if now is not None and now.state is State.PAID:  # by this charge, or at another node by another meanwhile
                return Settlement(PaymentState.APPROVED, now, now.payment)
            return Settlement(PaymentState.REFUNDED, now or reservation, charge.id)
