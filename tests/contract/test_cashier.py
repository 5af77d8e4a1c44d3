"""Payments against a ledger and a gateway of this process: what a restart may not undo, and what has no ticket."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

import ticketrush
from tests.in_loop import in_loop
from ticketrush import Item, Reservation, Reserved, Sale, State
from ticketrush.cashier import LATEST_S, Cashier, PaymentState
from ticketrush.engine import Engine
from ticketrush.payments.notices import Payment, Told
from ticketrush.payments.protocol import Charge, ChargeState
from ticketrush.payments.test_gateway import TestGateway
from ticketrush.settlement import Effect, NotGivenBack, Settled

PRICE = 700


@contextlib.asynccontextmanager
async def desk_of(file: Path) -> AsyncIterator[Engine]:
    """A desk with a sale."""
    async with ticketrush.open(f"sqlite:///{file}") as desk:
        await desk.create_sale(Sale("g1", (Item("second", 5, price_minor=PRICE),), opens_at_ms=0))
        yield desk


async def hold(desk: Engine) -> Reservation:
    held = await desk.reserve("g1", "second", "ada")
    assert isinstance(held, Reserved)
    return held.reservation


async def lost(folder: Path) -> Reservation:
    """A reservation that no ledger has any more."""
    async with desk_of(folder / "lost.db") as desk:
        return await hold(desk)


async def state_of(desk: Engine, id: str) -> State | None:
    found = await desk.reservation(id)
    return found.state if found is not None else None


def news(charge: Charge) -> Payment:
    return Payment(charge.id, charge.order, charge.amount_minor, charge.currency)


class Forgetful(TestGateway):
    """It knows of no charge that it made."""

    async def refund(self, payment: str) -> Charge | None:
        return None

    async def read(self, payment: str) -> Charge | None:
        return None


class Curt(TestGateway):
    """Of a charge whose money it has given back it says that there is none to give back."""

    async def refund(self, payment: str) -> Charge | None:
        await super().refund(payment)
        return None


def test_a_late_order_that_was_replaced_and_paid_is_not_charged_again_after_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/tickets.db"

    async def before() -> Reservation:
        async with ticketrush.open(url) as desk:
            await desk.create_sale(Sale("g1", (Item("second", 1),), opens_at_ms=0, hold_window_ms=500))
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


# --- money without a ticket ----------------------------------------------------------------------


@in_loop
async def test_money_for_what_the_ledger_has_lost_meanwhile_goes_back_at_once(tmp_path: Path) -> None:
    gone = await lost(tmp_path)
    async with desk_of(tmp_path / "tickets.db") as desk:
        gateway = TestGateway()
        cashier = Cashier(desk, gateway)
        settlement = await cashier.pay(gone, "approve")
        charge = await gateway.latest(gone.id)
        assert charge is not None
        assert (settlement.state, charge.state) == (PaymentState.REFUNDED, ChargeState.REFUNDED)
        assert not cashier.is_pending(gone.id)
        assert await cashier.told(Told.REFUNDED, news(charge)) == Settled(Effect.NOTED, None)
        await cashier.close()


@in_loop
async def test_news_of_money_for_an_unknown_order_gives_it_back(tmp_path: Path) -> None:
    async with desk_of(tmp_path / "tickets.db") as desk:
        gateway = TestGateway()
        charge = await gateway.charge("nobodys", PRICE, "CNY", "approve", 0)
        for _ in range(2):
            assert await Cashier(desk, gateway).told(Told.APPROVED, news(charge)) == Settled(Effect.REFUNDED, None)
        now = await gateway.read(charge.id)
        assert now is not None
        assert now.state is ChargeState.REFUNDED


@in_loop
async def test_an_order_that_a_read_missed_is_paid_all_the_same(tmp_path: Path) -> None:
    async with desk_of(tmp_path / "tickets.db") as desk:
        gateway = TestGateway()
        right, wrong = await hold(desk), await hold(desk)
        read = desk.reservation

        async def misses(id: str) -> Reservation | None:
            desk.reservation = read  # type: ignore[method-assign]
            return None

        for held, amount_minor, effect, state in (
            (right, PRICE, Effect.PAID, State.PAID),
            (wrong, PRICE - 1, Effect.REFUNDED, State.REFUNDED),
        ):
            charge = await gateway.charge(held.id, amount_minor, "CNY", "approve", 0)
            desk.reservation = misses  # type: ignore[method-assign]
            done = await Cashier(desk, gateway).told(Told.APPROVED, news(charge))
            assert isinstance(done, Settled)
            assert (done.effect, await state_of(desk, held.id)) == (effect, state)


@in_loop
async def test_a_charge_of_another_amount_goes_back_and_the_hold_goes_on(tmp_path: Path) -> None:
    async with desk_of(tmp_path / "tickets.db") as desk:
        gateway = TestGateway()
        held = await hold(desk)
        await gateway.charge(held.id, PRICE - 1, "CNY", "approve", 0)  # an order has one charge at most: this one
        cashier = Cashier(desk, gateway)
        assert (await cashier.pay(held, "approve")).state is PaymentState.REFUNDED
        assert await state_of(desk, held.id) is State.HELD
        assert (await cashier.pay(held, "approve")).state is PaymentState.APPROVED


@in_loop
async def test_a_gateway_that_does_not_know_the_charge_has_given_nothing_back(tmp_path: Path) -> None:
    gone = await lost(tmp_path)
    async with desk_of(tmp_path / "tickets.db") as desk:
        gateway = Forgetful()
        cashier = Cashier(desk, gateway)
        held = await hold(desk)
        await desk.cancel(held.id)
        charge = await gateway.charge(held.id, PRICE, "CNY", "approve", 0)
        with pytest.raises(NotGivenBack, match=charge.id):
            await cashier.told(Told.APPROVED, news(charge))

        paid = (await cashier.pay(await hold(desk), "approve")).reservation
        with pytest.raises(NotGivenBack):
            await cashier.refund(paid.id)
        assert await state_of(desk, paid.id) is State.PAID

        assert (await cashier.pay(gone, "approve")).state is PaymentState.UNKNOWN
        assert not cashier.is_pending(gone.id), "a payment that waits for ever takes the place of another"


@in_loop
async def test_what_is_refunded_already_is_given_back(tmp_path: Path) -> None:
    async with desk_of(tmp_path / "tickets.db") as desk:
        cashier = Cashier(desk, Curt())
        paid = (await cashier.pay(await hold(desk), "approve")).reservation
        await cashier.refund(paid.id)
        assert await state_of(desk, paid.id) is State.REFUNDED


# --- the gateway ---------------------------------------------------------------------------------


@in_loop
async def test_who_reads_an_order_does_not_wait_for_a_gateway_that_hangs(tmp_path: Path) -> None:
    class Hanging(TestGateway):
        async def latest(self, order: str) -> Charge | None:
            await asyncio.sleep(30)
            return None

    async with desk_of(tmp_path / "tickets.db") as desk:
        held = await hold(desk)
        began_s = time.monotonic()
        assert await Cashier(desk, Hanging()).charge_of(held) is None
        assert time.monotonic() - began_s < 10 * LATEST_S


@in_loop
async def test_a_refund_of_an_old_charge_leaves_the_last_one_the_last() -> None:
    gateway = TestGateway()
    first = await gateway.charge("o1", PRICE, "CNY", "approve", 0)
    await gateway.refund(first.id)
    second = await gateway.charge("o1", PRICE, "CNY", "approve", 0)
    again = await gateway.refund(first.id)
    assert again == msgspec.structs.replace(first, state=ChargeState.REFUNDED)
    assert await gateway.latest("o1") == await gateway.charge("o1", PRICE, "CNY", "approve", 0) == second
