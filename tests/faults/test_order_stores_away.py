"""A store that is killed, frozen, locked or full: an answer in time, nothing half written, and afterwards as before."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import apsw
import asyncpg
import pytest

from tests.orders import held, paid, rows_in, tell
from ticketrush.cluster.postgres import Postgres
from ticketrush.orders import postgres, postgres_connections, sqlite
from ticketrush.orders.errors import StoreUnavailable
from ticketrush.orders.model import OrderState
from ticketrush.orders.postgres import PostgresOrders
from ticketrush.orders.protocol import OrderStore
from ticketrush.orders.sqlite import SqliteOrders

BATCH = [each for number in range(500) for each in (held(f"o{number}"), paid(f"o{number}"))]

WAITING = """
select count(*) from pg_stat_activity
where application_name = 'ticketrush' and datname = current_database() and state = 'active'"""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> float:
    """Seconds after which a store gives up, shortened."""
    for module, name in ((postgres, "ANSWER_S"), (postgres_connections, "CONNECT_S"), (sqlite, "ANSWER_S")):
        monkeypatch.setattr(module, name, 1.0)
    return 1.0


async def until_away(store: OrderStore) -> None:
    """Write until the store is away."""
    for _ in range(10_000):
        try:
            await store.put(BATCH)
        except StoreUnavailable:
            return
    pytest.fail("it never was")


def test_a_server_that_is_killed_is_unavailable_and_takes_the_same_again(new_postgres: Callable[[], Postgres]) -> None:
    server = new_postgres()

    async def story(store: OrderStore) -> None:
        await store.put(BATCH[:10])
        writing = asyncio.create_task(until_away(store))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(server.kill)
        async with asyncio.timeout(20):
            await writing
        with pytest.raises(StoreUnavailable):
            await store.states(["o0"])
        await asyncio.to_thread(server.start)
        await store.put(BATCH)  # on new connections, by itself
        assert {state for state, *_ in (await rows_in(store)).values()} == {OrderState.PAID}

    tell(server.url, story)


def test_a_server_that_is_frozen_is_unavailable_in_time(new_postgres: Callable[[], Postgres], impatient: float) -> None:
    server = new_postgres()

    async def story(store: OrderStore) -> None:
        await store.put(BATCH[:10])
        server.pause()
        try:
            for _ in range(2):  # on a connection that was there, and on a new one
                began_s = time.monotonic()
                with pytest.raises(StoreUnavailable):
                    await store.put(BATCH)
                assert time.monotonic() - began_s < impatient + 1
            began_s = time.monotonic()
            await store.close()
            assert time.monotonic() - began_s < 1
        finally:
            server.resume()
        await store.open()
        await store.put(BATCH)
        assert len(await rows_in(store)) == 500

    tell(server.url, story)


def test_whoever_holds_an_order_is_waited_for_within_a_bound(postgres_url: str, impatient: float) -> None:
    async def story(store: OrderStore) -> None:
        await store.put([held("o1")])
        other = await asyncpg.connect(postgres_url)
        try:
            await other.execute("begin; select * from orders where id = 'o1' for update")
            with pytest.raises(StoreUnavailable, match="no answer"):
                await store.put([held("o0"), paid("o1")])
            assert await store.order("o0") is None
            assert (await store.states(["o1"])) == {"o1": OrderState.HELD}  # readers do not wait
        finally:
            await other.close()
        await store.put([held("o0"), paid("o1")])

    tell(postgres_url, story)


def test_what_is_given_up_here_the_server_gives_up_soon(postgres_url: str) -> None:
    async def story(store: OrderStore) -> None:
        await store.put([held("o1")])
        other, watcher = await asyncpg.connect(postgres_url), await asyncpg.connect(postgres_url)
        try:
            await other.execute("begin; lock table orders in access exclusive mode")
            for _ in range(5):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.2):
                        await store.order("o1")
            async with asyncio.timeout(postgres.ANSWER_S / 2):
                while await watcher.fetchval(WAITING):
                    await watcher.execute("select pg_sleep(0.05)")
        finally:
            await other.close()
            await watcher.close()
        assert await store.order("o1") is not None

    tell(postgres_url, story)


def test_a_server_that_cannot_watch_is_good_enough(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those before PostgreSQL 14, which do not know the setting, and those on systems where only 0 is allowed."""
    for command in ("set setting_of_tomorrow = 500", "set client_connection_check_interval = -1"):
        monkeypatch.setattr(postgres_connections, "_WATCH", command)
        tell(postgres_url, lambda store: store.put([held("o1")]))


def test_a_transaction_that_the_server_gives_up_is_tried_again(postgres_url: str) -> None:
    """Somebody locks in another order than ours; ours waits longer by then, so it is ours that is given up."""

    async def story(store: OrderStore) -> None:
        await store.put([held("a"), held("z")])
        other = await asyncpg.connect(postgres_url)
        try:
            await other.execute("begin; select * from orders where id = 'z' for update")
            putting = asyncio.create_task(store.put([paid("a"), paid("z")]))
            await asyncio.sleep(0.3)  # it has a and waits for z
            await other.execute("select * from orders where id = 'a' for update; rollback")
            await putting
        finally:
            await other.close()
        assert await store.states(["a", "z"]) == {"a": OrderState.PAID, "z": OrderState.PAID}

    tell(postgres_url, story)


def test_a_file_that_another_program_writes_to_is_unavailable_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_MS", 300)
    file = tmp_path / "orders.db"

    async def story(store: OrderStore) -> None:
        other = apsw.Connection(str(file))
        other.execute("begin immediate")
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.put(BATCH)
        assert await rows_in(store) == {}  # readers do not wait
        other.execute("rollback")
        other.close()
        await store.put(BATCH)
        assert len(await rows_in(store)) == 500

    tell(f"sqlite:///{file}", story)


def test_a_disk_that_hangs_is_unavailable_in_time(tmp_path: Path, impatient: float) -> None:
    store = SqliteOrders(tmp_path / "orders.db")

    async def story() -> None:
        await store.migrate()
        await store.close()
        await store.open()
        stuck = asyncio.ensure_future(store._writer.alone(time.sleep, 3))
        await asyncio.sleep(0)
        began_s = time.monotonic()
        with pytest.raises(StoreUnavailable, match="no answer"):
            await store.put(BATCH)
        assert time.monotonic() - began_s < impatient + 1
        assert await store.order("o0") is None
        with pytest.raises(StoreUnavailable):
            await stuck
        await asyncio.sleep(1.5)
        await store.close()

    asyncio.run(story())


def test_who_no_longer_waits_leaves_nothing_in_the_queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "WAITING_MAX", 50)
    store = SqliteOrders(tmp_path / "orders.db")

    async def ask() -> str:
        try:
            async with asyncio.timeout(0.1):
                await store.order("o0")
        except (StoreUnavailable, TimeoutError) as error:
            return str(error)
        return "answered"

    async def story() -> None:
        await store.migrate()
        await store.close()
        await store.open()
        asked = 0

        def count(*_: object) -> list[object]:
            nonlocal asked
            asked += 1
            return []

        stuck = asyncio.ensure_future(store._reader.alone(time.sleep, 1))
        monkeypatch.setattr(sqlite, "_all", count)
        found = await asyncio.gather(*(ask() for _ in range(500)))
        assert sum("50 questions wait" in each for each in found) >= 449
        await stuck
        assert await store.order("o0") is None
        assert asked == 1
        await store.close()

    asyncio.run(story())


def test_each_question_to_a_server_has_its_own_limit(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the first one's was, on whose connection it comes."""
    monkeypatch.setattr(postgres, "ANSWER_S", 0.5)
    monkeypatch.setitem(postgres._SQL, "totals", "select 'g1', 'second', 'held', 1, 1 from pg_sleep(1)")

    async def story(store: OrderStore) -> None:
        await store.put(BATCH[:2])
        assert len(await store.totals()) == 1
        await store.put(BATCH[2:4])

    tell(postgres_url, story)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_others_go_on_while_a_batch_is_written(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The loop is free while the disk works. Making the statement of 500 orders takes some milliseconds."""
    url = f"sqlite:///{tmp_path}/o.db" if kind == "sqlite" else str(request.getfixturevalue("postgres_url"))

    async def story(store: OrderStore) -> None:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        going = asyncio.create_task(others())
        for start in range(10):
            await store.put([each for n in range(500) for each in (held(f"{start}-{n}"), paid(f"{start}-{n}"))])
        going.cancel()
        assert turns > 100

    tell(url, story)


def test_the_order_store_of_a_lost_password_is_unavailable(new_postgres: Callable[[], Postgres]) -> None:
    async def story() -> None:
        store = PostgresOrders(new_postgres().url.replace("ticketrush@", "nobody:hush@"))
        with pytest.raises(StoreUnavailable) as refused:
            await store.open()
        assert "hush" not in str(refused.value)
        await store.close()

    asyncio.run(story())
