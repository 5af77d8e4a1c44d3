"""``kill -9`` at any moment: nothing that was acknowledged is lost, no unit is sold twice or stranded.

A journal lives through several crashes. Each round starts a sale, sends buyers, kills the server at
a random moment (in the sale, in its first moments, in its graceful stop, in its next starts), starts
it again, asks again what got no answer, sells the sale to its end, and audits everything since the
journal began.

TICKETRUSH_FAULT_ROUNDS is the number of rounds in all, TICKETRUSH_FAULT_SEED repeats a run's dice
(not its timing).
"""

from __future__ import annotations

import asyncio
import enum
import os
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest

from tests.faults import planted
from tests.faults.buyers import Memory, Sale
from tests.faults.line import Line
from tests.faults.nursery import Child, Patch
from tests.servers import Server, running
from ticketrush.audit import AuditReport, LedgerState, audit
from ticketrush.audit.check import OVERDUE_MS
from ticketrush.events import AnyEvent, Cancelled, Refunded
from ticketrush.ledger.embedded import read_for_audit

ROUNDS: Final = int(os.environ.get("TICKETRUSH_FAULT_ROUNDS", "8"))
ROUNDS_OF_A_JOURNAL: Final = 10
SELL_OUT_S: Final = 15.0
CRASHES_MAX: Final = 10
RUSH_S: Final = 0.6
"""The longest that a round waits for its moment."""


class Moment(enum.Enum):
    """When the server is killed."""

    IN_THE_SALE = "in the sale"
    AT_THE_BEGINNING = "at the beginning"
    WHILE_STOPPING = "while stopping"
    WHILE_STARTING = "while starting"


_CHANCES: Final = {
    Moment.IN_THE_SALE: 50,
    Moment.AT_THE_BEGINNING: 10,
    Moment.WHILE_STOPPING: 20,
    Moment.WHILE_STARTING: 20,
}


class Life:
    """One journal, its servers one after another, and all that buyers were told."""

    def __init__(self, folder: Path, durability: str, seed: int, *patches: Patch) -> None:
        self.folder, self.durability, self.patches = folder, durability, patches
        self.dice = random.Random(seed)
        self.memory = Memory()
        self.sales = 0
        self.sell_out_s = SELL_OUT_S
        self.kills = 0
        self.child: Child | None = None

    def begin(self) -> Child:
        """Start a server."""
        self.child = Child(self.folder, "--durability", self.durability, patches=self.patches)
        return self.child

    def end(self) -> None:
        """Leave no process behind."""
        if self.child is not None:
            self.child.kill()

    def kill(self, child: Child) -> None:
        """``kill -9``; one that had ended by itself must have ended well."""
        code = child.kill()
        assert code in {-signal.SIGKILL, 0}, f"exit code {code}: {child.errors()}"
        self.kills += code == -signal.SIGKILL

    def new_sale(self) -> Sale:
        """Another sale on the same journal."""
        self.sales += 1
        return Sale(f"s{self.sales}", self.dice.randrange(50, 500), self.memory, self.dice)

    async def round(self) -> Moment:
        """One sale, one crash or several, and the audit of everything so far."""
        dice = self.dice
        moment = dice.choices(list(_CHANCES), list(_CHANCES.values()))[0]
        sale = self.new_sale()
        await self.crash(sale, moment)
        child = await self.begin_again(moment)
        await sale.settle(child.port)
        await sale.sell_out(child.port, self.sell_out_s)
        await self.check(child, sale)
        return moment

    async def crash(self, sale: Sale, moment: Moment) -> None:
        """Send the buyers, and kill the server in the midst of them."""
        dice, child = self.dice, self.child
        if child is None:
            child = await self.begin_again(moment)
        sale.kill_after = dice.randrange(0, 60) if moment is Moment.AT_THE_BEGINNING else dice.randrange(60, 1_500)
        rush = asyncio.create_task(sale.rush(child.port))
        try:
            async with asyncio.timeout(RUSH_S):
                await sale.answered.wait()
        except TimeoutError:
            pass
        await asyncio.sleep(dice.random() * 0.01)
        if moment is Moment.WHILE_STOPPING:
            child.send(signal.SIGTERM)
            await asyncio.sleep(dice.random() * 0.15)
        self.kill(child)
        await rush

    async def begin_again(self, moment: Moment) -> Child:
        """Start a server on the journal; it may be killed before it serves, and started again."""
        if moment is Moment.WHILE_STARTING:
            for _ in range(self.dice.randrange(1, 4)):
                child = self.begin()
                await self.owns_the_journal(child)
                await asyncio.sleep(self.dice.random() * 0.03)
                self.kill(child)
        child = self.begin()
        await child.serving()
        return child

    async def owns_the_journal(self, child: Child) -> None:
        """Wait for the moment in which it reads or makes the journal."""
        lock = self.folder / "tickets.db.lock"
        until_s = time.monotonic() + 5.0
        while time.monotonic() < until_s:
            if lock.exists() and lock.read_text() == str(child.pid):
                return
            await asyncio.sleep(0.001)
        raise AssertionError(f"the server did not take the journal: {child.errors()}")

    async def check(self, child: Child, sale: Sale) -> None:
        """All of the sale is sold, and all invariants hold since the journal began."""
        async with Line(child.port) as line:
            level = await sale.level(line)
            capacity = sale.capacity + sale.restock
            assert (level["sold"], level["capacity"]) == (capacity, capacity), level
        said, replayed = await self.claims(child)
        assert said == replayed[1], "the server's memory is not its journal"
        events = replayed[0]
        report = self.audit(events, said, sold_out=True)
        assert report.ok, report.violations
        assert (report.lost, report.oversold, report.undersold, report.unexpected) == (0, 0, 0, 0)
        assert not report.vacuous
        ended = {event.id: type(event) for event in events if isinstance(event, Cancelled | Refunded)}
        kinds = {"cancelled": Cancelled, "refunded": Refunded}
        for id, state in self.memory.gone.items():
            assert ended.get(id) is kinds[state], f"{id} was acknowledged as {state}"

    async def claims(self, child: Child) -> tuple[LedgerState, tuple[list[AnyEvent], LedgerState]]:
        """What the server claims; the events on the disk, and the state that they make."""
        async with Line(child.port) as line:
            said = msgspec.convert((await line.call("GET", "/v1/audit/state")).json(), LedgerState)
        return said, await asyncio.to_thread(read_for_audit, child.ledger)

    def audit(self, events: list[AnyEvent], said: LedgerState, *, sold_out: bool) -> AuditReport:
        """The events held against what the server claims and what buyers were told."""
        return audit(
            events,
            state=said,
            told=self.memory.told,
            asked_for=self.memory.was_asked,
            demand_exceeds_capacity=sold_out,
            now_ms=int(time.time() * 1_000),
        )


@pytest.fixture
def seed() -> int:
    """Printed when a test fails."""
    drawn = int(os.environ.get("TICKETRUSH_FAULT_SEED", "") or random.SystemRandom().randrange(10**9))
    print(f"TICKETRUSH_FAULT_SEED={drawn}")
    return drawn


@pytest.mark.timeout(60 + 6 * ROUNDS)
@pytest.mark.parametrize("durability", ["fsync", "memory"])
def test_a_killed_server_forgets_nothing(durability: str, seed: int, tmp_path: Path) -> None:
    rounds = (ROUNDS + (durability == "fsync")) // 2
    moments: Counter[str] = Counter()
    kills = 0
    for first in range(0, rounds, ROUNDS_OF_A_JOURNAL):
        folder = tmp_path / f"journal-{first}"
        folder.mkdir()
        life = Life(folder, durability, seed + first, planted.snapshot_often)
        try:
            moments.update(asyncio.run(live(life, min(ROUNDS_OF_A_JOURNAL, rounds - first))))
        finally:
            life.end()
        kills += life.kills
        shutil.rmtree(folder)
    print(f"{rounds} rounds with {kills} kills, durability {durability}: {dict(moments)}")


async def live(life: Life, rounds: int) -> list[str]:
    """Several rounds on one journal, and a graceful stop at the end."""
    moments = [(await life.round()).value for _ in range(rounds)]
    assert life.child is not None
    assert life.child.stop() == 0
    return moments


def test_the_command_line_server_survives_kill_9() -> None:
    """As people start it, with tokens; the rounds above start it in a shorter way."""
    with running() as server:
        server.open_sale("g1", {"second": 3}, limit=2)
        first = server.reserve("g1", buyer="ada", key="k1")
        assert first.status == 201
        assert server.kill() == -signal.SIGKILL
        again = Server(server.folder)
        try:
            repeated = again.reserve("g1", buyer="ada", key="k1")
            assert repeated.status == 200
            assert repeated.json()["id"] == first.json()["id"]
            assert again.level("g1")["held"] == 1
            assert again.audit()["ok"]
        finally:
            assert again.stop() == 0


@pytest.fixture
def flawed(request: pytest.FixtureRequest, seed: int, tmp_path: Path) -> Iterator[Life]:
    """A journal served by a server with a planted bug."""
    life = Life(tmp_path, "memory", seed, planted.snapshot_often, request.param)
    life.sell_out_s = 1.5
    yield life
    life.end()


@pytest.mark.parametrize("flawed", [planted.answer_before_commit], indirect=True)
def test_answers_before_the_commit_are_caught(flawed: Life) -> None:
    async def crash_and_audit() -> AuditReport:
        child = await flawed.begin_again(Moment.IN_THE_SALE)
        for _ in range(CRASHES_MAX):
            await flawed.crash(flawed.new_sale(), Moment.IN_THE_SALE)
            child = await flawed.begin_again(Moment.IN_THE_SALE)
            if flawed.memory.told.acknowledged:  # a slow machine may not have come to it
                break
        said, (events, _) = await flawed.claims(child)
        return flawed.audit(events, said, sold_out=False)

    report = asyncio.run(crash_and_audit())
    assert report.lost > 0
    assert report.broken[0] == "I3"


@pytest.mark.parametrize("flawed", [planted.forget_who_is_due], indirect=True)
def test_units_stranded_by_a_restart_are_caught(flawed: Life) -> None:
    async def crash_and_audit() -> AuditReport:
        sale = Sale("s1", 500, flawed.memory, flawed.dice)  # so many that some are held, whenever it is killed
        await flawed.crash(sale, Moment.IN_THE_SALE)
        child = await flawed.begin_again(Moment.IN_THE_SALE)
        await sale.sell_out(child.port, flawed.sell_out_s)
        said, (events, _) = await flawed.claims(child)
        later_ms = int(time.time() * 1_000) + 2 * OVERDUE_MS
        return audit(events, state=said, demand_exceeds_capacity=True, now_ms=later_ms)

    report = asyncio.run(crash_and_audit())
    assert report.undersold > 0
    assert report.broken == ["I7"]
