"""Nodes lose sight of their ledger, or it becomes slow: answers in time, and not one unit wrong.

TICKETRUSH_FAULT_ROUNDS=100 gives 20 rounds of each, TICKETRUSH_FAULT_SEED repeats a run's dice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.fleet import LONGEST_S, ROUNDS, Fleet
from tests.faults.network import far_valkey, slow_line
from tests.faults.test_nodes import fleets, seed, sells_again, story
from tests.valkey import own_valkey
from ticketrush.ledger.redis_node import LEASE_MS

__all__ = ["fleets", "seed"]

pytestmark = pytest.mark.timeout(90 + 60 * ROUNDS)


def test_a_node_whose_cable_is_pulled_answers_in_time_and_sells_again(
    seed: int, fleets: Callable[..., Fleet], tmp_path: Path
) -> None:
    """For longer than its lease, so that others sell what it had."""
    with far_valkey(tmp_path, 2) as server:
        fleet = fleets(server.url_over(0), 1, "memory", seed)
        fleet.url = server.url_over(1)
        cut_off = fleet.begin()

        async def cut() -> None:
            server.pull(1)
            await asyncio.sleep(LEASE_MS / 1_000 + 1 + fleet.dice.random())
            server.plug(1)

        story(fleet, cut)
        print(f"the slowest answer took {fleet.slowest_s:.3f} s")
        assert fleet.slowest_s < LONGEST_S
        asyncio.run(sells_again(fleet, cut_off))
        fleet.end()


def test_all_nodes_cut_off_for_a_moment_lose_nothing(seed: int, fleets: Callable[..., Fleet], tmp_path: Path) -> None:
    with far_valkey(tmp_path, 1) as server:
        fleet = fleets(server.url_over(0), 2, "memory", seed)

        async def cut() -> None:
            for _ in range(2):
                server.pull(0)
                await asyncio.sleep(fleet.dice.random() * 2)
                server.plug(0)
                await asyncio.sleep(fleet.dice.random())

        story(fleet, cut)
        print(f"the slowest answer took {fleet.slowest_s:.3f} s")
        assert fleet.slowest_s < LONGEST_S
        fleet.end()


def test_a_line_slower_than_patience_costs_nobody_more_than_patience(seed: int, fleets: Callable[..., Fleet]) -> None:
    """50 ms each way from the beginning, then more than a call may take, then well again."""
    with own_valkey("memory") as server, slow_line(server.port, 0.05) as line:
        fleet = fleets(server.url, 1, "memory", seed)
        fleet.url = f"redis://127.0.0.1:{line.port}/0"
        fleet.begin()

        async def crawl() -> None:
            line.delay_s = 1.0
            await asyncio.sleep(3.0 + fleet.dice.random())
            line.delay_s = 0.05

        story(fleet, crawl)
        print(f"the slowest answer took {fleet.slowest_s:.3f} s")
        assert fleet.slowest_s < LONGEST_S
        fleet.end()
