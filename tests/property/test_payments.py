"""One payment, told of in any order, any number of times, at two nodes at once: money and ticket agree in the end."""

from __future__ import annotations

import asyncio
import os
from collections import Counter

import pytest

from tests.property.payments import MakeSettler, World
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
    return ""


def test_money_and_ticket_agree_in_the_end() -> None:
    assert [wrong for seed in range(WORLDS) if (wrong := wrong_in(seed))] == []


def test_every_way_of_ending_is_among_them() -> None:
    ends: Counter[tuple[str, str, bool]] = Counter()
    for seed in range(WORLDS):
        world = World(seed)
        asyncio.run(world.live())
        order = world.machine.reservation("order")
        assert order is not None
        again = world.machine.reservation_for("g1", "ada", "late payment of order")
        ends[order.state.value, world.charge.state.value, again is not None and again.state is m.State.PAID] += 1

    assert {
        ("paid", "approved", False),
        ("refunded", "refunded", False),
        ("cancelled", "refunded", False),
        ("expired", "approved", True),
        ("expired", "refunded", False),
    } <= set(ends), ends


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


FLAWED = [ForgetsWhatCameFirst, DoesNotAskAgain, ForgetsTheReplacement, KeepsTheMoney]


@pytest.mark.parametrize("flawed", FLAWED, ids=lambda each: each.__name__)
def test_a_planted_bug_is_caught(flawed: type[Settler]) -> None:
    assert any(wrong_in(seed, flawed) for seed in range(CANARY_WORLDS))
