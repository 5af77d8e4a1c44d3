"""Planted bugs in the scripts of the Redis ledger: each must be caught by the auditor, as the right invariant.

Every story is told twice on a real server, by two nodes: with the real scripts all is well, with the bug
planted it is not. A bug is planted in the text that the server gets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from unittest.mock import patch

import pytest

from tests.valkey import fresh_database
from ticketrush.audit import AuditReport, audit
from ticketrush.cluster.valkey import Valkey
from ticketrush.ledger import redis_link, redis_watch
from ticketrush.ledger.redis import RedisLedger
from ticketrush.ledger.redis_watch import Watch
from ticketrush.model import Cancel, CreateSale, Item, Reserve, Reserved, Sale

CAPACITY = 4

real_script = redis_link.script


class Pair:
    """Two nodes on one server, which do nothing by themselves, and a sale."""

    def __init__(self, url: str) -> None:
        self.ann, self.bob = (RedisLedger(url, node=name) for name in ("ann", "bob"))
        self.now_ms = 1_000
        self.asked = 0

    async def start(self) -> None:
        with patch.object(Watch, "start"):
            await self.ann.start()
            await self.ann.execute(0, [CreateSale(Sale("g1", (Item("second", CAPACITY, 2),), 0))])
            await self.bob.start()

    async def buy(self, node: RedisLedger, count: int, *, buyer: str = "", key: str = "") -> int:
        """How many of `count` purchases of one unit were made; by a buyer each, unless one is named."""
        self.asked += count
        asks = [
            Reserve(f"r{self.asked - n}", "g1", "second", buyer or f"buyer-{self.asked - n}", 1, key)
            for n in range(count)
        ]
        outcomes = await node.execute(self.now_ms, asks)
        return sum(isinstance(outcome, Reserved) and not outcome.replayed for outcome in outcomes)

    async def lease(self, node: RedisLedger, units: int) -> None:
        """Let a node have units in its local stock."""
        sale = node._node.sales["g1"]
        await node._node.stock(sale, sale.shelves["second"], units)

    async def reclaim(self, node: RedisLedger) -> None:
        """Take back what every node has leased, as if all had died."""
        await node._reaper.reclaim(node._node.sales["g1"], "second", every=True)

    async def report(self) -> AuditReport:
        events = [event for _, event in await self.bob.events(0, 1_000)]
        return audit(events, state=await self.bob._reads.state(), demand_exceeds_capacity=True)

    async def close(self) -> None:
        await self.ann.close()
        await self.bob.close()


async def zombie(pair: Pair) -> None:
    """A node that hung for longer than its lease goes on to sell from it."""
    await pair.lease(pair.ann, CAPACITY)
    await pair.reclaim(pair.bob)
    await pair.buy(pair.bob, CAPACITY)
    await pair.buy(pair.ann, 2)


async def reclaimed_twice(pair: Pair) -> None:
    """The reaper dies after its last step, and the next one does it again."""
    await pair.lease(pair.ann, 2)
    sale = pair.bob._node.sales["g1"]
    lease = pair.ann._node.sales["g1"].shelves["second"].local.lease
    await pair.reclaim(pair.bob)
    ask = pair.bob._node.ask("g1", epoch=1, lease=lease, spent=0)
    await pair.bob._node.link.run("stock_reclaim", (sale.shelves["second"].key,), ask)
    await pair.bob._node.stocks(sale)
    await pair.buy(pair.bob, 2 * CAPACITY)


async def given_up(pair: Pair) -> None:
    """A unit is cancelled and wanted again."""
    await pair.buy(pair.ann, CAPACITY)
    await pair.ann.execute(pair.now_ms, [Cancel("r1")])
    await pair.bob._node.look(pair.bob._node.sales["g1"], 0)
    await pair.buy(pair.bob, 1)


async def greedy(pair: Pair) -> None:
    """One buyer asks at both nodes for as much as the limit allows, then others buy the rest."""
    await pair.buy(pair.ann, 2, buyer="gil")
    await pair.buy(pair.bob, 2, buyer="gil")
    await pair.buy(pair.bob, CAPACITY)


async def repeated(pair: Pair) -> None:
    """One buyer asks at both nodes with one key, then others buy the rest."""
    await pair.buy(pair.ann, 1, buyer="gil", key="k1")
    await pair.buy(pair.bob, 1, buyer="gil", key="k1")
    await pair.buy(pair.bob, CAPACITY)


async def recreated(pair: Pair) -> None:
    """The stock of a sold out item is gone from the server."""
    await pair.buy(pair.ann, CAPACITY)
    sale = pair.bob._node.sales["g1"]
    await pair.bob._node.command("delete", sale.shelves["second"].key)
    await pair.bob._node.look(sale, 0)
    with patch.object(redis_watch, "TORN_S", -1.0):
        for _ in range(3):
            await pair.bob._watch._look(sale)
    await pair.buy(pair.bob, 2)


Story = Callable[[Pair], Awaitable[None]]

PLANTED: dict[str, tuple[Story, str, str, str, str]] = {
    "no fence": (zombie, "decide", "call('HGET', KEYS[7], 'closed ' .. life .. ' ' .. name)", "false", "I1"),
    "double reclaim": (reclaimed_twice, "stock_reclaim", "state ~= 'closing' or", "state == nil or", "I1"),
    "lost release": (given_up, "stock", "if released > total('seen ' .. book) then", "if false then", "I7"),
    "no limit in the script": (greedy, "decide", "> of.limit then return 'L'", "> 1000 then return 'L'", "I6"),
    "no key in the script": (repeated, "decide", "local won = pair and", "local won = false and", "I5"),
    "stock made again": (recreated, "stock", "if not ask.make then", "ask.make = true\n  if not ask.make then", "I1"),
}


@pytest.fixture(params=PLANTED)
def planted(request: pytest.FixtureRequest) -> tuple[Story, str, str, str, str]:
    return PLANTED[request.param]


@pytest.fixture
def pair(valkey: Valkey) -> Callable[[], Pair]:
    return lambda: Pair(fresh_database(valkey))


def tell(make: Callable[[], Pair], story: Story) -> AuditReport:
    async def run() -> AuditReport:
        pair = make()
        await pair.start()
        try:
            await story(pair)
            return await pair.report()
        finally:
            await pair.close()

    return asyncio.run(asyncio.wait_for(run(), 20))


def test_the_real_scripts_keep_every_invariant(
    planted: tuple[Story, str, str, str, str], pair: Callable[[], Pair]
) -> None:
    report = tell(pair, planted[0])
    assert report.ok, report.violations


def test_a_planted_bug_is_caught(planted: tuple[Story, str, str, str, str], pair: Callable[[], Pair]) -> None:
    story, name, good, bad, invariant = planted

    def flawed(wanted: str) -> str:
        text = real_script(wanted)
        if wanted == name:
            assert text.count(good) == 1, f"{name}.lua is not as this canary knows it"
            text = text.replace(good, bad)
            if name == "stock_reclaim":
                text = text.replace("call('HDEL'", "call('EXISTS'")
        return text

    with patch.object(redis_link, "script", flawed):
        report = tell(pair, story)
    assert not report.ok
    assert invariant in report.broken, report.violations
