"""How a reservation is paid: charge, then confirm; the ledger decides the race against the expiry.

Money is taken before the ledger is asked. If the hold is gone by then, the same units are reserved
again for the buyer, under a new id, if there are any; else the money goes back. Whatever happens,
money is not kept without a ticket.
"""

from __future__ import annotations

import asyncio
import enum
from typing import Final

import msgspec

from ticketrush import logs
from ticketrush import model as m
from ticketrush.engine import Engine
from ticketrush.model import Reason, Refused, State
from ticketrush.payments.protocol import Charge, ChargeState, Gateway

PENDING_MAX: Final = 10_000
"""Payments under way at once; past it a payment is refused before money moves."""

WAIT_S: Final = 1.0
"""How long `pay` waits for the gateway before it answers PENDING; the payment goes on."""

ASK_AGAIN_S: Final = 0.25
"""How long to wait before a ledger that did not answer is asked again."""

LATE_KEY: Final = "late payment of "
"""What the key of a reservation in place of a lost one begins with; with its spaces no buyer can send it."""

_NOT_NOW: Final = frozenset((Reason.UNKNOWN, Reason.UNAVAILABLE, Reason.OVERLOADED))

log = logs.get("ticketrush.cashier")


class PaymentState(enum.StrEnum):
    """How a payment stands."""

    APPROVED = "approved"
    DECLINED = "declined"
    REFUNDED = "refunded"
    PENDING = "pending"
    REFUSED = "refused"
    BUSY = "busy"


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """Where a payment led: its state, its id, and the reservation as it is now.

    The reservation is another one than asked for if the hold was gone and the units were reserved again.
    """

    state: PaymentState
    reservation: m.Reservation
    payment: str = ""


class Cashier:
    """Settles payments for one engine through one gateway."""

    def __init__(self, engine: Engine, gateway: Gateway) -> None:
        self._engine = engine
        self._gateway = gateway
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
            if reservation.state not in (State.HELD, State.EXPIRED):
                return Settlement(PaymentState.REFUSED, reservation)
            if len(self._pending) >= PENDING_MAX:
                return Settlement(PaymentState.BUSY, reservation)
            task = asyncio.get_running_loop().create_task(self._settle(reservation, card, delay_ms))
            self._pending[reservation.id] = task
            task.add_done_callback(lambda _: self._pending.pop(reservation.id, None))
        done, _ = await asyncio.wait((task,), timeout=WAIT_S)
        return task.result() if done else Settlement(PaymentState.PENDING, reservation)

    async def refund(self, id: str) -> m.Changed | Refused:
        """PAID -> REFUNDED, and the money goes back."""
        outcome = await self._engine.refund(id)
        if isinstance(outcome, m.Changed):
            await self._gateway.refund(outcome.reservation.payment)
        return outcome

    def charge_of(self, order: str) -> Charge | None:
        """The last charge of an order, if the gateway still knows it."""
        return self._gateway.latest(order)

    def is_pending(self, order: str) -> bool:
        """Whether a payment for the order is under way."""
        return order in self._pending

    async def replacement(self, reservation: m.Reservation) -> m.Reservation | None:
        """The reservation that a late payment made in place of `reservation`."""
        return await self._engine.reservation_for(reservation.sale, reservation.buyer, _late_key(reservation))

    async def close(self) -> None:
        """Wait for payments under way, for a moment; those that do not end are given up."""
        if self._pending:
            _, late = await asyncio.wait(list(self._pending.values()), timeout=WAIT_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _settle(self, reservation: m.Reservation, card: str, delay_ms: int) -> Settlement:
        amount_minor, currency = self.price(reservation)
        charge = await self._gateway.charge(reservation.id, amount_minor, currency, card, delay_ms)
        if charge.state is ChargeState.DECLINED:
            return Settlement(PaymentState.DECLINED, reservation, charge.id)
        outcome = await self._insist(m.Confirm(reservation.id, charge.id))
        if isinstance(outcome, Refused) and _is_expired(outcome):
            outcome = await self._reserve_again(reservation, charge.id)
        if isinstance(outcome, m.Changed):
            return Settlement(PaymentState.APPROVED, outcome.reservation, charge.id)
        await self._gateway.refund(charge.id)
        log.info("payment_refunded", order=reservation.id, payment=charge.id)
        if isinstance(outcome, Refused) and (paid := outcome.reservation) is not None and paid.state is State.PAID:
            return Settlement(PaymentState.APPROVED, paid, paid.payment)  # at another node, at the same time
        return Settlement(PaymentState.REFUNDED, reservation, charge.id)

    async def _reserve_again(self, lost: m.Reservation, payment: str) -> m.Outcome:
        key = _late_key(lost)
        again = await self._insist(
            m.Reserve(self._engine.new_id(lost.sale, lost.buyer), lost.sale, lost.item, lost.buyer, lost.quantity, key)
        )
        if isinstance(again, m.Reserved):
            return await self._insist(m.Confirm(again.reservation.id, payment))
        return again

    async def _insist(self, command: m.Command) -> m.Outcome:
        """The ledger's decision, however long it takes: money has been taken and waits for it."""
        while True:
            outcome = await self._engine.execute(command)
            if not (isinstance(outcome, Refused) and outcome.reason in _NOT_NOW):
                return outcome
            await asyncio.sleep(ASK_AGAIN_S)

    def price(self, reservation: m.Reservation) -> tuple[int, str]:
        """What a reservation costs: minor units and currency."""
        stock = self._engine.stock(reservation.sale)
        for item in stock.sale.items if stock else ():
            if item.id == reservation.item:
                return item.price_minor * reservation.quantity, item.currency
        raise LookupError(f"reservation {reservation.id} is of an unknown item")


def _is_expired(outcome: Refused) -> bool:
    return outcome.reservation is not None and outcome.reservation.state is State.EXPIRED


def _late_key(lost: m.Reservation) -> str:
    return LATE_KEY + lost.id
