"""Wall time never goes backwards, whatever happens to the machine's clock."""

from __future__ import annotations

import threading
import time

import pytest

from tests.manual_clock import ManualClock
from ticketrush.clock import Clock, SystemClock

SECOND_NS = 1_000_000_000
BEGIN_NS = 1_700_000_000 * SECOND_NS


class Machine:
    """The machine's two clocks, moved by hand."""

    def __init__(self) -> None:
        self.wall_ns = BEGIN_NS
        self.monotonic_ns = 5 * SECOND_NS

    def pass_s(self, seconds: float) -> None:
        self.wall_ns += int(seconds * SECOND_NS)
        self.monotonic_ns += int(seconds * SECOND_NS)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(time, "time_ns", lambda: machine.wall_ns)
    monkeypatch.setattr(time, "monotonic_ns", lambda: machine.monotonic_ns)
    monkeypatch.setattr(time, "monotonic", lambda: machine.monotonic_ns / SECOND_NS)
    return machine


def test_it_tells_the_machines_time(machine: Machine) -> None:
    clock = SystemClock()
    assert clock.now_ms() == BEGIN_NS // 1_000_000
    machine.pass_s(1.5)
    assert clock.now_ms() == BEGIN_NS // 1_000_000 + 1_500
    assert clock.monotonic_s() == 6.5


def test_set_back_it_goes_on_at_the_pace_of_monotonic_time(machine: Machine) -> None:
    clock = SystemClock()
    before = clock.now_ms()
    machine.wall_ns -= 3_600 * SECOND_NS
    assert clock.now_ms() == before
    machine.pass_s(2)
    assert clock.now_ms() == before + 2_000


def test_set_forward_it_follows_at_once(machine: Machine) -> None:
    clock = SystemClock()
    before = clock.now_ms()
    machine.wall_ns += 60 * SECOND_NS
    assert clock.now_ms() == before + 60_000


def test_it_never_answers_less_than_not_before(machine: Machine) -> None:
    floor_ms = BEGIN_NS // 1_000_000 + 10_000
    clock = SystemClock(not_before_ms=floor_ms)
    assert clock.now_ms() == floor_ms
    machine.pass_s(3)
    assert clock.now_ms() == floor_ms + 3_000


def test_threads_never_see_it_go_backwards() -> None:
    clock = SystemClock()
    seen: list[bool] = []

    def read() -> None:
        answers = [clock.now_ms() for _ in range(20_000)]
        seen.append(answers == sorted(answers))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 4


def test_the_manual_clock_is_a_clock() -> None:
    clock = ManualClock(now_ms=1_000)
    as_clock: Clock = clock
    clock.advance(ms=250)
    assert (as_clock.now_ms(), as_clock.monotonic_s()) == (1_250, 0.25)
