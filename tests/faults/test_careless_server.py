"""A server that is full gives no false success; one that would break a promise is refused at the start.

TICKETRUSH_FAULT_ROUNDS=100 gives 20 rounds of what is random, TICKETRUSH_FAULT_SEED repeats a run's dice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.buyers import Sale
from tests.faults.fleet import LONGEST_S, ROUNDS, Fleet
from tests.faults.nursery import Child
from tests.faults.test_nodes import fleets, seed
from tests.valkey import own_valkey

__all__ = ["fleets", "seed"]

pytestmark = pytest.mark.timeout(90 + 60 * ROUNDS)


def test_a_full_server_gives_no_false_success(seed: int, fleets: Callable[..., Fleet]) -> None:
    with own_valkey("memory") as server:
        fleet = fleets(server.url, 2, "memory", seed)
        sale = Sale("g1", 400, fleet.memory, fleet.dice)

        async def fill() -> None:
            server.ask("CONFIG SET maxmemory 1mb")
            await asyncio.sleep(0.3)
            told, refused = len(fleet.memory.told.acknowledged), sale.codes["unavailable"]
            await asyncio.sleep(1.0)
            assert len(fleet.memory.told.acknowledged) == told, "a success while nothing can be written"
            assert sale.codes["unavailable"] > refused
            server.ask("CONFIG SET maxmemory 0")

        async def run() -> None:
            await fleet.sell(sale, fill)
            await fleet.all_is_well(sale)

        asyncio.run(run())
        print(f"the slowest answer took {fleet.slowest_s:.3f} s")
        assert fleet.slowest_s < LONGEST_S


@pytest.mark.parametrize(
    ("setting", "durability", "named"),
    [
        ("maxmemory-policy allkeys-lru", "memory", "maxmemory-policy 'allkeys-lru'"),
        ("appendonly no", "fsync", "appendonly 'no'"),
        ("appendfsync everysec", "fsync", "appendfsync 'everysec'"),
        ("appendonly yes", "replica", "start a replica"),
    ],
)
def test_a_server_that_would_break_the_promise_is_refused_at_start(
    setting: str, durability: str, named: str, tmp_path: Path
) -> None:
    with own_valkey("fsync") as server:
        server.ask(f"CONFIG SET {setting}")
        node = Child(tmp_path, "--durability", durability, "--node", "node-1", ledger=server.url)
        with pytest.raises(AssertionError, match="did not start"):
            asyncio.run(node.serving())
        said = (tmp_path / "stderr.txt").read_text()
        assert named in said
        assert "Traceback" not in said
