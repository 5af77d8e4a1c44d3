"""Payments against expiries, crashes of nodes and of the gateway: money and ticket agree, by both books.

Each charge of the gateway's own book is either kept, and exactly one reservation is paid with it, or it is
not, and none is: never both, never neither.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path
from typing import Final

import pytest

from tests.faults import planted_payments
from tests.faults.payments import CAPACITY, Till, till
from tests.valkey import own_valkey

RACES: Final = 1_000
MANY_RACES: Final = 10_000
UNPLEASANT: Final = ("--repeat", "2", "--reorder")


@pytest.fixture
def seed() -> int:
    """Printed when a test fails."""
    drawn = int(os.environ.get("TICKETRUSH_FAULT_SEED", "") or random.SystemRandom().randrange(10**9))
    print(f"TICKETRUSH_FAULT_SEED={drawn}")
    return drawn


async def race(till: Till, count: int) -> None:
    """Payments against expiries, and what became of them."""
    await till.begin()
    raced = await till.races(count)
    book, ledger = await till.settled(within_s=120.0)
    ends = {state: sum(charge["state"] == state for charge in book) for state in ("approved", "refunded")}
    print(f"{raced} races: {ends}, {ledger.replacements} replaced, answers {dict(till.said)}")
    assert len(book) >= 0.9 * raced
    assert min(ends["approved"], ends["refunded"], ledger.replacements, ledger.states["expired"]) > 0, "vacuous"


# --- payment against expiry ----------------------------------------------------------------------


@pytest.mark.timeout(180)
def test_a_payment_that_races_an_expiry_is_kept_or_given_back(tmp_path: Path, seed: int) -> None:
    with till(tmp_path, seed) as made:
        asyncio.run(race(made, RACES))


@pytest.mark.timeout(180)
def test_so_it_is_when_webhooks_come_twice_and_out_of_order(tmp_path: Path, seed: int) -> None:
    with till(tmp_path, seed, *UNPLEASANT) as made:
        asyncio.run(race(made, RACES // 2))


@pytest.mark.timeout(180)
def test_so_it_is_with_two_nodes_on_one_ledger(tmp_path: Path, seed: int) -> None:
    with own_valkey("fsync") as valkey, till(tmp_path, seed, *UNPLEASANT, ledger=valkey.url, nodes=2) as made:
        asyncio.run(race(made, RACES // 4))


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_ten_thousand_races(tmp_path: Path, seed: int) -> None:
    with till(tmp_path, seed, *UNPLEASANT) as made:
        asyncio.run(race(made, MANY_RACES))


@pytest.mark.timeout(120)
def test_money_that_is_kept_without_a_ticket_is_caught(tmp_path: Path, seed: int) -> None:
    async def story(till: Till) -> None:
        await till.begin(planted_payments.keep_the_money)
        await till.races(4 * CAPACITY)
        with pytest.raises(AssertionError, match="charges, such as"):
            await till.settled()

    with till(tmp_path, seed) as made:
        asyncio.run(story(made))


# --- kill -9 of a node ---------------------------------------------------------------------------


def test_a_node_that_dies_between_charge_and_confirm_settles_after_its_restart(tmp_path: Path, seed: int) -> None:
    async def story(till: Till) -> None:
        await till.begin()
        order = await till.hold(await till.sale(hold_window_ms=60_000))
        await die(till, planted_payments.die_before_the_confirm)
        assert (await till.pay(order, "late", 300))[0] == 202
        await until_dead(till)
        assert [charge["state"] for charge in till.gateway.charges(order)] == ["approved"]
        await till.restart()
        await till.settled()
        assert (await till.order(order))["state"] == "paid"

    with till(tmp_path, seed) as made:
        asyncio.run(story(made))


def test_a_node_that_dies_before_it_gives_money_back_does_so_after_its_restart(tmp_path: Path, seed: int) -> None:
    async def story(till: Till) -> None:
        await till.begin()
        sale = await till.sale(1, 100)
        lost = await till.hold(sale)
        await until_expired(till, lost)
        winner = await till.hold(sale, "bob")
        assert (await till.pay(winner, buyer="bob"))[0] == 200
        await die(till, planted_payments.die_before_the_money_goes_back)
        await till.pay(lost, "late", 300)
        await until_dead(till)
        await till.restart()
        _, ledger = await till.settled()
        assert ledger.states["paid"] == 1
        assert [charge["state"] for charge in till.gateway.charges(lost)] == ["refunded"]
        assert (await till.order(lost))["payment"]["state"] == "refunded"

    with till(tmp_path, seed) as made:
        asyncio.run(story(made))


def test_a_node_that_dies_in_a_refund_finishes_it_after_its_restart(tmp_path: Path, seed: int) -> None:
    async def story(till: Till) -> None:
        await till.begin()
        order = await till.hold(await till.sale(hold_window_ms=60_000))
        assert (await till.pay(order))[0] == 200
        await asyncio.to_thread(till.gateway.quiet)
        await die(till, planted_payments.die_before_the_refund_is_written)
        with pytest.raises(OSError, match=r"."):
            await ask_refund(till, order)
        await until_dead(till)
        await till.restart()
        await till.settled()
        assert (await till.order(order))["state"] == "refunded"

    with till(tmp_path, seed) as made:
        asyncio.run(story(made))


@pytest.mark.timeout(180)
def test_nodes_that_are_killed_again_and_again_lose_no_payment(tmp_path: Path, seed: int) -> None:
    async def story(till: Till) -> None:
        await till.begin()
        races = asyncio.create_task(till.races(RACES // 4))
        for _ in range(4):
            await asyncio.sleep(till.dice.uniform(0.2, 0.8))
            await till.restart()
        await races
        book, _ = await till.settled(within_s=120.0)
        assert len(book) > CAPACITY

    with till(tmp_path, seed, *UNPLEASANT) as made:
        asyncio.run(story(made))


def test_a_webhook_that_is_answered_too_early_is_caught(tmp_path: Path, seed: int) -> None:
    async def story(till: Till) -> None:
        await till.begin(planted_payments.answer_before_the_effect)
        order = await till.hold(await till.sale(hold_window_ms=60_000))
        assert (await till.pay(order, "late", 200))[0] == 202
        await asyncio.to_thread(till.gateway.quiet)
        await till.restart()
        with pytest.raises(AssertionError, match="1 of 1 charges"):
            await till.settled()

    with till(tmp_path, seed) as made:
        asyncio.run(story(made))


# --- the gateway ---------------------------------------------------------------------------------


def test_a_gateway_that_is_killed_tells_after_its_restart_what_it_has_decided(tmp_path: Path, seed: int) -> None:
    async def story(till: Till) -> None:
        await till.begin()
        sale = await till.sale(hold_window_ms=60_000)
        orders = [await till.hold(sale) for _ in range(10)]
        for order in orders:
            assert (await till.pay(order, "late", 400))[0] == 202
        till.gateway.kill()
        assert (await till.pay(orders[-1]))[0] in {202, 503}, "not known, and safe to repeat"
        await asyncio.to_thread(till.restart_gateway)
        _, ledger = await till.settled()
        assert ledger.states["paid"] == 10

    with till(tmp_path, seed) as made:
        asyncio.run(story(made))


@pytest.mark.timeout(180)
def test_a_gateway_that_is_killed_again_and_again_charges_nobody_twice(tmp_path: Path, seed: int) -> None:
    async def story(till: Till) -> None:
        await till.begin()
        races = asyncio.create_task(till.races(RACES // 4))
        for _ in range(3):
            await asyncio.sleep(till.dice.uniform(0.2, 0.8))
            till.gateway.kill()
            await asyncio.to_thread(till.restart_gateway)
        await races
        await till.settled(within_s=120.0)

    with till(tmp_path, seed, *UNPLEASANT) as made:
        asyncio.run(story(made))


@pytest.mark.timeout(120)
def test_a_gateway_that_does_not_answer_is_asked_again_and_charges_once(tmp_path: Path, seed: int) -> None:
    async def story(till: Till) -> None:
        await till.begin()
        order = await till.hold(await till.sale(hold_window_ms=60_000))
        os.kill(till.gateway.process.pid, signal.SIGSTOP)
        began_s = time.monotonic()
        assert (await till.pay(order))[0] == 202, "the payment goes on by itself"
        assert time.monotonic() - began_s < 2.0
        assert (await till.pay(order))[0] == 202, "and another one joins it"
        await asyncio.sleep(2.5)
        os.kill(till.gateway.process.pid, signal.SIGCONT)
        book, ledger = await till.settled()
        assert (len(book), ledger.states["paid"]) == (1, 1)

    with till(tmp_path, seed) as made:
        asyncio.run(story(made))


# --- steps ---------------------------------------------------------------------------------------


async def die(till: Till, moment: planted_payments.Moment) -> None:
    """Replace the node by one that will be killed at a moment."""
    till.nodes[0].kill()
    till.nodes[0] = till.node(0, moment)
    await till.nodes[0].serving()


async def until_dead(till: Till) -> None:
    until_s = time.monotonic() + 10
    while till.nodes[0].process.exitcode is None:
        assert time.monotonic() < until_s, "the node did not come to its moment"
        await asyncio.sleep(0.01)
    assert till.nodes[0].process.exitcode == -signal.SIGKILL


async def until_expired(till: Till, order: str) -> None:
    for _ in range(500):
        if (await till.order(order))["state"] != "held":
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the hold does not expire")


async def ask_refund(till: Till, order: str) -> None:
    """The operator's call; the connection ends before its answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", till.ports[0])
    writer.write(
        f"POST /v1/reservations/{order}/refund HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n".encode()
    )
    answer = await reader.read()
    writer.close()
    if not answer:
        raise ConnectionResetError("no answer")
