"""Payments against a ledger and a gateway of this process: what a restart may not undo."""

from __future__ import annotations

import asyncio
from pathlib import Path

import ticketrush
from ticketrush import Item, Reservation, Reserved, Sale, State
from ticketrush.cashier import Cashier, PaymentState
from ticketrush.payments.test_gateway import TestGateway


def test_a_late_order_that_was_replaced_and_paid_is_not_charged_again_after_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tickets.db"

    async def before() -> Reservation:
        async with ticketrush.open(url) as desk:
            await desk.create_sale(Sale("g1", (Item("second", 1),), opens_at_ms=0, hold_window_ms=50))
            held = await desk.reserve("g1", "second", "ada", key="k1")
            assert isinstance(held, Reserved)
            lost = held.reservation
            while lost.state is not State.EXPIRED:
                await asyncio.sleep(0.02)
                lost = await desk.reservation(lost.id) or lost
            settlement = await Cashier(desk, TestGateway()).pay(lost, "approve")
            assert settlement.state is PaymentState.APPROVED
            assert settlement.reservation.id != lost.id
            return lost

    async def after(lost: Reservation) -> None:
        async with ticketrush.open(url) as desk:
            gateway = TestGateway()
            settlement = await Cashier(desk, gateway).pay(lost, "approve")
            assert (settlement.state, settlement.reservation.state) == (PaymentState.APPROVED, State.PAID)
            assert await gateway.latest(lost.id) is None, "the buyer was charged a second time"

    asyncio.run(after(asyncio.run(before())))
