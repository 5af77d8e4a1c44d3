"""What a node does by itself: one sick sale keeps nobody from the others, and no unit that comes back is missed."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import msgspec
import pytest
from redis import Redis

from tests.faults.forgetting import Forgetful, eventually, held, hold, node
from tests.valkey import own_valkey
from ticketrush import model as m
from ticketrush.cluster.server import running
from ticketrush.cluster.topology import sentinels
from ticketrush.cluster.valkey import Valkey
from ticketrush.errors import LedgerUnavailable
from ticketrush.ledger import redis_follow, redis_node, redis_watch
from ticketrush.ledger.redis import RedisLedger
from ticketrush.ledger.redis_watch import SICK_S

pytestmark = pytest.mark.timeout(60)

NOW_MS: Final = int(time.time() * 1_000)


@pytest.fixture
def server() -> Iterator[Forgetful]:
    with own_valkey("fsync") as valkey:  # what it forgets is for the test to say, and not for the disk
        yield Forgetful(valkey)


async def create(ledger: RedisLedger, sale: str, capacity: int = 4) -> None:
    made = await ledger.execute(
        NOW_MS, [m.CreateSale(m.Sale(sale, (m.Item("a", capacity),), 1, hold_window_ms=60_000))]
    )
    assert isinstance(made[0], m.SaleChanged), made


def test_a_sick_sale_keeps_nobody_from_the_others_and_is_told_once(server: Forgetful) -> None:
    async def story() -> list[Any]:
        client = Redis.from_url(server.url)
        async with node(server.url, "ann") as ann, node(server.url, "bob", is_quiet=False) as bob:
            for sale in ("sick", "well"):
                await create(ann, sale)
            await eventually(lambda: len(bob.sales()) == 2)
            client.rename("ticketrush:{sick:0}:meta", "ticketrush:kept")
            client.set("ticketrush:{sick:0}:meta", "damaged")
            with patch.object(redis_watch, "log") as log, patch.object(redis_watch, "SICK_S", 0.1):
                await create(ann, "new")
                await hold(ann, NOW_MS, "r1", sale="well")
                await hold(ann, NOW_MS, "r2", sale="new")
                await eventually(lambda: held(bob, "well") == 1 and held(bob, "new") == 1)
                await asyncio.sleep(1.0)
                client.rename("ticketrush:kept", "ticketrush:{sick:0}:meta")
                await eventually(lambda: any(call.args[0] == "well_again" for call in log.info.call_args_list))
                assert bob.ready
                return [(call.args[0], call.kwargs.get("what")) for call in log.warning.call_args_list]

    assert asyncio.run(story()) == [("sick", "sick")]


def test_a_sale_whose_line_was_cut_for_once_is_looked_at_again_at_once(server: Forgetful) -> None:
    async def story() -> None:
        async with node(server.url, "ann") as ann, node(server.url, "bob", is_quiet=False) as bob:
            await create(ann, "g")
            await eventually(lambda: len(bob.sales()) == 1)
            real, failures = bob._node.look, [LedgerUnavailable("the line was cut")]

            async def look(*args: Any) -> list[Any]:
                if failures:
                    raise failures.pop()
                return await real(*args)

            with patch.object(bob._node, "look", look):
                await eventually(lambda: not failures)
                await hold(ann, NOW_MS, "r1")
                await eventually(lambda: held(bob, "g") == 1, SICK_S / 2)

    asyncio.run(story())


def test_a_server_that_was_full_is_no_sick_sale(server: Forgetful) -> None:
    async def story() -> None:
        client = Redis.from_url(server.url)
        async with node(server.url, "ann") as ann, node(server.url, "bob", is_quiet=False) as bob:
            await create(ann, "g")
            await eventually(lambda: held(bob, "g") == 0)
            client.config_set("maxmemory", 1)
            await eventually(lambda: not bob.ready)
            await asyncio.sleep(0.5)
            client.config_set("maxmemory", 0)
            assert await hold(ann, NOW_MS, "r1") == ["r1"]
            await eventually(lambda: held(bob, "g") == 1 and bob.ready, 2.0)

    asyncio.run(story())


def spoil(client: Redis, sale: str, how: str) -> None:
    """Let nobody be able to read a sale."""
    meta = f"ticketrush:{{{sale}:0}}:meta"
    client.hset("ticketrush:sales", sale, 0)
    if how == "damaged":
        client.delete(meta)
        client.set(meta, "damaged")
        return
    newer = msgspec.to_builtins(m.Sale(sale, (m.Item("a", 1),))) | {"of a later version": 1}
    client.hset(meta, mapping={"created": msgspec.msgpack.encode(newer), "number": 0, "shards": 1})


SPOILT: Final = pytest.mark.parametrize("how", ["damaged", "newer"])


@SPOILT
def test_a_sale_that_cannot_be_read_hides_no_other_new_one(server: Forgetful, how: str) -> None:
    async def story() -> None:
        client = Redis.from_url(server.url)
        async with node(server.url, "bob", is_quiet=False) as bob, node(server.url, "ann") as ann:
            with patch.object(redis_watch, "TICK_S", 0.05):
                spoil(client, "sick", how)
                await create(ann, "well")
                client.publish("ticketrush:changed", "somebody well")
                await eventually(lambda: "well" in bob._node.sales)
                assert "sick" not in bob._node.sales

    asyncio.run(story())


@SPOILT
def test_a_sale_that_cannot_be_read_keeps_no_buyers_from_others(server: Forgetful, how: str) -> None:
    async def story() -> None:
        async with node(server.url, "ann") as ann:
            await create(ann, "well")
            spoil(Redis.from_url(server.url), "sick", how)
            asks = [m.Reserve(sale, sale, "a", "buyer", 1, sale) for sale in ("well", "sick")]
            well, sick = await ann.execute(NOW_MS, asks)
            assert isinstance(well, m.Reserved)
            assert isinstance(sick, m.Refused)

    asyncio.run(story())


@SPOILT
def test_a_sale_that_cannot_be_read_keeps_no_node_from_starting(server: Forgetful, how: str) -> None:
    async def story() -> None:
        async with node(server.url, "ann", is_quiet=False) as ann:
            await create(ann, "sick")
            await create(ann, "well")
            spoil(Redis.from_url(server.url), "sick", how)
            async with node(server.url, "bob", is_quiet=False) as bob:
                assert await hold(bob, NOW_MS, "r1", sale="well") == ["r1"]

    asyncio.run(story())


def test_leases_of_a_sick_sale_keep_no_others_from_being_reclaimed(server: Forgetful) -> None:
    async def story() -> None:
        client = Redis.from_url(server.url)
        async with node(server.url, "ann") as ann, node(server.url, "bob") as bob:
            for sale in ("well", "sick"):
                await create(ann, sale)
                known = ann._node.sales[sale]
                await ann._node.stock(known, known.shelves["a"], 4)
                ann._node.drop(known, known.shelves["a"])
            client.delete("ticketrush:{sick:a}:stock")
            client.set("ticketrush:{sick:a}:stock", "damaged")
            for _ in range(2):
                await ann._watch._reclaim_dropped()
            assert await hold(bob, NOW_MS, "r1", "r2", "r3", "r4", sale="well") == ["r1", "r2", "r3", "r4"]

    asyncio.run(story())


def test_a_server_that_is_away_is_not_taken_for_many_sick_sales(server: Forgetful) -> None:
    async def story() -> None:
        async with node(server.url, "ann") as ann:
            for number in range(3):
                await create(ann, f"g{number}")
            server.server.kill()
            with pytest.raises(LedgerUnavailable):
                await ann._watch._look_at(list(ann._node.sales.values()))
            assert not ann._watch._sick

    asyncio.run(story())


def test_a_unit_that_comes_back_opens_the_gate_of_a_quiet_sale_though_the_message_is_lost(server: Forgetful) -> None:
    async def story() -> None:
        async with node(server.url, "ann") as ann:
            await create(ann, "g", 1)
            with patch.object(redis_watch, "SLOW_TICKS", 1_000):  # nothing is found by chance
                async with node(server.url, "bob", is_quiet=False) as bob:
                    assert await hold(ann, NOW_MS, "r1") == ["r1"]
                    await bob._watch._look(bob._node.sales["g"])
                    await eventually(lambda: bob._node.sales["g"].following)
                    with patch.object(redis_node, "CHANGED", "nobody hears this"):
                        await ann.execute(NOW_MS, [m.Cancel("r1")])
                    await eventually(lambda: (stock := bob.stock("g")) is not None and stock.levels[0].available == 1)

    asyncio.run(story())


def test_many_followed_sales_are_read_in_turns(server: Forgetful) -> None:
    count = 25

    async def story() -> None:
        async with node(server.url, "ann") as ann, node(server.url, "bob") as bob:
            for number in range(count):
                await create(ann, f"g{number}", 1)
            await bob._node.discover()
            for number in range(count):
                await hold(ann, NOW_MS, f"r{number}", sale=f"g{number}")
                await bob._watch._look(bob._node.sales[f"g{number}"])
            sizes: list[int] = []
            real = bob._node.command

            async def command(name: str, *args: Any) -> Any:
                if name == "xread":
                    sizes.append(len(args[0]))
                return await real(name, *args)

            with patch.object(bob._node, "command", command), patch.object(redis_follow, "STREAMS_MAX", 10):
                await bob._watch._following.read()
            assert sizes == [10, 10, 5]
            assert all(bob.remembers(f"g{number}", f"key-r{number}") for number in range(count))
            assert all(sale.following for sale in bob._node.sales.values())

    asyncio.run(story())


def test_an_answer_of_an_older_epoch_changes_nothing(server: Forgetful) -> None:
    async def story() -> None:
        async with node(server.url, "ann") as ann:
            await create(ann, "g")
            sale = ann._node.sales["g"]
            ann._node.moved(sale, 3)
            ann._node.moved(sale, 2)
            assert sale.epoch == 3

    asyncio.run(story())


def test_leases_given_up_at_the_epoch_that_was_known_come_back(server: Forgetful) -> None:
    async def story() -> None:
        async with node(server.url, "ann") as ann, node(server.url, "bob") as bob:
            await create(ann, "g")
            sale = ann._node.sales["g"]
            await ann._node.stock(sale, sale.shelves["a"], 4)
            ann._node.moved(sale, sale.epoch)
            await ann._watch._reclaim_dropped()
            await bob._node.discover()
            assert len(await hold(bob, NOW_MS, "r1", "r2", "r3", "r4")) == 4

    asyncio.run(story())


def test_a_sentinel_that_is_silent_keeps_nobody_from_asking_the_next(tmp_path: Path) -> None:
    """The first one in the URL takes connections and says nothing, as one that was cut off."""

    async def story(url: str) -> None:
        async with node(url, "ann", is_quiet=False) as ann:
            await create(ann, "g")
            assert await hold(ann, NOW_MS, "r1") == ["r1"]

    with running(Valkey(tmp_path)) as primary, sentinels(primary) as watchers:
        watchers.children[0].signal(signal.SIGSTOP)
        try:
            asyncio.run(story(watchers.url))
        finally:
            watchers.children[0].signal(signal.SIGCONT)
