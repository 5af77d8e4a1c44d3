"""What a payment does to a reservation: the ledger decides, and money and ticket follow each other.

Each method can be repeated, on any node, at any later time, and at the same time as itself: nothing is
remembered here. The ledger remembers by which payment a reservation was paid, the gateway remembers
where the money is. Who was interrupted starts again from the beginning and ends where the first one would have.

How news of one payment, in any order and any number, ends in one state:

- *approved* confirms the reservation, if it is still held. If it has expired, the same units are
  reserved again for the buyer under a new id; if there are none, the money goes back.
- *approved after refunded* must not sell a unit for money that went back. So *refunded* leaves its
  mark in the ledger even when it comes first: a held reservation is confirmed and refunded. An
  expired one has no room for a mark; there, who reserved again asks the gateway afterwards, and undoes it.
- *declined* changes nothing: the hold goes on, and another card may be tried.
- *given back here while it was confirmed elsewhere*: who gives money back looks afterwards for a
  reservation that was paid with it, and refunds that too.
- *money for what the ledger does not know*, or no longer, and money that is not the price, goes back.

Money has gone back when the gateway says so, and not before: who is told that there is none to give back
reads the charge.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from ticketrush import logs
from ticketrush import model as m
from ticketrush.engine import Engine
from ticketrush.errors import LedgerUnavailable
from ticketrush.model import Reason, Refused, State
from ticketrush.payments.protocol import ChargeState, Gateway, GatewayUnavailable

LATE_KEY: Final = "late payment of "
"""What the key of a reservation in place of a lost one begins with; with its spaces no buyer can send it."""

_NOT_NOW: Final = frozenset((Reason.UNKNOWN, Reason.UNAVAILABLE, Reason.OVERLOADED))

log = logs.get("ticketrush.payments")


class NotGivenBack(GatewayUnavailable):
    """The gateway gives no money back: it does not know the charge, or says that it took none. Somebody must look."""


class Effect(enum.StrEnum):
    """Where a payment has led."""

    PAID = "paid"
    REPLACED = "replaced"
    """Paid, under another reservation of the same units, since the first one had expired."""
    REFUNDED = "refunded"
    NOTED = "noted"
    """Nothing has changed."""


class Settled(msgspec.Struct, frozen=True, gc=False):
    """The effect, and the reservation that has it as it is now; None if the ledger knows none."""

    effect: Effect
    reservation: m.Reservation | None


class Settler:
    """Settles payments for one engine and one gateway. Its methods belong to the engine's event loop.

    They raise LedgerUnavailable or GatewayUnavailable when they were interrupted; call them again.
    """

    def __init__(self, engine: Engine, gateway: Gateway) -> None:
        self._engine = engine
        self._gateway = gateway

    async def approved(self, reservation: m.Reservation, payment: str) -> Settled:
        """The money for `reservation` was taken: it is paid, or replaced, or the money is given back."""
        outcome = await self._decide(m.Confirm(reservation.id, payment))
        if isinstance(outcome, m.Changed):
            return Settled(Effect.PAID, outcome.reservation)
        found = self._in_the_way(outcome, reservation.id)
        if found is None:
            return await self.lost(reservation.id, payment)
        if found.state is State.EXPIRED:
            again = await self._replace(found, payment)
            if again is not None:
                return await self._unless_refunded(again, payment)
        return await self.give_back(found, payment)

    async def refunded(self, reservation: m.Reservation, payment: str) -> Settled:
        """The money was given back, whether or not it is known here yet that it had been taken."""
        if reservation.state is State.HELD:
            outcome = await self._decide(m.Confirm(reservation.id, payment))
            found = self._in_the_way(outcome, reservation.id)
            if found is None:
                return Settled(Effect.NOTED, None)
            reservation = found
        if reservation.state is State.EXPIRED:
            reservation = await self.replacement(reservation) or reservation
        if reservation.state not in {State.PAID, State.REFUNDED} or reservation.payment != payment:
            return Settled(Effect.NOTED, reservation)
        return await self._refund(reservation)

    async def give_back(self, reservation: m.Reservation, payment: str) -> Settled:
        """Give the money back, since there is no ticket for it."""
        await self.return_money(reservation.id, payment)
        log.info("payment_given_back", order=reservation.id, payment=payment, state=reservation.state.value)
        settled = await self.refunded(reservation, payment)
        return Settled(Effect.REFUNDED, settled.reservation)

    async def lost(self, order: str, payment: str) -> Settled:
        """Give the money back, since the ledger knows no such order: it has lost it, or never had it."""
        await self.return_money(order, payment)
        log.error("payment_given_back", order=order, payment=payment, state="unknown")
        return await self._undo(order, payment)

    async def wrong(self, reservation: m.Reservation, payment: str) -> Settled:
        """Give the money back, since it is not the price. What is held stays held."""
        await self.return_money(reservation.id, payment)
        log.error("payment_given_back", order=reservation.id, payment=payment, state="wrong_amount")
        return await self._undo(reservation.id, payment)

    async def return_money(self, order: str, payment: str) -> None:
        """Have the gateway give back what a charge took. When this returns, the gateway has said so.

        Raises:
            NotGivenBack: it says that there is nothing to give back, and the charge is not refunded.
        """
        charge = await self._gateway.refund(payment) or await self._gateway.read(payment)
        if charge is None or charge.state is not ChargeState.REFUNDED:
            state = "unknown" if charge is None else charge.state.value
            log.error("payment_not_given_back", order=order, payment=payment, state=state)
            raise NotGivenBack(f"the payment gateway gives nothing back for {payment}: to it the charge is {state}")

    async def find(self, order: str, payment: str) -> m.Reservation | None:
        """The reservation `order` that a read did not find, paid with `payment` if it can be; None if there is none.

        A decision, for only that is sure: a read may have come to a server that was about to be given up.
        """
        return self._in_the_way(await self._decide(m.Confirm(order, payment)), order)

    async def paid_with(self, reservation: m.Reservation, payment: str) -> m.Reservation | None:
        """The reservation, or the one in its place, if that is paid with `payment`."""
        if reservation.state is State.EXPIRED:
            reservation = await self.replacement(reservation) or reservation
        return reservation if reservation.state is State.PAID and reservation.payment == payment else None

    async def replacement(self, reservation: m.Reservation) -> m.Reservation | None:
        """The reservation that a late payment made in place of `reservation`."""
        return await self._engine.reservation_for(reservation.sale, reservation.buyer, LATE_KEY + reservation.id)

    def price(self, reservation: m.Reservation) -> tuple[int, str]:
        """What a reservation costs: minor units and currency. Raises LedgerUnavailable if its sale is not known yet."""
        stock = self._engine.stock(reservation.sale)
        for item in stock.sale.items if stock else ():
            if item.id == reservation.item:
                return item.price_minor * reservation.quantity, item.currency
        raise LedgerUnavailable(f"the item of reservation {reservation.id} is not known here yet; ask again")

    async def _replace(self, lost: m.Reservation, payment: str) -> m.Reservation | None:
        """The same units under a new reservation, paid; None if there are none."""
        id, key = self._engine.new_id(lost.sale, lost.buyer), LATE_KEY + lost.id
        again = await self._decide(m.Reserve(id, lost.sale, lost.item, lost.buyer, lost.quantity, key))
        if not isinstance(again, m.Reserved):
            return None
        if await self._engine.reservation(lost.id) is None:  # lost only now; nobody would find what is in its place
            return None
        outcome = await self._decide(m.Confirm(again.reservation.id, payment))
        return outcome.reservation if isinstance(outcome, m.Changed) else None

    async def _unless_refunded(self, again: m.Reservation, payment: str) -> Settled:
        """Undo a replacement whose money went back before it was confirmed.

        If it goes back later than the gateway is asked here, who gave it back finds the replacement.
        """
        charge = await self._gateway.read(payment)
        if charge is not None and charge.state is ChargeState.REFUNDED:
            return await self._refund(again)
        log.info("payment_replaced", order=again.key.removeprefix(LATE_KEY), by=again.id, payment=payment)
        return Settled(Effect.REPLACED, again)

    async def _refund(self, reservation: m.Reservation) -> Settled:
        found = self._in_the_way(await self._decide(m.Refund(reservation.id)), reservation.id)
        assert found is None or found.state is State.REFUNDED, "what is paid can be refunded, and stays refunded"
        return Settled(Effect.REFUNDED, found)

    async def _undo(self, order: str, payment: str) -> Settled:
        """Refund what was paid with money that went back, if it was at this moment."""
        now = await self._engine.reservation(order)
        paid = now and await self.paid_with(now, payment)
        return await self._refund(paid) if paid else Settled(Effect.REFUNDED, now)

    @staticmethod
    def _in_the_way(outcome: m.Outcome, id: str) -> m.Reservation | None:
        """The reservation as the ledger's decision shows it; None if the ledger knows none of this id."""
        if isinstance(outcome, (m.Changed, Refused)) and outcome.reservation is not None:
            return outcome.reservation
        if isinstance(outcome, Refused) and outcome.reason is Reason.UNKNOWN_RESERVATION:
            return None
        raise LedgerUnavailable(f"the ledger did not say how reservation {id} is; ask again")

    async def _decide(self, command: m.Command) -> m.Outcome:
        """The ledger's decision. Raises LedgerUnavailable if it has none now."""
        outcome = await self._engine.execute(command)
        if isinstance(outcome, Refused) and outcome.reason in _NOT_NOW:
            raise LedgerUnavailable(f"the ledger did not decide on a payment: {outcome.reason.value}; ask again")
        return outcome
