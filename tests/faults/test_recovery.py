"""A server has forgotten something: what was told is written again, and nothing of it is sold a second time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import Any, Final
from unittest.mock import patch

import pytest
from redis import Redis

from tests.faults.forgetting import Forgetful, hold, meet, node, recover, state_of
from tests.valkey import own_valkey
from ticketrush import model as m
from ticketrush.audit import audit
from ticketrush.errors import LedgerRefused, LedgerUnavailable
from ticketrush.ledger import redis_roll, redis_watch
from ticketrush.ledger.redis import RedisLedger
from ticketrush.ledger.redis_recovery import SALES_AT_ONCE, Recovery
from ticketrush.ledger.redis_restore import RESTORING, Restorer
from ticketrush.ledger.redis_roll import WAIT_S, WHOLE, WHOLE_ON
from ticketrush.ledger.redis_sale import RedisSale
from ticketrush.model import State

pytestmark = pytest.mark.timeout(60)

HOLD_MS: Final = 60_000
NOW_MS: Final = int(time.time() * 1_000)


@pytest.fixture
def server() -> Iterator[Forgetful]:
    with own_valkey("fsync") as valkey:  # what it forgets is for the test to say, and not for the disk
        yield Forgetful(valkey)


async def create(ledger: RedisLedger, capacity: int, sale: str = "g") -> None:
    made = await ledger.execute(
        NOW_MS, [m.CreateSale(m.Sale(sale, (m.Item("a", capacity),), 1, hold_window_ms=HOLD_MS))]
    )
    assert isinstance(made[0], m.SaleChanged), made


async def is_well(ledger: RedisLedger) -> bool:
    events = [event for _, event in await ledger.events(0, 10_000)]
    report = audit(events, state=await ledger.state())
    assert report.ok, report.violations
    return True


# --- nodes that start ------------------------------------------------------------------------------


async def starts_in_between(server: Forgetful) -> None:
    async with node(server.url, "ann", is_quiet=False) as ann:
        await create(ann, 4)
        told = await hold(ann, NOW_MS, "r1")
        server.remember()
        told += await hold(ann, NOW_MS, "r2", "r3", "r4")
        real = ann._watch._recover

        async def late(identity: str) -> None:
            await asyncio.sleep(0.7)
            await real(identity)

        with patch.object(ann._watch, "_recover", late):
            await asyncio.to_thread(server.forget)
            async with node(server.url, "bob", is_quiet=False) as bob:
                assert await hold(bob, NOW_MS, *(f"b{number}" for number in range(4))) == []
                assert {await state_of(bob, id) for id in told} == {State.HELD}
                assert await is_well(bob)


def test_a_node_that_starts_before_the_others_have_seen_the_failover_sells_nothing_of_theirs(server: Forgetful) -> None:
    asyncio.run(starts_in_between(server))


async def all_start_at_once(server: Forgetful) -> float:
    async with node(server.url, "ann", is_quiet=False) as ann:
        await create(ann, 100)
        await hold(ann, NOW_MS, "r1")
    server.server.restart()
    began_s = time.monotonic()
    async with contextlib.AsyncExitStack() as stack:
        starting = [stack.enter_async_context(node(server.url, f"n{k}", is_quiet=False)) for k in range(4)]
        ledgers = await asyncio.gather(*starting)
        took_s = time.monotonic() - began_s
        sold: list[str] = []
        for number in range(104):
            outcome: list[str] | None = None
            while outcome is None:
                with contextlib.suppress(LedgerUnavailable):
                    outcome = await hold(ledgers[number % 4], NOW_MS, f"b{number}")
            sold += outcome
        assert await is_well(ledgers[0])
        assert len(sold) == 99
    return took_s


def test_nodes_that_all_start_on_a_restarted_server_sell_soon_and_everything_once(server: Forgetful) -> None:
    assert asyncio.run(all_start_at_once(server)) < WAIT_S, "they wait for nobody who is not there"


async def epoch_after_a_start(server: Forgetful) -> int:
    async with node(server.url, "bob", is_quiet=False) as bob:
        assert bob.ready
        return bob._node.sales["g"].epoch if bob._node.sales else 1


def test_the_ledger_is_made_whole_at_a_start_only_where_it_is_not(server: Forgetful) -> None:
    client = Redis.from_url(server.url)

    async def story() -> None:
        assert await epoch_after_a_start(server) == 1
        first = client.get(WHOLE_ON)
        assert first, "a server without sales is whole"
        async with node(server.url, "ann", is_quiet=False) as ann:
            await create(ann, 4)
        assert await epoch_after_a_start(server) == 1
        client.delete(WHOLE_ON)  # as in data of before this was kept
        after = await epoch_after_a_start(server)
        assert after > 1
        assert client.get(WHOLE_ON) == first
        assert await epoch_after_a_start(server) == after
        server.server.restart()
        assert await epoch_after_a_start(server) > after
        assert client.get(WHOLE_ON) != first

    asyncio.run(story())


# --- what is written again -------------------------------------------------------------------------


async def paid_while_another_opens(server: Forgetful) -> State | None:
    async with node(server.url, "ann") as ann, node(server.url, "bob") as bob:
        await create(ann, 4)
        await bob._node.discover()
        await hold(ann, NOW_MS, "r1")
        server.remember()
        await ann.execute(NOW_MS, [m.Confirm("r1", "payment-1")])
        server.forget()
        await recover(bob)
        real, fenced = ann._recovery._fence, set[str]()

        async def fence_and_see_it_opened(sale: RedisSale) -> None:
            await real(sale)
            if not fenced:
                await bob._recovery._build_it(bob._node.sales["g"])
            fenced.add(sale.id)

        with patch.object(ann._recovery, "_fence", fence_and_see_it_opened):
            await recover(ann)
        assert await is_well(ann)
        return await state_of(ann, "r1")


def test_a_payment_that_one_node_remembers_is_not_dropped_when_another_opens_first(server: Forgetful) -> None:
    assert asyncio.run(paid_while_another_opens(server)) is State.PAID


@pytest.mark.parametrize("told", [State.PAID, State.REFUNDED])
def test_what_was_paid_and_has_expired_in_a_forgetful_server_is_reported(server: Forgetful, told: State) -> None:
    async def story() -> None:
        at_ms = NOW_MS - HOLD_MS + 1_000
        async with node(server.url, "ann") as ann, node(server.url, "bob") as bob:
            await create(ann, 4)
            await bob._node.discover()
            await hold(ann, at_ms, "r1")
            server.remember()
            await ann.execute(at_ms, [m.Confirm("r1", "payment-1")])
            if told is State.REFUNDED:
                await ann.execute(at_ms, [m.Refund("r1")])
            server.forget()
            await recover(bob)
            await bob.execute(NOW_MS + HOLD_MS, [m.Expire(10)])
            assert (await recover(ann)).lost == ["r1"]
            assert await is_well(ann)

    asyncio.run(story())


def test_what_was_cancelled_and_finds_no_room_is_no_loss(server: Forgetful) -> None:
    async def story() -> None:
        async with node(server.url, "ann") as ann, node(server.url, "bob") as bob:
            await create(ann, 1)
            await bob._node.discover()
            server.remember()
            assert await hold(ann, NOW_MS, "r1") == ["r1"]
            await ann.execute(NOW_MS, [m.Cancel("r1")])
            await bob._node.look(bob._node.sales["g"], 0)
            assert await hold(bob, NOW_MS, "r2") == ["r2"]
            server.forget()
            assert (await recover(bob)).lost == []
            assert (await recover(ann)).lost == []
            assert await state_of(ann, "r2") is State.HELD
            assert await is_well(ann)

    asyncio.run(story())


def test_what_is_restored_keeps_the_purchase_limit_at_every_moment(server: Forgetful) -> None:
    async def story() -> None:
        async with node(server.url, "ann") as ann:
            sale = m.Sale("g", (m.Item("a", 10, purchase_limit=1),), 1, hold_window_ms=HOLD_MS)
            await ann.execute(NOW_MS - 2 * HOLD_MS, [m.CreateSale(sale)])
            server.remember()
            for id, at_ms in (("r1", NOW_MS - HOLD_MS - 1), ("r2", NOW_MS)):
                made = await ann.execute(at_ms, [m.Reserve(id, "g", "a", "gil", 1, f"key-{id}")])
                assert isinstance(made[0], m.Reserved)
                await ann.execute(NOW_MS, [m.Expire(10)])  # the first one, which no node acknowledged to anybody
            server.forget()
            assert (await recover(ann)).lost == []
            assert (await state_of(ann, "r1"), await state_of(ann, "r2")) == (State.EXPIRED, State.HELD)
            assert await is_well(ann)

    asyncio.run(story())


def test_restored_holds_fall_due_in_their_order(server: Forgetful) -> None:
    async def story() -> list[bytes]:
        async with node(server.url, "ann") as ann, node(server.url, "bob") as bob:
            await create(ann, 10)
            await bob._node.discover()
            server.remember()
            for number in range(8):
                await hold((ann, bob)[number % 2], NOW_MS + 1_000 * number, f"r{number}")
            server.forget()
            await recover(bob)
            await recover(ann)
            sale = ann._node.sales["g"]
            assert sale.next_due_ms() == NOW_MS + HOLD_MS
            return list(await ann._node.command("lrange", sale.books[0].keys[4], 0, -1))

    due = asyncio.run(story())
    assert due == [f"{NOW_MS + HOLD_MS + 1_000 * number} r{number}".encode() for number in range(8)]


async def forgotten_additions(server: Forgetful, *, is_all_forgotten: bool) -> int:
    async with node(server.url, "ann") as ann, node(server.url, "bob") as bob, node(server.url, "cem") as cem:
        if not is_all_forgotten:
            await create(ann, 10)
        server.remember()
        if is_all_forgotten:
            await create(ann, 10)
        for each in (bob, cem):
            await each._node.discover()
        await ann.execute(NOW_MS, [m.AddStock("g", "a", 5, "k1")])
        await cem._node.look(cem._node.sales["g"], 0)  # knows 15, and not by whom
        await bob.execute(NOW_MS, [m.AddStock("g", "a", 5, "k2")])
        server.forget()
        await asyncio.gather(*(recover(each) for each in (ann, bob, cem)))
        assert int(await ann._node.command("hget", ann._node.sales["g"].books[0].meta, "capacity:a")) == 20
        for each, key in ((bob, "k1"), (ann, "k2")):  # whoever was told so asks again
            await each.execute(NOW_MS, [m.AddStock("g", "a", 5, key)])
        held = await hold(cem, NOW_MS, *(f"r{number}" for number in range(30)))
        assert await is_well(ann)
        level = ann.stock("g")
        assert level is not None
        assert level.levels[0].capacity == len(held)
        return len(held)


@pytest.mark.parametrize("is_all_forgotten", [False, True])
def test_forgotten_additions_are_made_again_once_whoever_remembers_them(
    server: Forgetful, is_all_forgotten: bool
) -> None:
    assert asyncio.run(forgotten_additions(server, is_all_forgotten=is_all_forgotten)) == 20


async def forgotten_opening(server: Forgetful, shards: int, op: type[m.OpenSale | m.CloseSale]) -> None:
    async with node(server.url, "ann", shards=shards) as ann, node(server.url, "bob", shards=shards) as bob:
        opens_at_ms = None if op is m.OpenSale else 1
        sale = m.Sale("g", (m.Item("a", 4),), opens_at_ms, hold_window_ms=HOLD_MS)
        await ann.execute(NOW_MS, [m.CreateSale(sale)])
        await bob._node.discover()
        server.remember()
        await ann.execute(NOW_MS, [op("g")])
        told = await hold(ann, NOW_MS, "r1", "r2") if op is m.OpenSale else []
        server.forget()
        await asyncio.gather(recover(ann), recover(bob))
        assert {await state_of(bob, id) for id in told} <= {State.HELD}
        await bob._node.look(bob._node.sales["g"], 0)
        more = await hold(bob, NOW_MS + 1, "r3", "r4", "r5")
        assert len(told) + len(more) == (4 if op is m.OpenSale else 0)
        assert await is_well(bob)


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("op", [m.OpenSale, m.CloseSale])
def test_a_sale_whose_opening_or_closing_was_forgotten_is_opened_or_closed_again(
    server: Forgetful, shards: int, op: type[m.OpenSale | m.CloseSale]
) -> None:
    asyncio.run(forgotten_opening(server, shards, op))


# --- together --------------------------------------------------------------------------------------


def test_many_sales_are_made_whole_side_by_side_and_told_once(server: Forgetful) -> None:
    async def story() -> None:
        async with node(server.url, "ann") as ann:
            for number in range(48):
                await create(ann, 4, f"g{number}")
            server.remember()
            for number in range(48):
                await hold(ann, NOW_MS, f"r{number}", sale=f"g{number}")
            server.forget()
            real, at_once, most_at_once = ann._recovery._fence, 0, 0

            async def slow(sale: RedisSale) -> None:
                nonlocal at_once, most_at_once
                at_once += 1
                most_at_once = max(at_once, most_at_once)
                await asyncio.sleep(0.1)
                await real(sale)
                at_once -= 1

            with patch.object(ann._recovery, "_fence", slow):
                found = await recover(ann)
            assert (found.sales, found.restored, found.lost) == (48, 48, [])
            assert most_at_once == SALES_AT_ONCE
            with patch.object(redis_watch, "log") as log:
                ann._watch._tell()
                ann._watch._tell()
            assert [call.args[0] for call in log.warning.call_args_list] == ["epoch_changed"]
            assert await is_well(ann)

    asyncio.run(story())


async def a_long_recovery(server: Forgetful) -> None:
    async with node(server.url, "ann") as ann, node(server.url, "bob") as bob:
        await create(ann, 4)
        await bob._node.discover()
        server.remember()
        server.forget()
        await bob._recovery.roll.announce(await meet(bob))
        real = ann._recovery._restore

        async def slow(sale: RedisSale, told: Any) -> Any:
            await asyncio.sleep(1.2)
            assert await bob._recovery.roll.is_anybody_before(WHOLE), "it is known to be at it"
            await bob._recovery.mend(bob._node.sales["g"])
            assert not await bob._recovery._is_open(bob._node.sales["g"]), "others leave it alone"
            return await real(sale, told)

        with (
            patch.object(redis_roll, "ALIVE_MS", 500),
            patch.object(redis_roll, "ANNOUNCE_S", 0.1),
            patch.object(ann._recovery, "_restore", slow),
        ):
            await recover(ann)
        assert await bob._recovery._is_open(bob._node.sales["g"])


def test_a_node_that_recovers_for_long_is_known_to_live_and_nobody_opens_its_sales(server: Forgetful) -> None:
    asyncio.run(a_long_recovery(server))


def test_nothing_counts_as_unknown_while_the_ledger_is_made_whole(server: Forgetful) -> None:
    """What is not there yet may be written again in a moment: who believed that it never was would forget a refund."""

    async def story() -> None:
        async with node(server.url, "ann") as ann:
            await create(ann, 4)
            server.remember()
            await hold(ann, NOW_MS, "r1")
            server.forget()
            real = ann._recovery._restore

            async def restore(*args: Any) -> Any:
                with pytest.raises(LedgerRefused):
                    await ann.reservation("r1")
                with pytest.raises(LedgerRefused):
                    await ann.reservation_for("g", "buyer-of-r1", "key-r1")
                return await real(*args)

            with patch.object(ann._recovery, "_restore", restore):
                await ann._watch._recover(await meet(ann))
            found = await ann.reservation("r1")
            assert found is not None
            assert found.state is State.HELD

    asyncio.run(story())


def test_a_late_node_of_which_nothing_is_missing_leaves_the_sales_open(server: Forgetful) -> None:
    async def story() -> None:
        async with node(server.url, "ann") as ann, node(server.url, "bob") as bob:
            await create(ann, 4)
            await bob._node.discover()
            await hold(bob, NOW_MS, "r1")
            server.server.restart()
            await recover(ann)
            epoch = ann._node.sales["g"].epoch
            with patch.object(Recovery, "_fence", side_effect=AssertionError("fenced once more")):
                await recover(bob)
            assert bob._node.sales["g"].epoch == epoch
            assert await hold(bob, NOW_MS, "r2", "r3") == ["r2", "r3"]
            assert await is_well(bob)

    asyncio.run(story())


def test_a_node_that_took_too_long_to_restore_leaves_the_turn_of_the_next_alone(server: Forgetful) -> None:
    async def story() -> None:
        async with node(server.url, "ann", shards=2) as ann:
            await create(ann, 4)
            sale, client = ann._node.sales["g"], Redis.from_url(server.url)
            restorer: Restorer = ann._recovery.restorer
            async with restorer._alone(sale):
                client.set(RESTORING + "g", "another's")  # its own had ended
            assert client.get(RESTORING + "g") == b"another's"
            client.delete(RESTORING + "g")
            async with restorer._alone(sale):
                assert client.pttl(RESTORING + "g") > 0
            assert client.get(RESTORING + "g") is None

    asyncio.run(story())
