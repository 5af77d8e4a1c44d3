"""What tests change in a node that takes payments: moments of death, and planted bugs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from unittest.mock import patch

from ticketrush import model as m
from ticketrush.cashier import Cashier
from ticketrush.engine import Engine
from ticketrush.payments.notices import Payment, Told
from ticketrush.settlement import Effect, Settled, Settler

Moment = Callable[[], None]


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_before_the_confirm() -> None:
    """The money was taken; the ledger does not know it yet."""
    patch.object(Settler, "approved", _die).start()


def die_before_the_money_goes_back() -> None:
    """It is decided that there is no ticket for the money."""
    patch.object(Settler, "give_back", _die).start()


def die_before_the_refund_is_written() -> None:
    """The money went back; the ledger does not know it yet."""
    patch.object(Engine, "refund", _die).start()


def keep_the_money() -> None:
    """A bug: money for which there is no ticket stays."""

    async def give_back(self: Settler, reservation: m.Reservation, payment: str) -> Settled:
        return Settled(Effect.REFUNDED, reservation)

    patch.object(Settler, "give_back", give_back).start()


def answer_before_the_effect() -> None:
    """A bug: a webhook is answered 200 before anything was done, and the node dies before it is."""

    async def hasty(self: Cashier, kind: Told, payment: Payment) -> Settled:
        reservation = await self._engine.reservation(payment.order)
        assert reservation is not None
        return Settled(Effect.PAID, reservation)

    patch.object(Cashier, "told", hasty).start()
