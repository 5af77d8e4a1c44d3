"""Nodes die, hang and come back; the servers they share are killed and replaced: not one unit too many or too few.

TICKETRUSH_FAULT_ROUNDS=100 gives 20 rounds of each, TICKETRUSH_FAULT_SEED repeats a run's dice.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from redis import Redis

from tests.faults.buyers import Sale
from tests.faults.fleet import LONGEST_S, ROUNDS, Fleet
from tests.faults.forgetting import cut_tail
from tests.faults.line import Line
from tests.faults.nursery import Child
from tests.valkey import fresh_database, own_valkey, valkey
from ticketrush.cluster.topology import Sentinels, primaries, replicas, sentinels
from ticketrush.cluster.valkey import Valkey

__all__ = ["valkey"]

pytestmark = pytest.mark.timeout(90 + 60 * ROUNDS)

SEEDS: Final = range(ROUNDS)
CAPACITY: Final = 400
ANSWER_S: Final = 3.0
"""The longest that anybody may wait: the patience for a commit, and a moment."""


@pytest.fixture(params=SEEDS)
def seed() -> int:
    """Printed when a test fails."""
    drawn = int(os.environ.get("TICKETRUSH_FAULT_SEED", "") or random.SystemRandom().randrange(10**9))
    print(f"TICKETRUSH_FAULT_SEED={drawn}")
    return drawn


@pytest.fixture
def fleets(tmp_path: Path) -> Iterator[Callable[..., Fleet]]:
    """Makes a fleet; its processes are gone afterwards."""
    made: list[Fleet] = []

    def make(url: str, count: int, durability: str, seed: int, *flags: str) -> Fleet:
        made.append(Fleet(tmp_path, url, count, durability, seed, *flags))
        return made[-1]

    yield make
    for fleet in made:
        fleet.end()


def story(fleet: Fleet, fault: Callable[[], Awaitable[object]]) -> Sale:
    """A sale with a fault in it; all must be well afterwards."""
    sale = Sale("g1", CAPACITY, fleet.memory, fleet.dice)

    async def run() -> None:
        await fleet.sell(sale, fault)
        await fleet.all_is_well(sale)

    asyncio.run(run())
    return sale


def test_half_of_the_nodes_are_killed(valkey: Valkey, seed: int, fleets: Callable[..., Fleet]) -> None:
    fleet = fleets(fresh_database(valkey), 4, "memory", seed)

    async def kill_two() -> None:
        for node in fleet.dice.sample(fleet.living, 2):
            assert node.kill() == -signal.SIGKILL
            await asyncio.sleep(fleet.dice.random() * 0.2)

    story(fleet, kill_two)
    assert len(fleet.living) == 2
    assert fleet.slowest_s < ANSWER_S


async def sells_again(fleet: Fleet, node: Child) -> None:
    """A node that was away sells, under a new lease."""
    sale = Sale("g2", 10, fleet.memory, fleet.dice)
    async with Line(node.port) as line:
        await sale.prepare(line)
        assert isinstance(await sale.reserve(line, ("ann", "k1", 1)), str)


def leases(url: str) -> dict[str, int]:
    """What was spent of each lease, as the sale's book says, and up to which number those of a node are closed."""
    with Redis.from_url(url, protocol=3) as server:
        rows: dict[bytes, bytes] = server.hgetall("ticketrush:{g1:0}:leases")
    return {name.decode(): int(value) for name, value in rows.items()}


def spent_of(url: str, closed: dict[str, int]) -> dict[str, int]:
    """What was spent of the leases that are `closed`."""
    found = {}
    for name, units in leases(url).items():
        lease, _, item = name.partition(" ")
        life, _, number = lease.rpartition(".")
        if number.isdigit() and int(number) <= closed.get(f"closed {life} {item}", 0):
            found[name] = units
    return found


def test_a_node_that_hung_for_longer_than_its_lease_spends_nothing_of_it(
    valkey: Valkey, seed: int, fleets: Callable[..., Fleet]
) -> None:
    url = fresh_database(valkey)
    fleet = fleets(url, 2, "memory", seed)
    zombie = fleet.nodes[0]
    its_own = f"closed {zombie.folder.name}."
    closed: dict[str, int] = {}
    before: dict[str, int] = {}

    async def hang() -> None:
        zombie.send(signal.SIGSTOP)
        until_s = time.monotonic() + 7.0  # its buyers wait as long
        while not any(name.startswith(its_own) for name in closed) and time.monotonic() < until_s:
            await asyncio.sleep(0.1)
            closed.update((name, number) for name, number in leases(url).items() if name.startswith("closed "))
        before.update(spent_of(url, closed))
        zombie.send(signal.SIGCONT)

    story(fleet, hang)
    asyncio.run(sells_again(fleet, zombie))
    assert any(name.startswith(its_own) for name in closed), "its lease was closed meanwhile"
    assert before, "something had been spent of it"
    assert spent_of(url, closed) == before, "something was spent of a closed lease"


def test_a_killed_server_with_fsync_has_lost_nothing(seed: int, fleets: Callable[..., Fleet]) -> None:
    with own_valkey("fsync") as server:
        fleet = fleets(server.url, 2, "fsync", seed)

        async def restart() -> None:
            await asyncio.to_thread(server.kill)
            await asyncio.sleep(fleet.dice.random())
            await asyncio.to_thread(server.start)

        story(fleet, restart)
        assert fleet.slowest_s < ANSWER_S


def test_what_a_server_has_forgotten_is_written_again_by_the_nodes(seed: int, fleets: Callable[..., Fleet]) -> None:
    with own_valkey("memory") as server:
        fleet = fleets(server.url, 2, "memory", seed)

        async def lose_the_tail() -> None:
            await asyncio.to_thread(server.kill)
            cut_tail(server.folder, fleet.dice.randrange(1_000, 60_000))
            await asyncio.to_thread(server.start)

        story(fleet, lose_the_tail)
        assert "ledger_made_whole" in fleet.said()


def test_nodes_that_start_as_a_forgetful_server_comes_back_sell_nothing_twice(
    seed: int, fleets: Callable[..., Fleet]
) -> None:
    with own_valkey("memory") as server:
        fleet = fleets(server.url, 2, "memory", seed)

        async def lose_the_tail_and_begin() -> None:
            await asyncio.to_thread(server.kill)
            cut_tail(server.folder, fleet.dice.randrange(1_000, 60_000))
            await asyncio.to_thread(server.start)
            for _ in range(2):
                fleet.begin()
            await fleet.serving()

        story(fleet, lose_the_tail_and_begin)


def test_what_nobody_remembers_is_reported_and_never_sold_twice(seed: int, fleets: Callable[..., Fleet]) -> None:
    """A node dies together with the tail that only it had acknowledged."""
    with own_valkey("memory") as server:
        fleet = fleets(server.url, 2, "memory", seed)
        sale = Sale("g1", CAPACITY, fleet.memory, fleet.dice)

        async def lose_the_tail_and_a_node() -> None:
            await asyncio.to_thread(server.kill)
            fleet.nodes[0].kill()
            cut_tail(server.folder, 60_000)
            await asyncio.to_thread(server.start)

        async def run() -> None:
            await fleet.sell(sale, lose_the_tail_and_a_node, told_twice=False)
            report = await fleet.audit(sold_out=False)
            assert report.oversold == 0
            assert set(report.broken) <= {"I3", "I4"}, report.violations
            only_it_knew = list(fleet.memory.told_at.values()).count(fleet.nodes[0].port)
            print(f"lost {report.lost} of {only_it_knew} that the dead node had acknowledged")
            assert report.lost <= only_it_knew, "a living node had acknowledged it too"

        asyncio.run(run())


def test_a_failover_to_a_replica_loses_nothing_acknowledged(seed: int, fleets: Callable[..., Fleet]) -> None:
    with own_valkey("memory") as primary, replicas(primary, 2), sentinels(primary) as watchers:
        fleet = fleets(watchers.url, 2, "replica", seed)
        resumed_s: list[float] = []

        async def lose_the_primary() -> None:
            await asyncio.to_thread(primary.kill)
            before = primary.port
            await asyncio.to_thread(failed_over, watchers, before)
            resumed_s.append(await fleet.well_again())

        sale = Sale("g1", CAPACITY, fleet.memory, fleet.dice)

        async def run() -> None:
            await fleet.sell(sale, lose_the_primary)
            await fleet.all_is_well(sale)

        asyncio.run(run())
        assert resumed_s[0] <= 10.0, "seconds from the promotion until every node sells again"


def failed_over(watchers: Sentinels, before: int) -> None:
    """Wait until the sentinels have put another server in the place of the one at port `before`."""
    until_s = time.monotonic() + 30
    while watchers.primary_port() == before:
        assert time.monotonic() < until_s, "no failover within 30 s"
        time.sleep(0.05)


def test_three_primaries_sell_one_item_over_three_shards(
    seed: int, fleets: Callable[..., Fleet], tmp_path: Path
) -> None:
    with primaries(tmp_path) as servers:
        fleet = fleets(servers.url, 2, "memory", seed, "--shards", "3")

        async def nothing() -> None:
            await asyncio.sleep(0)

        story(fleet, nothing)
        owners = {servers.owner_of(f"{{g1:{number}}}").port for number in range(3)}
        assert len(owners) > 1, "the books are on several servers"


def test_the_server_away_for_a_while_costs_nobody_more_than_patience(seed: int, fleets: Callable[..., Fleet]) -> None:
    with own_valkey("memory") as server:
        fleet = fleets(server.url, 2, "memory", seed)

        async def hang() -> None:
            server.pause()
            await asyncio.sleep(4.0)
            server.resume()

        story(fleet, hang)
        print(f"the slowest answer took {fleet.slowest_s:.3f} s")
        assert fleet.slowest_s < LONGEST_S
