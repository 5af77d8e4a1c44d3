"""Behind Nginx nodes die and are restarted, and buyers hardly notice: every ticket is sold once, to one of them.

Buyers name a key with each request, as docs/http.md asks them to, and take the first answer.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.buyers import Memory, Sale
from tests.faults.fleet import audit_of
from tests.faults.line import Answer, Cut, Line
from tests.front_doors import Door, address_of, front_door
from ticketrush.audit import AuditReport

BUYERS: Final = 32
"""At once; each takes a moment between two requests, so that the machine has time for all."""
PAUSE_S: Final = 0.04
FAIL_TIMEOUT_S: Final = 2
DETECTED_S: Final = 3.0
AWAY_S: Final = 7.0
"""How long a dead node stays dead: several times the time after which Nginx tries it again."""


class Shop:
    """A sale behind Nginx, and buyers who count what went wrong."""

    def __init__(self, door: Door, capacity: int) -> None:
        self.door = door
        self.memory = Memory()
        self.sale = Sale("g1", capacity, self.memory, random.Random(1))
        self.failed: Counter[str] = Counter()
        self.requests = 0
        self._numbers = 0
        self._closing = False

    async def open(self) -> None:
        async with Line(self.door.port) as line:
            await self.sale.prepare(line)

    async def rush(self, fault: Callable[[], Awaitable[None]]) -> None:
        """Buyers come and go while `fault` happens."""
        self._closing = False
        tasks = [asyncio.create_task(self._queue()) for _ in range(BUYERS)]
        try:
            await fault()
        finally:
            self._closing = True
            await asyncio.gather(*tasks)

    async def _queue(self) -> None:
        async with Line(self.door.port) as line:
            while not self._closing:
                await self._buy(line)
                await asyncio.sleep(PAUSE_S * (0.5 + random.random()))

    async def _buy(self, line: Line) -> None:
        """Reserve and pay, each once."""
        self._numbers += 1
        buyer, key = f"g1-buyer-{self._numbers}", f"key-{self._numbers}"
        id = await self._count(self.sale.reserve(line, (buyer, key, 1)))
        if isinstance(id, str):
            await self._count(self._pay(line, id, buyer, key))

    async def _pay(self, line: Line, id: str, buyer: str, key: str) -> Answer:
        path = f"/v1/orders/{id}/payment"
        answer = await line.call("POST", path, {"card": "approve"}, buyer=buyer, key=f"pay-{key}")
        if answer.status == 200:
            self.memory.told.paid.add(str(answer.json()["order"]["replaced_by"] or id))
        return answer

    async def _count(self, asked: Awaitable[str | Answer]) -> str | Answer | None:
        self.requests += 1
        try:
            answer = await asked
        except (Cut, TimeoutError) as error:
            self.failed[type(error).__name__] += 1
            return None
        if isinstance(answer, Answer) and answer.status >= 500:
            self.failed[answer.code] += 1
        return answer

    async def settle(self) -> AuditReport:
        """Ask again what is in doubt, sell what is left, and hold all that buyers were told against the ledger."""
        await self.sale.settle(self.door.port)
        await self.sale.sell_out(self.door.port, 30.0)
        return await audit_of(self.door.cluster.ledger, self.memory, durability="memory", sold_out=True)

    async def level(self) -> dict[str, int]:
        """Units as the nodes show them, once all of them have heard of the last sale."""
        whole = self.sale.capacity + self.sale.restock
        async with Line(self.door.port) as line:
            level = await self.sale.level(line)
            for _ in range(100):
                if level["sold"] >= whole:
                    break
                await asyncio.sleep(0.05)
                level = await self.sale.level(line)
        return level

    def check(self, report: AuditReport, level: dict[str, int]) -> None:
        """Exactly the capacity is sold, nothing twice, and nobody is forgotten."""
        whole = self.sale.capacity + self.sale.restock
        assert report.ok, report.violations
        assert (report.lost, report.oversold, report.undersold, report.unexpected) == (0, 0, 0, 0)
        assert (level["sold"], level["available"], level["capacity"]) == (whole, 0, whole)


def tries_at(door: Door, address: str) -> list[dict[str, Any]]:
    """The log's lines of requests that were tried at a node, by time."""
    lines = [line for line in door.lines() if address in line["node"].replace(" : ", ", ").split(", ")]
    return sorted(lines, key=lambda line: float(line["msec"]))


@pytest.mark.parametrize("policy", ["weighted", "buyer-hash"])
def test_a_killed_node_costs_hardly_a_request_and_is_shut_out_within_three_seconds(tmp_path: Path, policy: str) -> None:
    with front_door(tmp_path, (1, 1, 1), flags=("--open",), policy=policy, fail_timeout_s=FAIL_TIMEOUT_S) as door:
        shop = Shop(door, 1_500)
        victim = door.nodes[1]
        address = address_of(victim)
        killed_at: list[float] = []

        async def kill() -> None:
            await asyncio.sleep(1.0)
            killed_at.append(time.time())
            victim.kill()
            await asyncio.sleep(AWAY_S)

        async def story() -> tuple[AuditReport, dict[str, int]]:
            await shop.open()
            await shop.rush(kill)
            return await shop.settle(), await shop.level()

        report, level = asyncio.run(story())
        door.lines(count=shop.requests)
        lines = tries_at(door, address)

    shop.check(report, level)
    before = [line for line in lines if line["msec"] <= killed_at[0]]
    tries = lines[len(before) :]
    share = shop.failed.total() / shop.requests
    at = [line["msec"] - killed_at[0] for line in tries]
    shut_out_s = max([0.0, *(second for first, second in pairwise(at) if second - first < FAIL_TIMEOUT_S / 2)])
    print(
        f"{policy}: {shop.failed.total()} of {shop.requests} failed ({share:.2%}) {dict(shop.failed)}; shut out after "
        f"{shut_out_s:.3f} s, tried again {sum(second > shut_out_s for second in at)} times in {AWAY_S:g} s; "
        f"{sum(line['retries'] > 0 for line in tries)} were asked of another node"
    )
    assert len(before) > 20, "it had its share"
    assert tries, "requests were under way when it died"
    assert all(line["status"] < 500 for line in tries), "they had a key: another node was asked"
    assert share <= 0.01
    assert shut_out_s <= DETECTED_S
    probes = [second for second in at if second > DETECTED_S]
    assert probes, "it would be found again"
    assert all(later - earlier >= FAIL_TIMEOUT_S / 2 for earlier, later in pairwise(probes)), probes


@pytest.mark.parametrize("count", [2, 4])
def test_all_nodes_are_restarted_one_by_one_and_no_request_fails(tmp_path: Path, count: int) -> None:
    with front_door(tmp_path, (1,) * count, flags=("--open",), fail_timeout_s=FAIL_TIMEOUT_S) as door:
        shop = Shop(door, 1_500)
        codes: list[int | None] = []

        async def restart() -> None:
            for node in door.nodes:
                await asyncio.sleep(0.3)
                codes.append(await asyncio.to_thread(node.stop))
                await asyncio.to_thread(node.launch)
                await asyncio.to_thread(node.wait_until_ready)

        async def story() -> tuple[AuditReport, dict[str, int]]:
            await shop.open()
            await shop.rush(restart)
            return await shop.settle(), await shop.level()

        report, level = asyncio.run(story())
        lines = door.lines(count=shop.requests)

    retried = sum(line["retries"] > 0 for line in lines)
    print(f"{count} nodes: {shop.failed.total()} of {shop.requests} failed; {retried} were asked of another node")
    assert shop.failed == Counter()
    assert codes == [0] * count, "each finished what it had accepted"
    assert retried > 0, "requests came while a node was away"
    shop.check(report, level)
