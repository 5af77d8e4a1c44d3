"""A server has forgotten what no living node remembers: it is written again from the order store, which knows it."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import msgspec
import pytest
from typer.testing import CliRunner

from tests.faults.buyers import HOLD_S, Memory, Sale
from tests.faults.forgetting import Forgetful, cut_tail, meet, newest_of, node
from tests.faults.line import Line
from tests.orders import tell
from tests.postgres import postgres, postgres_url
from tests.valkey import own_valkey
from ticketrush import model as m
from ticketrush import processes
from ticketrush.audit import AuditReport, LedgerState, OrderRecord, Told, audit
from ticketrush.cli import app
from ticketrush.cluster.plan import ClusterPlan
from ticketrush.cluster.up import Cluster, cluster
from ticketrush.crowd.orders import orders_of
from ticketrush.events import AnyEvent
from ticketrush.ledger.redis import RedisLedger
from ticketrush.ledger.redis_node import RedisNode
from ticketrush.model import State
from ticketrush.orders import recall
from ticketrush.orders.model import Order
from ticketrush.orders.protocol import OrderStore
from ticketrush.orders.streams import Streams
from ticketrush.orders.worker import OrderWorker

__all__ = ["postgres", "postgres_url"]

pytestmark = pytest.mark.timeout(120)

ITEM: Final = "second"
HOLD_MS: Final = 60_000
LIMIT: Final = 2
CAPACITY: Final = 6
STATES: Final = (State.HELD, State.PAID, State.CANCELLED, State.REFUNDED)


@pytest.fixture
def server() -> Iterator[Forgetful]:
    with own_valkey("fsync") as valkey:  # what it forgets is for the test to say, and not for the disk
        yield Forgetful(valkey)


@pytest.fixture(params=["sqlite", "postgres"])
def orders(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/orders.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/orders.db"


def now_ms() -> int:
    return int(time.time() * 1_000)


async def create(ledger: RedisLedger, *, hold_ms: int = HOLD_MS, closes_at_ms: int | None = None) -> None:
    sale = m.Sale("g", (m.Item(ITEM, CAPACITY, LIMIT),), 1, closes_at_ms, hold_window_ms=hold_ms)
    made = await ledger.execute(now_ms(), [m.CreateSale(sale)])
    assert isinstance(made[0], m.SaleChanged), made


async def reserve(ledger: RedisLedger, *buyers: str) -> list[m.Outcome]:
    """One unit for each buyer, always with the buyer's one key."""
    asks = [m.Reserve(ledger.new_id("g", buyer), "g", ITEM, buyer, 1, f"key-of-{buyer}") for buyer in buyers]
    return await ledger.execute(now_ms(), asks)


async def held(ledger: RedisLedger, *buyers: str) -> list[m.Reservation]:
    outcomes = await reserve(ledger, *buyers)
    assert all(isinstance(outcome, m.Reserved) for outcome in outcomes), outcomes
    return [outcome.reservation for outcome in outcomes if isinstance(outcome, m.Reserved)]


async def one_of_each(ledger: RedisLedger) -> list[m.Reservation]:
    """Reservations in each of `STATES`, as they were acknowledged."""
    rows = await held(ledger, *(state.value for state in STATES))
    _, paid, cancelled, refunded = (row.id for row in rows)
    changes: list[m.Command] = [m.Confirm(paid, "pay-1"), m.Cancel(cancelled), m.Confirm(refunded, "pay-2")]
    await ledger.execute(now_ms(), [*changes, m.Refund(refunded)])
    found = [await ledger.reservation(row.id) for row in rows]
    assert [row.state for row in found if row is not None] == list(STATES)
    return [row for row in found if row is not None]


def stored(ledger: str, orders: str) -> None:
    """Let a worker bring all that the ledger's streams have into the store."""

    async def work(store: OrderStore) -> None:
        source = Streams(ledger)
        try:
            await source.open()
            worker = OrderWorker(source, store)
            while await worker._step():
                pass
            assert not worker.dead, [letter.error for letter in await store.dead_letters(after=0, limit=9)]
        finally:
            await source.close()

    tell(orders, work)


def records(orders: str) -> list[OrderRecord]:
    def record(order: Order) -> OrderRecord:
        claim = order.claim
        assert claim is not None
        return OrderRecord(order.id, order.state.value, claim.sale, claim.item, claim.buyer, claim.quantity)

    return [record(order) for order in tell(orders, lambda store: store.page(0, 100_000))]


def reconciled(ledger: str, orders: str) -> dict[str, Any]:
    """What `ticketrush reconcile` found; whether it ended well is in "ok"."""
    arguments = ["reconcile", "--ledger", ledger, "--durability", "memory", "--orders", orders, "--restore", "--json"]
    result = CliRunner().invoke(app, arguments)
    found: dict[str, Any] = json.loads(result.stdout)
    assert result.exit_code == (0 if found["ok"] else 1), result.output
    return found


async def _read(url: str) -> tuple[list[AnyEvent], LedgerState]:
    ledger = RedisLedger(url, node="auditor", durability="memory")
    await ledger.open_for_operator()
    try:
        return [event for _, event in await ledger.events(0, 10**9)], await ledger.state()
    finally:
        await ledger.close()


def audited(ledger: str, orders: str, told: Told | None = None, **more: Any) -> AuditReport:
    """The ledger's events and state, held against its orders, once a worker has brought them all."""
    stored(ledger, orders)
    events, state = asyncio.run(_read(ledger))
    return audit(events, state=state, told=told, asked_for=lambda *_: True, orders=records(orders), **more)


def told_of(rows: list[m.Reservation]) -> Told:
    told = Told()
    for row in rows:
        told.acknowledged[row.id] = (row.buyer, row.key, row.sale, row.item, row.quantity)
        if row.payment:
            told.paid.add(row.id)
    return told


def forgets(
    server: Forgetful, orders: str, *, shards: int = 1, hold_ms: int = HOLD_MS, closes_at_ms: int | None = None
) -> tuple[list[m.Reservation], list[m.Reservation]]:
    """A node sells and is gone, orders are made, the server forgets: what it still knows, and what it does not."""

    async def sell() -> tuple[list[m.Reservation], list[m.Reservation]]:
        async with node(server.url, "ann", shards=shards) as ann:
            await create(ann, hold_ms=hold_ms, closes_at_ms=closes_at_ms)
            before = await held(ann, "before")
            server.remember()
            after = await one_of_each(ann)
            await asyncio.to_thread(stored, server.url, orders)
            return before, after

    known, forgotten = asyncio.run(sell())
    server.forget()
    return known, forgotten


# --- nobody else has bought ----------------------------------------------------------------------


@pytest.mark.parametrize("shards", [1, 3])
def test_what_no_living_node_remembers_is_written_again_from_the_orders(
    server: Forgetful, orders: str, shards: int
) -> None:
    known, forgotten = forgets(server, orders, shards=shards)
    found = reconciled(server.url, orders)
    assert found["ok"], found
    assert (found["recalled"]["lacking"], found["restored"], found["lost"]) == (4, 4, [])
    assert found["items"][0]["after"] == {"capacity": CAPACITY, "available": 3, "leased": 0, "held": 2, "sold": 1}
    report = audited(server.url, orders, told_of([*known, *forgotten]))
    assert report.ok, report.violations
    assert (report.lost, report.orders) == (0, 5)

    async def asked_again() -> None:
        async with node(server.url, "bob") as bob:
            await meet(bob)
            await bob._node.discover()
            for row in forgotten:
                assert await bob.reservation(row.id) == msgspec.structs.replace(
                    row, changed_at_ms=(await bob.reservation(row.id) or row).changed_at_ms
                )
                (outcome,) = await reserve(bob, row.buyer)
                assert isinstance(outcome, m.Reserved)
                assert (outcome.replayed, outcome.reservation.id) == (True, row.id), "the key gives the first answer"
            assert sum(isinstance(each, m.Reserved) for each in await reserve(bob, *"vwxyz")) == 3

    asyncio.run(asked_again())
    again = reconciled(server.url, orders)
    assert (again["recalled"]["lacking"], again["restored"], again["lost"]) == (0, 0, [])
    report = audited(server.url, orders, told_of([*known, *forgotten]))
    assert report.ok, report.violations


def test_a_hold_whose_time_is_over_takes_no_unit(server: Forgetful, file: str) -> None:
    _, (hold, *_) = forgets(server, file, hold_ms=1_000)
    time.sleep(max(0, hold.expires_at_ms - now_ms()) / 1_000 + 0.1)
    found = reconciled(server.url, file)
    assert (found["restored"], found["lost"]) == (4, [])
    assert found["items"][0]["after"]["held"] == 0
    report = audited(server.url, file, told_of([hold]), now_ms=now_ms())
    assert report.ok, report.violations
    assert {record.id: record.state for record in records(file)}[hold.id] == "expired"


def test_what_was_bought_before_the_sale_closed_is_written_again_after_it(server: Forgetful, file: str) -> None:
    closes_at_ms = now_ms() + 2_500
    known, forgotten = forgets(server, file, closes_at_ms=closes_at_ms)
    time.sleep(max(0, closes_at_ms - now_ms()) / 1_000)
    found = reconciled(server.url, file)
    assert (found["restored"], found["lost"]) == (4, [])
    report = audited(server.url, file, told_of([*known, *forgotten]))
    assert report.ok, report.violations


def test_a_sale_that_is_forgotten_is_told_and_filled_again_when_it_is_made_again(server: Forgetful, file: str) -> None:
    server.remember()

    async def sell() -> list[m.Reservation]:
        async with node(server.url, "ann") as ann:
            await create(ann)
            rows = await one_of_each(ann)
            await asyncio.to_thread(stored, server.url, file)
            return rows

    rows = asyncio.run(sell())
    server.forget()
    found = reconciled(server.url, file)
    assert (found["ok"], found["recalled"]) == (False, {"lacking": 0, "placeless": {"g": 4}})

    async def make() -> None:
        async with node(server.url, "bob") as bob:
            await meet(bob)
            await create(bob)

    asyncio.run(make())
    found = reconciled(server.url, file)
    assert found["ok"], found
    assert (found["restored"], found["recalled"]["placeless"]) == (4, {})
    report = audited(server.url, file, told_of(rows))
    assert report.ok, report.violations


# --- others have bought meanwhile ----------------------------------------------------------------


def buy(url: str, *buyers: str) -> list[m.Reservation]:
    """A node that knows nothing of what was forgotten sells."""

    async def sell() -> list[m.Reservation]:
        async with node(url, "bob") as bob:
            await meet(bob)
            await bob._recovery.run(await bob._link.identity())
            return [each.reservation for each in await reserve(bob, *buyers) if isinstance(each, m.Reserved)]

    return asyncio.run(sell())


def test_what_was_sold_to_others_by_then_is_lost_and_told_and_nothing_is_oversold(server: Forgetful, file: str) -> None:
    _, (hold, *_) = forgets(server, file)
    others = buy(server.url, "held", "u", "v", "w")  # the first one asks again with the key of before
    assert others[0].id != hold.id
    found = reconciled(server.url, file)
    assert not found["ok"]
    assert found["lost"] == [hold.id], "its key has another reservation; there was a unit for the paid one"
    assert found["items"][0]["after"] == {"capacity": CAPACITY, "available": 0, "leased": 0, "held": 5, "sold": 1}
    report = audited(server.url, file, told_of(others))
    assert (report.oversold, report.I1, report.I2, report.I5, report.I6, report.I8) == (0, True, True, True, True, True)
    assert report.violations == [f"I3 order {hold.id} is of a reservation that no event has"]


def test_paid_ones_go_before_those_that_are_only_held(server: Forgetful, file: str) -> None:
    _, (hold, paid, *_) = forgets(server, file)
    buy(server.url, "u", "v", "w", "x")  # one unit is left, and two want it
    assert reconciled(server.url, file)["lost"] == [hold.id]
    assert {row.id for row in _rows(server.url) if row.state is State.PAID} == {paid.id}


def _rows(url: str) -> list[m.Reservation]:
    async def read() -> list[m.Reservation]:
        ledger = RedisLedger(url, durability="memory")
        await ledger.open_for_operator()
        try:
            return [row async for page in ledger.reservations() for row in page]
        finally:
            await ledger.close()

    return asyncio.run(read())


# --- canaries: a recovery that does one thing wrong is found out ---------------------------------


def test_a_recovery_without_keys_is_found_out(server: Forgetful, file: str) -> None:
    forgets(server, file)
    buy(server.url, "held")
    real = recall.reservation_of

    def without_key(order: Order) -> m.Reservation | None:
        row = real(order)
        return row and msgspec.structs.replace(row, key="")

    with patch.object(recall, "reservation_of", without_key):
        assert reconciled(server.url, file)["lost"] == []
    assert sum(row.buyer == "held" for row in _rows(server.url)) == 2
    with pytest.raises(AssertionError, match="refused"):  # by the store: that is not what had been held
        audited(server.url, file)


def test_a_recovery_that_does_not_look_for_room_is_found_out(server: Forgetful, file: str) -> None:
    forgets(server, file)
    buy(server.url, "u", "v", "w", "x", "y")
    real = RedisNode.book

    async def careless(self: RedisNode, sale: Any, number: int, script: str, blob: bytes = b"", **more: Any) -> Any:
        if script == "restore":
            more["room"] = dict.fromkeys(more["room"], 1_000)
        return await real(self, sale, number, script, blob, **more)

    with patch.object(RedisNode, "book", careless):
        assert not reconciled(server.url, file)["ok"]
    report = audited(server.url, file)
    assert not report.I1
    assert report.oversold > 0


# --- real nodes, a real worker, the end of the file cut off --------------------------------------


def test_all_nodes_are_killed_and_the_end_of_the_file_is_cut_off_and_nothing_is_lost(tmp_path: Path) -> None:
    plan = ClusterPlan(
        nodes=2,
        folder=tmp_path,
        durability="memory",
        orders=f"sqlite:///{tmp_path}/orders.db",
        flags=("--open",),
        env=processes.plain_environment(),
    )
    seed = random.SystemRandom().randrange(10**9)
    print(f"seed {seed}")
    memory = Memory()
    sale = Sale("g1", 3_000, memory, random.Random(seed))
    with cluster(plan) as running:
        crowd(running, sale, 1.0)
        time.sleep(HOLD_S + 0.6)  # what was abandoned ends
        events, _ = asyncio.run(_read(running.ledger))
        assert orders_of(plan.orders, events).drained_s is not None
        for each in running.nodes:
            each.kill()
        (valkey,) = running.valkeys
        valkey.kill()
        cut_tail(valkey.folder, newest_of(valkey.folder).stat().st_size // 3)  # expiries alone would lose no unit
        valkey.start()
        left, _ = asyncio.run(_read(running.ledger))
        assert len(left) < len(events), "nothing was forgotten"

        found = reconciled(running.ledger, plan.orders)
        assert found["lost"] == []
        assert found["restored"] > 0
        is_well(running, memory, plan.orders)

        alone = running.nodes[0]
        alone.launch()
        alone.wait_until_ready()
        port = int(alone.url.rpartition(":")[2])
        asyncio.run(sale.settle(port))  # keys give their first answers
        asyncio.run(sale.sell_out(port, 30))
        time.sleep(HOLD_S + 0.6)
        asyncio.run(sale.sell_out(port, 30))
        is_well(running, memory, plan.orders, demand_exceeds_capacity=True)
        running.newly_ended()


def is_well(running: Cluster, memory: Memory, orders: str, **more: Any) -> None:
    """Every invariant holds, with all that buyers were told and every order."""
    events, state = asyncio.run(_read(running.ledger))
    made = orders_of(orders, events)
    assert made.drained_s is not None
    told = memory.told
    report = audit(events, state=state, told=told, asked_for=memory.was_asked, orders=made.records, **more)
    assert report.ok, report.violations
    assert (report.lost, report.oversold, report.orders) == (0, 0, report.reservations)


def crowd(running: Cluster, sale: Sale, for_s: float) -> None:
    """Buyers at all nodes for a while. They have a thread of their own: what a thread starts ends with it."""
    is_over = threading.Event()

    async def queue(port: int) -> None:
        async with Line(port) as line:
            while not is_over.is_set():
                await sale.shop(line)

    async def everybody() -> None:
        ports = [int(each.url.rpartition(":")[2]) for each in running.nodes]
        async with Line(ports[0]) as line:
            await sale.prepare(line)
        for port in ports:
            await sale.is_open_at(port)
        began = asyncio.get_running_loop().call_later(for_s, is_over.set)
        await asyncio.gather(*(queue(port) for port in ports for _ in range(12)))
        began.cancel()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, everybody()).result()
