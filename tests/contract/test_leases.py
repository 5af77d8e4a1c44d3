"""Leases on a real server: what stays of those that ended, and what happens when one does not add up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any
from unittest.mock import patch

import pytest

from tests.contract.nodes import do, node
from ticketrush import model as m
from ticketrush.errors import LedgerUnavailable
from ticketrush.ledger import redis_node, redis_reaper
from ticketrush.ledger.redis import RedisLedger
from ticketrush.ledger.redis_sale import RedisSale

CAPACITY = 100
SALE = m.Sale("s", (m.Item("i", CAPACITY), m.Item("j", CAPACITY)), opens_at_ms=0)


def run(story: Callable[[RedisLedger, RedisLedger], Awaitable[None]], url: str, shards: int = 2) -> None:
    async def tell() -> None:
        async with node(url, "ann", shards=shards) as ann, node(url, "bob") as bob:
            await do(ann, m.CreateSale(SALE))
            await bob._node.discover()
            await story(ann, bob)

    asyncio.run(tell())


def of(ledger: RedisLedger) -> RedisSale:
    return ledger._node.sales["s"]


async def lease(ledger: RedisLedger, units: int, item: str = "i") -> str:
    """Let a node have units in its local stock; the lease that they are of."""
    sale = of(ledger)
    await ledger._node.stock(sale, sale.shelves[item], units)
    return sale.shelves[item].local.lease


async def buy(ledger: RedisLedger, count: int, item: str = "i") -> list[m.Outcome]:
    start = time.monotonic_ns()
    buyers = [f"b{start}-{n}" for n in range(count)]
    return await ledger.execute(
        1_000, [m.Reserve(ledger.new_id("s", buyer), "s", item, buyer, 1, "") for buyer in buyers]
    )


async def die_often(ann: RedisLedger, bob: RedisLedger) -> None:
    sale, sizes = of(bob), set()
    with patch.object(redis_reaper, "FORGET_S", 0.0):
        for _ in range(40):
            await buy(ann, 1)
            await lease(ann, 3)
            await bob._reaper.reclaim(sale, "i", every=True)
            await bob._reaper.dead()
            assert not isinstance((await buy(ann, 1))[0], m.Refused), "under its next lease"
            keys = (sale.shelves["i"].key, *(book.leases for book in sale.books))
            sizes.add(sum([await bob._link.command("hlen", key) for key in keys]))
    assert max(sizes) < 20, sizes
    state = await bob.state()
    level = state.levels["s"]["i"]
    assert level.held == 80
    assert level.available + level.leased == CAPACITY - 80


def test_nothing_grows_with_the_leases_that_ended(valkey_url: str) -> None:
    run(die_often, valkey_url)


async def wake_up_late(ann: RedisLedger, bob: RedisLedger) -> None:
    """Ann hangs, while all of her leases are reclaimed; what she sends then comes late, also of an older lease."""
    late: list[tuple[str, Any, Any]] = []
    real_run = ann._link.run
    for _ in range(3):

        async def keep(name: str, keys: Any, *args: Any, **more: Any) -> Any:
            late.append((name, keys, args))
            return await real_run(name, keys, *args, **more)

        await lease(ann, 5)
        with patch.object(ann._link, "run", keep):
            await buy(ann, 2)
            shelf = of(ann).shelves["i"]
            shelf.local.give_back()
            await ann._node.stock(of(ann), shelf)
        ann._node.drop(of(ann), shelf, reclaim=False)
    await lease(ann, 5)
    with patch.object(redis_reaper, "FORGET_S", 0.0):
        await bob._reaper.reclaim(of(bob), "i", every=True)
        await bob._reaper.dead()
    before = (await bob.state()).levels["s"]["i"]
    for name, keys, args in late:
        ask = dict(args[0])
        if name == "decide":
            ask["ops"] = [[*op[:1], f"late-{op[1]}", *op[2:]] for op in ask["ops"]]
        reply = await real_run(name, keys, ask, *args[1:])
        assert name == "look" or reply[0] == "fenced", (name, reply)
    assert (await bob.state()).levels["s"]["i"] == before
    assert (before.available, before.leased, before.held) == (CAPACITY - 6, 0, 6)


def test_a_lease_is_closed_for_ever_with_those_before_it(valkey_url: str) -> None:
    run(wake_up_late, valkey_url, shards=1)


async def spend_too_much(ann: RedisLedger, bob: RedisLedger) -> None:
    sale = of(bob)
    bad = await lease(ann, 10)
    await bob._link.command("hincrby", sale.books[1].leases, f"{bad} i", 11)
    await lease(bob, 7)
    bob._node.drop(sale, sale.shelves["i"])
    with patch.object(redis_reaper, "log") as log:
        for _ in range(2):
            await bob._reaper.reclaim(sale, "i", every=True)
    assert bob._reaper.reclaimed == 7
    log.error.assert_called_once_with("lease_overspent", sale="s", item="i", lease=bad, granted=10, back=0, spent=11)
    assert isinstance((await buy(ann, 1))[0], m.Reserved), "under another lease"
    assert sale.shelves["i"].available == CAPACITY - 10, "the units of that lease are for nobody"


def test_a_lease_that_was_overspent_is_reported_and_keeps_no_other_one(valkey_url: str) -> None:
    run(spend_too_much, valkey_url)


async def drop_two(ann: RedisLedger, _: RedisLedger) -> None:
    sale = of(ann)
    for item in ("i", "j"):
        await lease(ann, 10, item)
        ann._node.drop(sale, sale.shelves[item])
    real_reclaim = ann._reaper.reclaim

    async def reclaim(of: RedisSale, item: str, lease: str | None = None, *, every: bool = False) -> None:
        if item == "j":
            raise LedgerUnavailable("sick")
        await real_reclaim(of, item, lease, every=every)

    with patch.object(ann._reaper, "reclaim", reclaim), pytest.raises(LedgerUnavailable):
        await ann._reaper.dropped()
    assert ann._reaper.reclaimed == 10
    assert [item for _, item, _ in ann._node.dropped] == ["j"]
    await ann._reaper.dropped()
    assert ann._reaper.reclaimed == 20


def test_a_dropped_lease_that_cannot_be_reclaimed_keeps_no_other_one(valkey_url: str) -> None:
    run(drop_two, valkey_url)


async def keep_alive(ann: RedisLedger, bob: RedisLedger) -> None:
    with patch.object(redis_node, "LEASE_MS", 1_000):
        used, empty = await lease(ann, 10), await lease(ann, 10, "j")
        of(ann).shelves["j"].local.take(10)
        for _ in range(12):
            await asyncio.sleep(0.1)
            await ann._node.stocks(of(ann))
        await bob._reaper.dead()
        stock = await bob._link.command("hkeys", of(bob).shelves["i"].key)
        assert f"granted {used}".encode() in stock
        assert f"granted {empty}".encode() not in await bob._link.command("hkeys", of(bob).shelves["j"].key)
        assert all(isinstance(each, m.Reserved) for each in await buy(ann, 5, "j"))


def test_only_a_lease_that_has_units_is_kept_alive(valkey_url: str) -> None:
    run(keep_alive, valkey_url)


async def fail_without_a_word(ann: RedisLedger, bob: RedisLedger) -> None:
    """Whatever goes wrong with a call that may have spent units, they are given up with their lease."""
    real_run = ann._link.run

    async def run(name: str, *args: Any, **more: Any) -> Any:
        if name == "decide":
            raise TypeError("cannot be written")
        return await real_run(name, *args, **more)

    with patch.object(ann._link, "run", run), pytest.raises(TypeError):
        await buy(ann, 7)
    await ann._reaper.dropped()
    level = (await bob.state()).levels["s"]["i"]
    assert (level.available, level.leased) == (CAPACITY, 0)


def test_units_of_a_call_that_fails_in_any_way_do_not_lie_idle(valkey_url: str) -> None:
    run(fail_without_a_word, valkey_url, shards=1)
