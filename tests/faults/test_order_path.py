"""What makes orders is killed in mid-sale, one part after the other: not one order is lost or doubled.

The real path: a node's stream in Valkey, the relay, Apache Kafka, the order worker, PostgreSQL.
TICKETRUSH_FAULT_ROUNDS=100 gives 20 rounds of each, TICKETRUSH_FAULT_SEED repeats a run's dice.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Final, TypeVar

import pytest

from tests.faults.buyers import HOLD_S, Memory, Sale
from tests.faults.fleet import ROUNDS
from tests.faults.line import Line
from ticketrush import processes
from ticketrush.audit import audit
from ticketrush.cluster.backoffice import BackOffice
from ticketrush.cluster.plan import OWN_KAFKA, OWN_POSTGRES, ClusterPlan
from ticketrush.cluster.up import Cluster, cluster
from ticketrush.crowd.orders import orders_of
from ticketrush.events import AnyEvent
from ticketrush.ledger.redis import RedisLedger

pytestmark = pytest.mark.timeout(180 + 60 * ROUNDS)

CAPACITY: Final = 150
BUYERS: Final = 12
SELL_OUT_S: Final = 30.0

T = TypeVar("T")

Kill = Callable[[BackOffice], None]
Revive = Callable[[BackOffice], object]

_names: Final = count(1)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One node and everything behind it, for all rounds: each sells a sale of its own."""
    folder = tmp_path_factory.mktemp("path")
    plan = ClusterPlan(
        nodes=1,
        folder=folder,
        durability="memory",
        orders=OWN_POSTGRES,
        kafka=OWN_KAFKA,
        flags=("--open",),
        env=processes.plain_environment(),
    )
    with cluster(plan) as running:
        yield running


@pytest.fixture
def dice() -> random.Random:
    seed = int(os.environ.get("TICKETRUSH_FAULT_SEED", "") or random.SystemRandom().randrange(10**9))
    print(f"TICKETRUSH_FAULT_SEED={seed}")
    return random.Random(seed)


PARTS: Final[dict[str, tuple[Kill, Revive]]] = {
    "worker": (lambda of: of.workers[0].kill(), lambda of: of.workers[0].launch()),
    "relay": (lambda of: _there(of.relay).kill(), lambda of: _there(of.relay).launch()),
    "kafka": (lambda of: _there(of.broker).kill(), lambda of: _there(of.broker).start()),
    "postgres": (lambda of: _there(of.postgres).kill(), lambda of: _there(of.postgres).start()),
}


def _there(part: T | None) -> T:
    assert part is not None
    return part


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("round_", range(ROUNDS))
def test_a_part_is_killed_in_mid_sale_and_no_order_is_lost_or_doubled(
    path: Cluster, part: str, round_: int, dice: random.Random
) -> None:
    kill, revive = PARTS[part]
    memory = Memory()
    sale = Sale(f"p{next(_names)}", CAPACITY, memory, dice)
    _sell(path, sale, kill, revive, dice)

    events = asyncio.run(_events(path.ledger))
    began_s = time.monotonic()
    orders = orders_of(_there(path.office).orders, events)
    assert orders.drained_s is not None, f"orders are missing after {time.monotonic() - began_s:.1f} s:\n{_said(path)}"
    report = audit(events, orders=orders.records)
    assert report.ok, report.violations
    assert report.orders == report.reservations >= CAPACITY
    assert not _dead_letters(path), "a message became a dead letter"
    ended = [told for told in path.newly_ended() if f"by {signal.SIGKILL.name}" not in told]
    assert not ended, ended


def _sell(path: Cluster, sale: Sale, kill: Kill, revive: Revive, dice: random.Random) -> None:
    """The sale to its end. The crowd has a thread of its own; what is started ends with the thread that starts it."""
    port = int(path.nodes[0].url.rpartition(":")[2])
    is_over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        crowd = pool.submit(asyncio.run, _crowd(sale, port, is_over))
        try:
            time.sleep(0.4 + dice.random() * 0.4)
            kill(_there(path.office))
            time.sleep(dice.random())
            revive(_there(path.office))
            time.sleep(0.2)
        finally:
            is_over.set()
        crowd.result()
    asyncio.run(sale.sell_out(port, SELL_OUT_S))
    time.sleep(HOLD_S + 0.6)  # what was abandoned ends


async def _crowd(sale: Sale, port: int, is_over: threading.Event) -> None:
    """Buyers until `is_over`."""

    async def queue() -> None:
        async with Line(port) as line:
            while not is_over.is_set():
                await sale.shop(line)

    async with Line(port) as line:
        await sale.prepare(line)
    await asyncio.gather(*(queue() for _ in range(BUYERS)))


async def _events(url: str) -> list[AnyEvent]:
    ledger = RedisLedger(url, node="auditor", durability="memory")
    await ledger.open_for_operator()
    try:
        return [event for _, event in await ledger.events(0, 10**9)]
    finally:
        await ledger.close()


def _dead_letters(path: Cluster) -> list[str]:
    said = [program.log.read_text(errors="replace") for program in _there(path.office).workers]
    return [line for text in said for line in text.splitlines() if "dead_letter" in line]


def _said(path: Cluster) -> str:
    return "\n".join(program.log.read_text(errors="replace")[-3_000:] for program in _there(path.office).programs)
