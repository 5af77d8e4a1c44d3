"""The users that deploy/valkey-start.sh makes: each may do what its part does, and the one for orders sells nothing."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import NoPermissionError

import ticketrush
from tests.in_loop import in_loop
from tests.valkey import own_valkey
from ticketrush.model import Item, Reserved, Sale
from ticketrush.orders.model import OrderState
from ticketrush.orders.reconciler import Reconciler
from ticketrush.orders.redis_records import RedisRecords
from ticketrush.orders.sqlite import SqliteOrders
from ticketrush.orders.streams import Streams

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "valkey-start.sh"


def users(folder: Path) -> list[list[str]]:
    """The users as the script writes them down, each as arguments of ACL SETUSER."""
    for name in ("valkey_password", "valkey_orders_password"):
        (folder / name).write_text(name)
    text = SCRIPT.read_text("utf-8").replace("/tmp/users.acl", str(folder / "users.acl"))
    text = text.replace("/run/secrets", str(folder)).replace("exec valkey-server", "true")
    subprocess.run(["sh", "-c", text], check=True)
    return [line.split()[1:] for line in (folder / "users.acl").read_text().splitlines()]


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[Redis]:
    with own_valkey() as server:
        client = Redis.from_url(server.url)
        for user in users(tmp_path):
            if user[0] != "default":
                client.execute_command("ACL", "SETUSER", *user)  # type: ignore[no-untyped-call]
        yield client
        client.close()


def url_of(admin: Redis, user: str) -> str:
    port = admin.connection_pool.connection_kwargs["port"]
    password = {"ticketrush": "valkey_password", "orders": "valkey_orders_password"}[user]
    return f"redis://{user}:{password}@127.0.0.1:{port}/0"


def denied(admin: Redis) -> list[str]:
    return [f"{entry['username']}: {entry['object']}" for entry in admin.acl_log()]


async def sell(url: str) -> str:
    """Do whatever a node does; the id of a reservation that was paid."""
    async with ticketrush.open(url, durability="memory") as desk:
        for sale, window_ms in (("g1", 300_000), ("brief", 300)):
            item = Item("second", 3, purchase_limit=3)
            await desk.create_sale(Sale(sale, (item,), opens_at_ms=0, hold_window_ms=window_ms))
        sales = ("g1", "g1", "brief")
        held = [
            await desk.reserve(sale, "second", buyer="ada", quantity=1, key=f"k{n}") for n, sale in enumerate(sales)
        ]
        assert all(isinstance(each, Reserved) for each in held)
        ids = [each.reservation.id for each in held if isinstance(each, Reserved)]
        await desk.confirm(ids[0], payment="receipt-1")
        await desk.cancel(ids[1])
        await asyncio.sleep(1.5)  # the third one expires
        await desk.refund(ids[0])
        await desk.add_stock("g1", "second", units=1, key="more")
    return ids[0]


@in_loop
async def test_nothing_that_a_part_does_is_denied_to_its_user(admin: Redis, tmp_path: Path) -> None:
    paid = await sell(url_of(admin, "ticketrush"))
    store = SqliteOrders(tmp_path / "orders.db")
    await store.migrate()
    await store.open()
    source = Streams(url_of(admin, "orders"))
    await source.open()
    while messages := await source.next(100, 1):
        await store.put([message.notice for message in messages if message.notice is not None])
        await source.done()
    assert await source.lag() == 0
    await source.close()
    order = await store.order(paid)
    assert order is not None
    assert order.state is OrderState.REFUNDED
    records = RedisRecords(url_of(admin, "orders"), "reader")
    await records.open()
    assert await records.turn(60)
    found = await Reconciler(records, store).run(2**42, mend=False)
    await records.close()
    await store.close()
    assert (found.compared, found.repaired, found.is_well) == (3, 0, True)
    assert denied(admin) == []


def test_who_makes_orders_can_sell_nothing(admin: Redis) -> None:
    client = Redis.from_url(url_of(admin, "orders"))
    for command in (
        ("hset", "ticketrush:{g1:0}:records", "a", "b"),
        ("xadd", "ticketrush:{g1:0}:events", "*", "a", "b"),
        ("set", "ticketrush:numbers", "1"),
        ("eval", "return 1", "0"),
    ):
        with pytest.raises(NoPermissionError):
            client.execute_command(*command)  # type: ignore[no-untyped-call]
    client.close()
