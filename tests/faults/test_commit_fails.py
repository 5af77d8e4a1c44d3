"""Commits that fail or hang: everybody gets a true answer in time, and selling goes on afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from unittest.mock import patch

import pytest

from tests.faults import planted
from tests.faults.failing import PATIENCE_S, Fate, How, desk_on
from tests.faults.line import Answer, Line
from tests.faults.nursery import Child
from ticketrush.engine import Engine
from ticketrush.errors import LedgerUnavailable
from ticketrush.events import AnyEvent, Held
from ticketrush.ledger.embedded import EmbeddedLedger, read_for_audit
from ticketrush.ledger.journal import Journal
from ticketrush.model import (
    Changed,
    Command,
    Item,
    Outcome,
    Reason,
    Refused,
    Reserve,
    Reserved,
    Sale,
    State,
)

RESUME_S: Final = 2.0
SLACK_S: Final = 1.0
"""What a busy machine may add to a bound."""


@pytest.fixture
def fate() -> Fate:
    return Fate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tickets.db"


async def hold(desk: Engine, key: str, buyer: str = "ann") -> Reserved:
    outcome = await desk.reserve("g", "second", buyer, key=key)
    assert isinstance(outcome, Reserved), outcome
    return outcome


async def refused(desk: Engine, key: str, buyer: str = "ann") -> Reason:
    outcome = await desk.reserve("g", "second", buyer, key=key)
    assert isinstance(outcome, Refused), outcome
    return outcome.reason


async def resumed(desk: Engine) -> None:
    """Wait until the desk says by itself that it sells again."""
    began_s = time.monotonic()
    while not desk.ready:
        assert time.monotonic() - began_s < RESUME_S, "it is still not ready"
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(("how", "happened"), [(How.FAIL_BEFORE, False), (How.FAIL_AFTER, True)])
def test_a_failed_commit_is_unknown_and_a_retry_gets_the_truth(
    how: How, happened: bool, fate: Fate, path: Path
) -> None:
    async def story() -> None:
        async with desk_on(path, fate) as desk:
            before = await hold(desk, "k0")
            fate.next(how)
            answers = await asyncio.gather(*(refused(desk, f"k{n}", f"b{n}") for n in range(1, 20)))
            assert set(answers) == {Reason.UNKNOWN}
            await resumed(desk)
            for n in range(1, 20):
                first = await hold(desk, f"k{n}", f"b{n}")
                again = await hold(desk, f"k{n}", f"b{n}")
                assert first.replayed is happened
                assert again.replayed
                assert again.reservation == first.reservation
            assert (await hold(desk, "k0")).reservation == before.reservation
            assert len([event for _, event in await desk.events() if isinstance(event, Held)]) == 20

    asyncio.run(story())


@pytest.mark.parametrize("how", [How.FAIL_BEFORE, How.FAIL_AFTER])
def test_payments_and_cancellations_are_never_done_by_halves(how: How, fate: Fate, path: Path) -> None:
    async def story() -> None:
        async with desk_on(path, fate) as desk:
            paid, cancelled = await hold(desk, "k1"), await hold(desk, "k2")
            fate.next(how)
            outcomes = await asyncio.gather(
                desk.confirm(paid.reservation.id, "p1"), desk.cancel(cancelled.reservation.id)
            )
            assert [outcome.reason for outcome in outcomes if isinstance(outcome, Refused)] == [Reason.UNKNOWN] * 2
            await resumed(desk)
            expected = [State.HELD] * 2 if how is How.FAIL_BEFORE else [State.PAID, State.CANCELLED]
            found = [await desk.reservation(each.reservation.id) for each in (paid, cancelled)]
            assert [each.state for each in found if each] == expected
            again = await desk.confirm(paid.reservation.id, "p1"), await desk.cancel(cancelled.reservation.id)
            assert [isinstance(each, Changed) and each.repeated for each in again] == [how is How.FAIL_AFTER] * 2

    asyncio.run(story())


def test_what_is_read_after_a_failed_commit_is_only_what_was_committed(fate: Fate, path: Path) -> None:
    async def story() -> None:
        async with desk_on(path, fate) as desk:
            held = await hold(desk, "k1")
            fate.broken_disk = True
            fate.next(How.FAIL_BEFORE)
            outcome = await desk.cancel(held.reservation.id)
            assert isinstance(outcome, Refused)
            assert await desk.reservation(held.reservation.id) == held.reservation
            stock = desk.stock("g")
            assert stock is not None
            assert (stock.levels[0].held, stock.levels[0].available) == (1, 99)
            assert not desk.ready
            fate.broken_disk = False
            await resumed(desk)

    asyncio.run(story())


def test_a_disk_that_stays_broken_refuses_everybody_at_once_and_is_tried_again(fate: Fate, path: Path) -> None:
    async def story() -> None:
        async with desk_on(path, fate) as desk:
            fate.broken_disk = True
            fate.next(How.FAIL_BEFORE)
            await refused(desk, "k0")
            began_s = time.monotonic()
            for n in range(50):
                assert await refused(desk, f"k{n}", f"b{n}") in {Reason.UNKNOWN, Reason.UNAVAILABLE}
            assert time.monotonic() - began_s < 1.0
            fate.broken_disk = False
            await resumed(desk)
            await hold(desk, "k0")

    asyncio.run(story())


def test_a_hung_commit_is_unknown_for_its_batch_and_unavailable_for_those_behind(fate: Fate, path: Path) -> None:
    async def story() -> None:
        async with desk_on(path, fate) as desk:
            fate.next(How.HANG)
            began_s = time.monotonic()
            inside = [asyncio.create_task(refused(desk, f"i{n}", f"b{n}")) for n in range(5)]
            await asyncio.sleep(0.05)
            behind = [asyncio.create_task(refused(desk, f"w{n}", f"c{n}")) for n in range(5)]
            assert set(await asyncio.gather(*inside)) == {Reason.UNKNOWN}
            assert set(await asyncio.gather(*behind)) == {Reason.UNAVAILABLE}
            assert 15 / 16 * PATIENCE_S <= time.monotonic() - began_s < 2 * PATIENCE_S + SLACK_S
            assert not desk.ready
            began_s = time.monotonic()
            assert await refused(desk, "late") is Reason.UNAVAILABLE
            assert time.monotonic() - began_s < 0.2, "nobody waits for a ledger that is known to hang"
            fate.free()
            await resumed(desk)
            assert [(await hold(desk, f"i{n}", f"b{n}")).replayed for n in range(5)] == [True] * 5
            assert [(await hold(desk, f"w{n}", f"c{n}")).replayed for n in range(5)] == [False] * 5

    asyncio.run(story())


def test_reads_do_not_wait_for_a_hung_commit_without_bound(fate: Fate, path: Path) -> None:
    """They may be refused (503 over HTTP), but they may not hang with it."""

    async def story() -> None:
        async with desk_on(path, fate) as desk:
            held = await hold(desk, "k1")
            fate.next(How.HANG)
            hung = asyncio.create_task(refused(desk, "k2"))
            await asyncio.sleep(0.02)
            async with asyncio.timeout(PATIENCE_S * 2 + SLACK_S):
                with contextlib.suppress(LedgerUnavailable):
                    assert await desk.reservation(held.reservation.id) == held.reservation
            await hung

    asyncio.run(story())


def test_closing_does_not_wait_for_a_hung_commit_without_bound(fate: Fate, path: Path) -> None:
    async def story() -> None:
        async with desk_on(path, fate) as desk:
            fate.next(How.HANG)
            hung = asyncio.create_task(refused(desk, "k1"))
            await asyncio.sleep(0.02)
            closing = asyncio.create_task(desk.close())
            done, _ = await asyncio.wait((closing,), timeout=PATIENCE_S * 2 + SLACK_S)
            answered, _ = await asyncio.wait((hung,), timeout=SLACK_S)
            fate.free()
            with contextlib.suppress(LedgerUnavailable):
                await closing
            assert done, "close waits as long as the commit hangs"
            assert answered, "who waited got no answer"
            assert await hung is Reason.UNKNOWN

    asyncio.run(story())


def test_a_broken_reply_costs_only_its_own_buyer_the_answer(fate: Fate, path: Path) -> None:
    async def story() -> None:
        async with desk_on(path, fate) as desk:
            for how in (How.WELL, How.FAIL_BEFORE, How.HANG):
                loop = asyncio.get_running_loop()
                answered: list[asyncio.Future[Outcome]] = []

                def broken(_: Outcome) -> None:
                    raise RuntimeError("this buyer's connection is broken")

                fate.next(how)
                for n in range(9):
                    command: Command = Reserve(
                        desk.new_id("g", f"b{how}{n}"), "g", "second", f"b{how}{n}", 1, f"k{how}{n}"
                    )
                    if n % 3 == 0:
                        desk.offer(command, broken)
                    else:
                        answered.append(loop.create_future())
                        desk.offer(command, answered[-1].set_result)
                async with asyncio.timeout(PATIENCE_S * 2 + SLACK_S):
                    await asyncio.gather(*answered)
                fate.free()
                await resumed(desk)
            await hold(desk, "after")

    asyncio.run(story())


@pytest.mark.parametrize("how", [How.FAIL_BEFORE, How.FAIL_AFTER, How.HANG])
def test_expiry_continues_after_its_own_commit_failed(how: How, fate: Fate, path: Path) -> None:
    """All units are held: the gate sends everybody away, so nobody else wakes the ledger up."""

    async def story() -> None:
        async with desk_on(path, fate, capacity=1, hold_ms=200) as desk:
            held = await hold(desk, "k1")
            fate.next(how, times=2)
            await asyncio.sleep(0.3)
            if how is How.HANG:
                await asyncio.sleep(PATIENCE_S)
                fate.free()
            began_s = time.monotonic()
            while isinstance(await desk.reserve("g", "second", "bob", key="k2"), Refused):
                assert time.monotonic() - began_s < RESUME_S, "the unit is stranded"
                await asyncio.sleep(0.01)
            first = await desk.reservation(held.reservation.id)
            assert first is not None
            assert first.state is State.EXPIRED

    asyncio.run(story())


def test_a_row_of_random_failures_leaves_memory_and_journal_the_same(fate: Fate, path: Path) -> None:
    async def buyer(desk: Engine, n: int) -> str:
        key = f"k{n}"
        async with asyncio.timeout(20):
            while True:
                outcome = await desk.reserve("g", "second", f"b{n}", key=key)
                if isinstance(outcome, Reserved):
                    return outcome.reservation.id
                assert outcome.reason in {Reason.UNKNOWN, Reason.UNAVAILABLE, Reason.OVERLOADED}
                await asyncio.sleep(0.02)

    async def weather() -> None:
        for how in (How.FAIL_BEFORE, How.FAIL_AFTER, How.HANG, How.FAIL_AFTER, How.FAIL_BEFORE):
            fate.next(how, times=2)
            await asyncio.sleep(PATIENCE_S + 0.1)
            fate.free()
        fate.next(How.WELL, 0)

    async def story() -> None:
        async with desk_on(path, fate, capacity=300) as desk:
            raging = asyncio.create_task(weather())
            ids: list[str] = []
            for first in range(0, 300, 30):
                ids += await asyncio.gather(*(buyer(desk, n) for n in range(first, first + 30)))
            await raging
            assert len(set(ids)) == 300
            stock = desk.stock("g")
            assert stock is not None
            assert (stock.levels[0].held, stock.levels[0].available) == (300, 0)
            await resumed(desk)

    asyncio.run(story())


def test_a_server_with_a_hung_disk_answers_and_stops_in_time(tmp_path: Path) -> None:
    """Whoever waits gets 503, reads too; SIGTERM ends it, and what it had acknowledged is there."""
    impatient = {"TICKETRUSH_PATIENCE_S": str(PATIENCE_S)}
    child = Child(tmp_path, "--durability", "memory", patches=(planted.hang_at_ann,), variables=impatient)

    async def ask(line: Line, buyer: str) -> Answer:
        return await line.call("POST", "/v1/sales/g/reservations", {"item": "second"}, buyer=buyer, key="k")

    async def hang(line: Line) -> str:
        sale = {"items": [{"id": "second", "capacity": 10}]}
        assert (await line.call("PUT", "/v1/sales/g", sale)).status == 201
        assert (await line.call("POST", "/v1/sales/g/open")).status == 200
        bob = await ask(line, "bob")
        assert bob.status == 201
        began_s = time.monotonic()
        assert (await ask(line, "ann")).code == "unknown"
        assert (await ask(line, "cid")).code == "unavailable"
        id = str(bob.json()["id"])
        for method, path in (
            ("GET", f"/v1/reservations/{id}"),
            ("GET", f"/v1/orders/{id}"),
            ("DELETE", f"/v1/reservations/{id}"),
            ("POST", f"/v1/orders/{id}/payment"),
        ):
            answer = await line.call(method, path, {"card": "approve"} if method == "POST" else None, buyer="bob")
            assert answer.status in {200, 503}, answer
        assert (await line.call("GET", "/v1/sales/g")).status == 200
        assert (await line.call("GET", "/healthz")).status == 200
        assert (await line.call("GET", "/readyz")).status == 503
        assert time.monotonic() - began_s < 6 * PATIENCE_S + 2 * SLACK_S
        return id

    async def story() -> None:
        await child.serving()
        async with Line(child.port) as line:
            id = await hang(line)
        began_s = time.monotonic()
        code = await asyncio.to_thread(child.stop)
        assert code > 0, f"exit code {code}, though a commit was given up"
        assert time.monotonic() - began_s < 2 * PATIENCE_S + 2 * SLACK_S
        events, _ = read_for_audit(child.ledger)
        assert [event.id for event in events if isinstance(event, Held)] == [id]

    try:
        asyncio.run(story())
    finally:
        child.kill()


def test_nobody_waits_longer_than_twice_the_patience_for_a_disk_that_is_only_slow(path: Path) -> None:
    """Each commit ends in time, but sixteen of them stand in a row."""
    append = Journal.append

    def slow(self: Journal, events: Sequence[AnyEvent]) -> None:
        time.sleep(0.5 * PATIENCE_S)
        append(self, events)

    async def story() -> None:
        engine = Engine(EmbeddedLedger(path, durability="memory"), batch_max=2, patience_s=PATIENCE_S)
        async with engine as desk:
            await desk.create_sale(Sale("g", (Item("second", 100),), opens_at_ms=0))
            with patch.object(Journal, "append", slow):
                began_s = time.monotonic()
                calls = [desk.reserve("g", "second", f"buyer-{n}", key=f"k{n}") for n in range(32)]
                outcomes = await asyncio.gather(*calls)
                assert time.monotonic() - began_s < 2 * PATIENCE_S + SLACK_S
            reasons = [outcome.reason for outcome in outcomes if isinstance(outcome, Refused)]
            assert set(reasons) == {Reason.UNAVAILABLE}
            sold = sum(isinstance(outcome, Reserved) for outcome in outcomes)
            assert sold >= 2
            stock = desk.stock("g")
            assert stock is not None
            assert stock.levels[0].held == sold, "who was told unavailable has nothing"

    asyncio.run(story())
