"""One payment, told of in any order, any number of times, at two nodes at once: money and ticket agree in the end."""

from __future__ import annotations

import asyncio
import os
from collections import Counter

import pytest

from tests.property.payments import ORDER, PRICE, MakeSettler, World
from ticketrush import model as m
from ticketrush.payments.protocol import ChargeState
from ticketrush.settlement import Effect, Settled, Settler

WORLDS = 20_000 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 2_000
CANARY_WORLDS = 4_000


def wrong_in(seed: int, settler: MakeSettler = Settler) -> str:
    """What is wrong at the end of the world `seed`; "" if nothing is."""
    world = World(seed, settler)
    asyncio.run(world.live())
    paid = len(world.paid())
    if world.charge.state is ChargeState.APPROVED and paid != 1:
        return f"seed {seed}: the money was kept, and {paid} reservations are paid with it"
    if world.charge.state is ChargeState.REFUNDED and paid:
        return f"seed {seed}: the money went back, and {paid} reservations are paid with it"
    level = world.machine.stock("g1")
    assert level is not None
    assert level.levels[0].sold == paid
    if world.charge.state is ChargeState.APPROVED and world.amount_minor != PRICE:
        return f"seed {seed}: another amount than the price was kept"
    return ""


def test_money_and_ticket_agree_in_the_end() -> None:
    assert [wrong for seed in range(WORLDS) if (wrong := wrong_in(seed))] == []


def test_every_way_of_ending_is_among_them() -> None:
    ends: Counter[tuple[str, str, bool]] = Counter()
    wrong_amounts: Counter[str] = Counter()
    for seed in range(WORLDS):
        world = World(seed)
        asyncio.run(world.live())
        order = world.machine.reservation(ORDER)
        state = "lost" if order is None else order.state.value
        again = world.machine.reservation_for("g1", "ada", "late payment of order")
        ends[state, world.charge.state.value, again is not None and again.state is m.State.PAID] += 1
        if world.amount_minor != PRICE:
            wrong_amounts[state] += 1

    assert {
        ("paid", "approved", False),
        ("refunded", "refunded", False),
        ("cancelled", "refunded", False),
        ("expired", "approved", True),
        ("expired", "refunded", False),
        ("lost", "refunded", False),
    } <= set(ends), ends
    assert {"held", "expired", "cancelled", "lost"} <= set(wrong_amounts), wrong_amounts


# --- planted bugs: each must be caught -----------------------------------------------------------


class ForgetsWhatCameFirst(Settler):
    """A refund that is told of before the payment leaves no mark."""

    async def refunded(self, reservation: m.Reservation, payment: str) -> Settled:
        if reservation.state is m.State.HELD:
            return Settled(Effect.NOTED, reservation)
        return await super().refunded(reservation, payment)


class DoesNotAskAgain(Settler):
    """Who has reserved again trusts that the money is still there."""

    async def _unless_refunded(self, again: m.Reservation, payment: str) -> Settled:
        return Settled(Effect.REPLACED, again)


class ForgetsTheReplacement(Settler):
    """Money that goes back leaves the replacement of the order as it is."""

    async def replacement(self, reservation: m.Reservation) -> m.Reservation | None:
        return None


class KeepsTheMoney(Settler):
    """Money for which there is no ticket stays."""

    async def give_back(self, reservation: m.Reservation, payment: str) -> Settled:
        return Settled(Effect.REFUNDED, reservation)


class KeepsWhatWasLost(Settler):
    """Money for an order that the ledger does not know stays."""

    async def lost(self, order: str, payment: str) -> Settled:
        return Settled(Effect.REFUNDED, None)


class KeepsAnotherAmount(Settler):
    """Money that is not the price stays."""

    async def wrong(self, reservation: m.Reservation, payment: str) -> Settled:
        return Settled(Effect.REFUNDED, reservation)


class BelievesThatItIsBack(Settler):
    """A gateway that does not know the charge is taken to have given it back."""

    async def return_money(self, order: str, payment: str) -> None:
        await self._gateway.refund(payment)


FLAWED = [
    ForgetsWhatCameFirst,
    DoesNotAskAgain,
    ForgetsTheReplacement,
    KeepsTheMoney,
    KeepsWhatWasLost,
    KeepsAnotherAmount,
    BelievesThatItIsBack,
]


@pytest.mark.parametrize("flawed", FLAWED, ids=lambda each: each.__name__)
def test_a_planted_bug_is_caught(flawed: type[Settler]) -> None:
    assert any(wrong_in(seed, flawed) for seed in range(CANARY_WORLDS))
