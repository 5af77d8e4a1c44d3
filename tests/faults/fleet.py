"""Several nodes on one ledger, with buyers at all of them, something that goes wrong, and the audit.

A story: sell, let the fault happen in mid-sale, wait until everybody is well again, ask once more what
got no clear answer, sell the rest, and hold the ledger's own events against what buyers were told.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final

from tests.faults.buyers import Memory, Sale
from tests.faults.line import Cut, Line
from tests.faults.nursery import Child
from ticketrush.audit import AuditReport, audit
from ticketrush.engine import PATIENCE_S
from ticketrush.ledger.redis import RedisLedger

ROUNDS: Final = max(1, int(os.environ.get("TICKETRUSH_FAULT_ROUNDS", "5")) // 5)
"""Rounds of each cluster fault: 20 at full length (100), one in `make test`."""

LONGEST_S: Final = 2 * PATIENCE_S + 0.2
"""The engine's promise: nobody waits longer than twice its patience; and a moment for the machine."""

BUYERS_A_NODE: Final = 12
WELL_AGAIN_S: Final = 15.0
SELL_OUT_S: Final = 30.0


class Fleet:
    """Nodes on the ledger at `url`, their buyers, and what those were told."""

    def __init__(self, folder: Path, url: str, count: int, durability: str, seed: int, *flags: str) -> None:
        self.url, self.durability, self.flags = url, durability, flags
        self.folder = folder
        self.dice = random.Random(seed)
        self.memory = Memory()
        self.nodes: list[Child] = []
        self._going_home = False
        self.slowest_s = 0.0
        """The longest that a buyer waited for one answer."""
        for _ in range(count):
            self.begin()

    def begin(self) -> Child:
        """One more node."""
        place = self.folder / f"node-{len(self.nodes) + 1}-{time.monotonic_ns()}"
        place.mkdir()
        node = Child(place, "--durability", self.durability, "--node", place.name, *self.flags, ledger=self.url)
        self.nodes.append(node)
        return node

    @property
    def living(self) -> list[Child]:
        return [node for node in self.nodes if node.process.exitcode is None]

    def end(self) -> None:
        """Leave no process behind."""
        for node in self.nodes:
            node.kill()

    def said(self) -> str:
        """What all nodes logged."""
        return "\n".join((node.folder / "stderr.txt").read_text(errors="replace") for node in self.nodes)

    async def serving(self) -> None:
        for node in self.living:
            await node.serving()

    @contextlib.asynccontextmanager
    async def crowd(self, sale: Sale) -> AsyncIterator[None]:
        """Buyers at every node for as long as the block lasts."""
        tasks = [asyncio.create_task(self._queue(sale, node)) for node in self.living for _ in range(BUYERS_A_NODE)]
        self._going_home = False
        try:
            yield
        finally:
            self._going_home = True
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            wrong = [each for each in ended if isinstance(each, Exception)]
            assert not wrong, wrong

    async def _queue(self, sale: Sale, node: Child) -> None:
        """One buyer after the other on a connection; when it is cut, at another node."""
        while not self._going_home:
            with contextlib.suppress(Cut):
                async with Line(node.port) as line:
                    while not self._going_home:
                        await sale.shop(line)
                        self.slowest_s = max(self.slowest_s, line.slowest_s)
            await asyncio.sleep(0.02)
            node = self.dice.choice(self.living)

    async def well_again(self) -> float:
        """Wait until every living node sells; how long that took."""
        began_s = time.monotonic()
        for node in self.living:
            while True:
                with contextlib.suppress(Cut):
                    async with Line(node.port) as line:
                        ready = await line.call("GET", "/readyz")
                        if ready.status == 200:
                            break
                assert time.monotonic() - began_s < WELL_AGAIN_S, f"a node is not well again: {node.errors()}"
                await asyncio.sleep(0.05)
        return time.monotonic() - began_s

    async def sell(self, sale: Sale, fault: Callable[[], Awaitable[object]], *, told_twice: bool = True) -> None:
        """A whole sale with a fault in the middle, sold to its end."""
        await self.serving()
        async with Line(self.living[0].port) as line:
            await sale.prepare(line)
        for node in self.living:
            await sale.is_open_at(node.port)
        async with self.crowd(sale):
            await self._in_mid_sale(sale)
            await fault()
            await asyncio.sleep(0.3)
        await self.well_again()
        await self._steady(sale)
        if told_twice:
            await sale.settle(self.living[0].port)
        await sale.sell_out(self.living[-1].port, SELL_OUT_S)

    async def _in_mid_sale(self, sale: Sale) -> None:
        """Wait for a while, but not until a fast crowd has bought nearly everything."""
        sale.kill_after = self.dice.randrange(sale.capacity // 2, sale.capacity)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.3 + self.dice.random() * 0.5):
                await sale.answered.wait()

    async def _steady(self, sale: Sale) -> None:
        """Wait until every living node has kept three changes in a row: a replica may still be catching up."""
        until_s = time.monotonic() + WELL_AGAIN_S
        kept = 0
        while kept < 3:
            try:
                for node in self.living:
                    async with Line(node.port) as line:
                        await sale.prepare(line)
                kept += 1
            except (AssertionError, Cut):
                assert time.monotonic() < until_s, f"no change is kept: {self.said()[-2_000:]}"
                kept = 0
            await asyncio.sleep(0.2)

    async def audit(self, *, sold_out: bool = True) -> AuditReport:
        """The ledger held against what buyers were told."""
        return await audit_of(self.url, self.memory, durability=self.durability, sold_out=sold_out)

    async def all_is_well(self, sale: Sale) -> AuditReport:
        """All of `sale` is sold, and every invariant holds."""
        async with Line(self.living[0].port) as line:
            level = await sale.level(line)
            for _ in range(50):  # a node hears within a moment what others have sold
                if level["sold"] < level["capacity"]:
                    await asyncio.sleep(0.1)
                    level = await sale.level(line)
        capacity = sale.capacity + sale.restock
        report = await self.audit()
        assert report.ok, report.violations
        assert (report.lost, report.oversold, report.undersold, report.unexpected) == (0, 0, 0, 0)
        assert (level["sold"], level["capacity"]) == (capacity, capacity), level
        return report


async def audit_of(url: str, memory: Memory, *, durability: str, sold_out: bool) -> AuditReport:
    """The ledger's events and state, read by a node that sold nothing, held against what buyers were told."""
    ledger = RedisLedger(url, node="auditor", durability=durability)
    await ledger.start()
    try:
        state = await ledger.state()
        events = [event for _, event in await ledger.events(0, 10**9)]
    finally:
        await ledger.close()
    return audit(
        events,
        state=state,
        told=memory.told,
        asked_for=memory.was_asked,
        demand_exceeds_capacity=sold_out,
        now_ms=int(time.time() * 1_000),
    )
