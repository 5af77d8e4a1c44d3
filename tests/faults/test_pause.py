"""Time that is lost (a stopped process) or set back (a clock): holds end when they must, nothing else breaks."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.faults.buyers import Memory, Sale
from tests.faults.failing import Fate, desk_on
from tests.faults.line import Line
from tests.faults.nursery import Child
from tests.manual_clock import ManualClock
from ticketrush.audit import audit
from ticketrush.engine import Engine
from ticketrush.events import Expired, Held
from ticketrush.ledger.embedded import EmbeddedLedger, read_for_audit
from ticketrush.model import Confirm, Reason, Refused, Reservation, Reserved, State

PAUSE_S: Final = 3.0
SELL_OUT_S: Final = 30.0
AT_ONCE_S: Final = 1.0
"""How soon after the pause what fell due in it must have expired, on a busy machine."""


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    child = Child(tmp_path)
    yield child
    child.send(signal.SIGCONT)
    child.kill()


def test_what_fell_due_while_the_process_was_stopped_expires_at_once(child: Child) -> None:
    sale = Sale("s1", 200, Memory(), random.Random(7))

    async def story() -> None:
        await child.serving()
        async with Line(child.port) as line:
            await sale.prepare(line)
            held = [await sale.reserve(line, (f"abandons-{n}", f"a{n}", 1)) for n in range(30)]
            rush = asyncio.create_task(sale.rush(child.port))
            await asyncio.sleep(0.15)
            child.send(signal.SIGSTOP)
            await asyncio.sleep(PAUSE_S)
            child.send(signal.SIGCONT)
            continued_ms = int(time.time() * 1_000)
            await asyncio.sleep(AT_ONCE_S)
            rush.cancel()
            await asyncio.gather(rush, return_exceptions=True)
            assert (await line.call("GET", "/readyz")).status == 200
            late = [event for event in await journal() if isinstance(event, Expired) and event.id in held]
            assert len(late) == 30
            assert all(event.at_ms < continued_ms + AT_ONCE_S * 1_000 for event in late)
            await sale.settle(child.port)
            await sale.sell_out(child.port, SELL_OUT_S)
            level = await sale.level(line)
            assert level["sold"] == level["capacity"] == 200 + sale.restock
        assert child.stop() == 0

    async def journal() -> list[object]:
        events, _ = await asyncio.to_thread(read_for_audit, child.ledger)
        return list(events)

    asyncio.run(story())
    events, state = read_for_audit(child.ledger)
    report = audit(
        events,
        state=state,
        told=sale.memory.told,
        asked_for=sale.memory.was_asked,
        demand_exceeds_capacity=True,
        now_ms=int(time.time() * 1_000),
    )
    assert report.ok, report.violations
    assert not report.vacuous


class Clock(ManualClock):
    """A wall clock that an operator sets back."""

    def set_back(self, *, ms: int) -> None:
        self._now_ms -= ms


async def _hold(desk: Engine, key: str) -> Reservation:
    outcome = await desk.reserve("g", "second", "ann", key=key)
    assert isinstance(outcome, Reserved), outcome
    return outcome.reservation


def test_a_clock_set_back_keeps_events_in_order_and_holds_as_long_as_promised(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "tickets.db"

    async def story() -> None:
        async with desk_on(path, Fate(), hold_ms=1_000, clock=clock) as desk:
            first = await _hold(desk, "k1")
            clock.set_back(ms=3_600_000)
            second = await _hold(desk, "k2")
            assert second.held_at_ms >= first.held_at_ms
            assert second.expires_at_ms - second.held_at_ms == 1_000
            paid = await desk.execute(Confirm(first.id, "p1"))
            assert not isinstance(paid, Refused)
            clock.advance(ms=3_600_000 + 1_000)
            for _ in range(100):
                now = await desk.reservation(second.id)
                if now is not None and now.state is State.EXPIRED:
                    break
                await desk.reserve("g", "second", "wakes-it-up", key="k3")
                await asyncio.sleep(0.005)
            else:
                raise AssertionError("it never expired")

    asyncio.run(story())
    _in_order(path)


def test_a_restart_with_the_clock_set_back_goes_on_where_the_journal_ended(tmp_path: Path) -> None:
    clock = Clock()
    path = tmp_path / "tickets.db"

    async def before() -> Reservation:
        async with desk_on(path, Fate(), hold_ms=1_000, clock=clock) as desk:
            return await _hold(desk, "k1")

    async def after(first: Reservation) -> None:
        clock.set_back(ms=3_600_000)
        async with Engine(EmbeddedLedger(path), clock=clock) as desk:
            assert await _hold(desk, "k1") == first
            second = await _hold(desk, "k2")
            assert second.held_at_ms >= first.held_at_ms
            assert second.expires_at_ms - second.held_at_ms == 1_000

    asyncio.run(after(asyncio.run(before())))
    _in_order(path)


def test_a_hold_ends_in_time_though_the_clock_was_set_back_over_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine's own clock, an hour back after a restart: a hold of 0.5 s must not last an hour."""
    path = tmp_path / "tickets.db"
    real_ns = time.time_ns

    async def before() -> Reservation:
        async with desk_on(path, Fate(), capacity=1, hold_ms=500) as desk:
            return await _hold(desk, "k1")

    async def after() -> None:
        async with Engine(EmbeddedLedger(path)) as desk:
            began_s = time.monotonic()
            while True:
                outcome = await desk.reserve("g", "second", "bob", key="k2")
                if isinstance(outcome, Reserved):
                    return
                assert outcome.reason is Reason.ALL_HELD
                assert time.monotonic() - began_s < 2.0, "the hold did not end: its unit is stranded for an hour"
                await asyncio.sleep(0.01)

    asyncio.run(before())
    monkeypatch.setattr(time, "time_ns", lambda: real_ns() - 3_600 * 10**9)
    asyncio.run(after())
    _in_order(path)


def test_expiry_is_not_starved_by_buyers_who_change_nothing(tmp_path: Path) -> None:
    """Repetitions are decided in microseconds; a stream of them leaves no pause to wait for."""

    async def story() -> None:
        async with desk_on(tmp_path / "tickets.db", Fate(), hold_ms=200) as desk:
            held = await _hold(desk, "k1")
            until_s = time.monotonic() + 0.8
            while time.monotonic() < until_s:
                await _hold(desk, "nervous")
                now = await desk.reservation(held.id)
                if now is not None and now.state is State.EXPIRED:
                    return
            raise AssertionError("the hold fell due 0.6 s ago")

    asyncio.run(story())


def _in_order(path: Path) -> None:
    events, state = read_for_audit(path)
    times = [event.at_ms for event in events]
    assert times == sorted(times)
    assert min(times) > 0
    assert all(event.expires_at_ms > event.at_ms for event in events if isinstance(event, Held))
    report = audit(events, state=state)
    assert report.ok, report.violations
