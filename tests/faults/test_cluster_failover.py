"""A replica takes the place of a primary of a cluster: it carries no script before the ledger is whole on it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import msgspec
import pytest

from tests.faults.forgetting import eventually as settles
from tests.faults.forgetting import held, hold, meet, node, state_of
from ticketrush import model as m
from ticketrush.cluster.errors import ClusterError
from ticketrush.cluster.ports import free_port
from ticketrush.cluster.server import running
from ticketrush.cluster.topology import Primaries, primaries
from ticketrush.cluster.valkey import Valkey
from ticketrush.errors import LedgerUnavailable, SettingsError
from ticketrush.ledger.redis import RedisLedger
from ticketrush.ledger.redis_roll import NODES

pytestmark = pytest.mark.timeout(90)

NOW_MS: Final = int(time.time() * 1_000)
SALE: Final = m.Sale("g", (m.Item("a", 10),), 1, hold_window_ms=60_000)


def eventually(what: Callable[[], bool], within_s: float = 20.0) -> None:
    until_s = time.monotonic() + within_s
    while True:
        with contextlib.suppress(ClusterError):
            if what():
                return
        assert time.monotonic() < until_s, f"not so within {within_s:g} s"
        time.sleep(0.05)


@contextlib.contextmanager
def replica(cluster: Primaries, of: Valkey) -> Iterator[Valkey]:
    """One more server in the cluster, which follows `of`."""
    bus = str(free_port())
    more = (
        *("--cluster-enabled", "yes", "--cluster-config-file", "replica.nodes", "--cluster-port", bus),
        *("--cluster-node-timeout", "2000", "--repl-diskless-sync-delay", "0"),
    )
    with running(Valkey(of.folder, persistence="memory", name="replica", more=more)) as server:
        of.ask(f"CLUSTER MEET 127.0.0.1 {server.port} {bus}")
        id = of.ask("CLUSTER MYID")
        eventually(lambda: server.ask(f"CLUSTER REPLICATE {id}") == "OK")
        eventually(lambda: "master_link_status:up" in server.ask("INFO replication"))
        eventually(lambda: all(f":{server.port}@" in each.ask("CLUSTER NODES") for each in cluster.servers))
        yield server


def take_over(server: Valkey, before: Valkey, *, is_killed: bool = False) -> None:
    """The replica becomes the primary: because the one before is killed, or as an operator would ask for it."""
    if is_killed:
        before.kill()
    else:
        server.ask("CLUSTER FAILOVER")
        eventually(lambda: "role:slave" in before.ask("INFO replication"))
    eventually(lambda: "role:master" in server.ask("INFO replication"))


def test_a_promoted_replica_carries_no_script_before_the_ledger_is_whole_on_it(tmp_path: Path) -> None:
    async def story(cluster: Primaries, server: Valkey) -> None:
        async with node(cluster.url, "ann") as ann:
            await ann.execute(NOW_MS, [m.CreateSale(SALE)])
            assert await hold(ann, NOW_MS, "r1") == ["r1"]
            take_over(server, cluster.owner_of("{g:0}"))
            for number in range(3):
                with pytest.raises(LedgerUnavailable):
                    await hold(ann, NOW_MS, f"b{number}")
            identity = ""
            while not identity:
                with contextlib.suppress(LedgerUnavailable):
                    identity = await meet(ann)
            await ann._recovery.run(identity)
            assert await hold(ann, NOW_MS, "r2") == ["r2"]
            assert await state_of(ann, "r1") is m.State.HELD

    with primaries(tmp_path) as cluster, replica(cluster, cluster.owner_of("{g:0}")) as server:
        asyncio.run(story(cluster, server))


@pytest.mark.parametrize("is_killed", [False, True])
def test_nodes_of_a_cluster_sell_on_by_themselves_after_a_failover(tmp_path: Path, is_killed: bool) -> None:
    async def story(cluster: Primaries, server: Valkey) -> None:
        async with node(cluster.url, "ann", is_quiet=False) as ann:
            await ann.execute(NOW_MS, [m.CreateSale(SALE)])
            assert await hold(ann, NOW_MS, "r1") == ["r1"]
            epoch = ann._node.sales["g"].epoch
            await asyncio.to_thread(take_over, server, cluster.owner_of("{g:0}"), is_killed=is_killed)
            until_s = time.monotonic() + 15
            sold: list[str] = []
            while not sold:
                assert time.monotonic() < until_s, "it does not sell again"
                await asyncio.sleep(0.1)
                with contextlib.suppress(LedgerUnavailable):
                    sold = await hold(ann, NOW_MS, "r2")
            assert ann._node.sales["g"].epoch > epoch, "it was made whole"
            assert await state_of(ann, "r1") is m.State.HELD

    with primaries(tmp_path) as cluster, replica(cluster, cluster.owner_of("{g:0}")) as server:
        asyncio.run(story(cluster, server))


def test_a_batch_under_way_does_not_reach_the_new_primary_before_it_is_fenced(tmp_path: Path) -> None:
    """Held up in this process until the new server is trusted, or half a second after it was seen; then it goes out."""

    async def story(cluster: Primaries, server: Valkey) -> None:
        async with node(cluster.url, "ann", is_quiet=False) as ann:
            await ann.execute(NOW_MS, [m.CreateSale(SALE)])
            assert await hold(ann, NOW_MS, "r1") == ["r1"]
            link, waits, trusts = ann._node.link, asyncio.Event(), asyncio.Event()
            run, trust, recover = link.run, link.trust, ann._recovery.run

            async def held_up(name: str, *args: Any, **more: Any) -> Any:
                if name == "decide" and not waits.is_set():
                    waits.set()
                    await settles(lambda: not ann._watch.is_whole, 20.0)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(trusts.wait(), 0.5)
                return await run(name, *args, **more)

            async def trusting(identity: str) -> None:
                await trust(identity)
                trusts.set()

            async def after_the_batch(identity: str, *, always: bool = False) -> Any:
                await asyncio.wait([batch])
                return await recover(identity, always=always)

            with (
                patch.object(link, "run", held_up),
                patch.object(link, "trust", trusting),
                patch.object(ann._recovery, "run", after_the_batch),
            ):
                batch = asyncio.create_task(hold(ann, NOW_MS, "r2"))
                await waits.wait()
                await asyncio.to_thread(take_over, server, cluster.owner_of("{g:0}"))
                with pytest.raises(LedgerUnavailable):
                    await batch
                await settles(lambda: ann.ready, 15.0)
            assert await state_of(ann, "r1") is m.State.HELD

    with primaries(tmp_path) as cluster, replica(cluster, cluster.owner_of("{g:0}")) as server:
        asyncio.run(story(cluster, server))


def test_a_primary_that_is_full_keeps_nobody_from_the_others(tmp_path: Path) -> None:
    """Nor is its own sale left alone for long once it is well."""

    async def story(cluster: Primaries) -> None:
        names = [f"g{n}" for n in range(50)]
        home = cluster.owner_of(NODES)
        crowded = next(server for server in cluster.servers if server is not home)
        stock = {name: cluster.owner_of(f"{{{name}:a}}") for name in names}
        full = next(name for name in names if stock[name] is crowded)
        well = next(name for name in names if crowded not in {stock[name], cluster.owner_of(f"{{{name}:0}}")})
        async with node(cluster.url, "ann") as ann, node(cluster.url, "bob", is_quiet=False) as bob:
            for name in (full, well):
                await ann.execute(NOW_MS, [m.CreateSale(msgspec.structs.replace(SALE, id=name))])
            await settles(lambda: held(bob, full) == held(bob, well) == 0)
            crowded.ask("CONFIG SET maxmemory 1")
            await settles(lambda: full in bob._watch._sick)
            assert await hold(ann, NOW_MS, "r1", sale=well) == ["r1"]
            await settles(lambda: held(bob, well) == 1)
            assert bob.ready
            crowded.ask("CONFIG SET maxmemory 0")
            assert await hold(ann, NOW_MS, "r2", sale=full) == ["r2"]
            await settles(lambda: held(bob, full) == 1, 2.0)

    with primaries(tmp_path) as cluster:
        asyncio.run(story(cluster))


def test_one_that_comes_back_before_the_ledger_was_made_whole_is_made_whole_too(tmp_path: Path) -> None:
    async def story(cluster: Primaries) -> None:
        async with node(cluster.url, "ann", is_quiet=False) as ann:
            await ann.execute(NOW_MS, [m.CreateSale(SALE)])
            identity, fails = await ann._node.link.identity(), asyncio.Event()

            async def another() -> str:
                fails.set()
                return "0" * 40

            ann._node.link.identity = another  # type: ignore[method-assign]
            await asyncio.wait_for(fails.wait(), 10)
            await settles(lambda: not ann.ready)
            del ann._node.link.identity
            await settles(lambda: ann.ready, 15.0)
            assert ann._node.link.trusted == identity
            assert await hold(ann, NOW_MS, "r1") == ["r1"]

    with primaries(tmp_path) as cluster:
        asyncio.run(story(cluster))


def test_a_cluster_promises_no_replica() -> None:
    with pytest.raises(SettingsError, match=r"durability replica was not tried with a cluster.*choose fsync or memory"):
        RedisLedger("redis+cluster://127.0.0.1:1", durability="replica")
