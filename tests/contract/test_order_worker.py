"""The order worker on a real store: what is told three times, in any order, is written once, and nothing is lost."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, Final

import apsw
import pytest

from tests.in_loop import in_loop
from tests.order_worker import WITHIN_S, ListSource, messages_of, opened, until, work_off, working
from tests.orders import Naive, claim, ended, held, paid, rows_in
from ticketrush.orders import worker as worker_module
from ticketrush.orders.errors import StoreOutdated
from ticketrush.orders.model import DeadLetter, Kind, Notice, OrderState, Repair
from ticketrush.orders.notices import encode
from ticketrush.orders.protocol import Message, OrderStore
from ticketrush.orders.sqlite import SqliteOrders
from ticketrush.orders.worker import DEFECTS_MAX

POISON: Final = 0.01


class Planted(SqliteOrders):
    """A store that has a defect: it raises what nobody foresees, if `is_hit` says so of what is to be written."""

    def __init__(self, path: Path, is_hit: Callable[[Sequence[Notice], Sequence[DeadLetter]], bool]) -> None:
        super().__init__(path)
        self.is_hit, self.hits = is_hit, 0
        self.error: Exception = ZeroDivisionError("a defect of the store")

    async def put(
        self,
        notices: Sequence[Notice],
        *,
        dead: Sequence[DeadLetter] = (),
        repairs: Sequence[Repair] = (),
        position: tuple[str, str] | None = None,
    ) -> None:
        if self.is_hit(notices, dead):
            self.hits += 1
            raise self.error
        await super().put(notices, dead=dead, repairs=repairs, position=position)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lag is looked at often."""
    monkeypatch.setattr(worker_module, "LAG_S", 0.02)


def story(orders: int, dice: random.Random) -> list[Notice]:
    """Orders that end in every way."""
    told: list[Notice] = []
    for number in range(orders):
        id = f"o{number}"
        told.append(held(id, claim(f"buyer-{number % 7}", quantity=1 + number % 3)))
        match dice.randrange(5):
            case 0:
                told.append(paid(id, f"p-{number}"))
            case 1:
                told += [paid(id, f"p-{number}"), ended(id, Kind.REFUNDED)]
            case 2:
                told.append(ended(id, Kind.CANCELLED))
            case 3:
                told.append(ended(id, Kind.EXPIRED))
    return told


def naive_rows(notices: Sequence[Notice]) -> dict[str, tuple[Any, ...]]:
    naive = Naive()
    naive.put(notices)
    return naive.rows()


async def letters_in(store: OrderStore) -> dict[str, DeadLetter]:
    found = await store.dead_letters(after=0, limit=10_000)
    assert len({each.where for each in found}) == len(found)
    return {each.where.rpartition("/")[0]: each for each in found}


# --- at least once, once in effect ------------------------------------------------------------


def three_times_with_poison(notices: Sequence[Notice], dice: random.Random) -> tuple[list[Message], set[str]]:
    """Everything three times, shuffled, with what is no notice in between; and where that is."""
    messages = messages_of(notices)
    count = max(1, round(POISON * len(messages)))
    poison = [Message(f"list/bad-{number}", b"\xff{", None, "JSON is malformed") for number in range(count)]
    told = 3 * [*messages, *poison]
    dice.shuffle(told)
    return told, {each.where for each in poison}


@pytest.mark.parametrize("seed", range(3))
@in_loop
async def test_what_is_told_three_times_and_in_any_order_is_written_once(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    notices = story(400, dice)
    messages, poison = three_times_with_poison(notices, dice)
    source = ListSource(messages)
    async with opened(SqliteOrders(tmp_path / "o.db")) as store:
        worker = await work_off(source, store, batch_max=dice.choice([1, 7, 100, 2_000]))
        rows, letters = await rows_in(store), await letters_in(store)
        numbers = [each.number for each in await store.page(0, 1_000)]

        assert rows == naive_rows(notices)
        assert set(letters) == poison
        assert (worker.stored, worker.dead) == (3 * len(notices), 3 * len(poison))
        assert await store.position("list") == str(len(messages))

        await source.close()  # and all of it again, from the start
        dice.shuffle(source.messages)
        source.finished = 0
        await work_off(source, store)
        assert (await rows_in(store), await letters_in(store)) == (rows, letters)
        assert [each.number for each in await store.page(0, 1_000)] == numbers


@in_loop
async def test_a_dead_letter_says_what_came_and_why_it_is_none(tmp_path: Path) -> None:
    source = ListSource([Message("list/0", b"\xff{", None, "JSON is malformed")])
    async with opened(SqliteOrders(tmp_path / "o.db")) as store:
        before_ms = int(time.time() * 1_000)
        await work_off(source, store)

        (letter,) = (await letters_in(store)).values()
        assert (letter.payload, letter.error) == (b"\xff{", "JSON is malformed")
        assert re.fullmatch("list/0/[0-9a-f]{8}", letter.where)
        assert before_ms <= letter.at_ms <= time.time() * 1_000


@in_loop
async def test_another_message_in_a_place_that_is_known_is_another_dead_letter(tmp_path: Path) -> None:
    """A topic that was deleted and made again counts from its start again."""
    async with opened(SqliteOrders(tmp_path / "o.db")) as store:
        for payload in (b"one", b"two", b"one"):
            await work_off(ListSource([Message("list/0", payload, None, "no notice")]), store)
        assert [each.payload for each in await store.dead_letters(after=0, limit=10)] == [b"one", b"two"]


# --- what is refused --------------------------------------------------------------------------

GUILTY: Final = {
    "another claim": held("o5", claim("eve")),
    "another payment": paid("o6", "p-other"),
    "paid and cancelled": ended("o6", Kind.CANCELLED),
}


@pytest.mark.parametrize("batch_max", [1, 3, 10, 2_000])
@pytest.mark.parametrize("what", GUILTY)
@in_loop
async def test_only_what_contradicts_becomes_a_dead_letter(tmp_path: Path, what: str, batch_max: int) -> None:
    innocent = [held(f"o{number}") for number in range(20)] + [paid("o6")]
    later = [ended("o7", Kind.EXPIRED), held("late")]
    notices = [*innocent, GUILTY[what], *later]
    source = ListSource(messages_of(notices))
    async with opened(SqliteOrders(tmp_path / "o.db")) as store:
        await work_off(source, store, batch_max)

        letters = await letters_in(store)
        assert set(letters) == {f"list/{len(innocent)}"}
        (letter,) = letters.values()
        assert letter.payload == encode(GUILTY[what])
        assert f"order {GUILTY[what].order} is refused" in letter.error
        assert await rows_in(store) == naive_rows([*innocent, *later])
        assert await store.position("list") == str(len(notices))


def hit_by(orders: Collection[str]) -> Callable[[Sequence[Notice], Sequence[DeadLetter]], bool]:
    return lambda notices, _: any(each.order in orders for each in notices)


@in_loop
async def test_a_defect_that_one_notice_meets_costs_that_notice_a_few_tries(tmp_path: Path) -> None:
    notices = [held(f"o{number}") for number in range(64)]
    async with opened(Planted(tmp_path / "o.db", hit_by({"o13"}))) as store:
        await work_off(ListSource(messages_of(notices)), store)

        letters = await letters_in(store)
        assert set(letters) == {"list/13"}
        assert letters["list/13"].error == "ZeroDivisionError: a defect of the store"
        assert await rows_in(store) == naive_rows([each for each in notices if each.order != "o13"])
        assert store.hits == DEFECTS_MAX * 7, "64, 32, 16, 8, 4, 2, 1"


@in_loop
async def test_a_defect_that_passes_costs_nothing(tmp_path: Path) -> None:
    notices = [held(f"o{number}") for number in range(10)]
    async with opened(Planted(tmp_path / "o.db", lambda *_: True)) as store:
        store.is_hit = lambda *_: store.hits < DEFECTS_MAX - 1
        await work_off(ListSource(messages_of(notices)), store)

        assert (await rows_in(store), await letters_in(store)) == (naive_rows(notices), {})


# --- what is away -----------------------------------------------------------------------------


@in_loop
async def test_a_store_with_a_defect_in_everything_loses_nothing(tmp_path: Path) -> None:
    messages = [*messages_of([held("o")]), Message("list/bad", b"x", None, "no notice")]
    source = ListSource(messages)
    async with opened(Planted(tmp_path / "o.db", lambda *_: True)) as store:
        async with working(source, store) as worker:
            await until(lambda: store.hits > 3 * DEFECTS_MAX and worker.away != "")
            assert (source.finished, worker.stored, worker.dead) == (0, 0, 0)
            assert "a defect of the store" in worker.away

            store.is_hit = lambda *_: False
            await until(lambda: source.finished == len(messages) and worker.away == "")
        known = set(await rows_in(store)) | set(await letters_in(store))
        assert known >= {"list/bad"}
        assert known & {"o", "list/0"}, "it is an order, or a dead letter that can be replayed"


@in_loop
async def test_tables_that_are_gone_are_waited_for_and_make_no_dead_letters(tmp_path: Path) -> None:
    source = ListSource(messages_of([held("o")]))
    async with opened(Planted(tmp_path / "o.db", lambda *_: True)) as store:
        store.error = StoreOutdated("the order store lacks a table: run `ticketrush migrate`")
        async with working(source, store) as worker:
            await until(lambda: store.hits > DEFECTS_MAX + 1)
            assert "migrate" in worker.away
            store.is_hit = lambda *_: False
            await until(lambda: source.finished == 1)
        assert (set(await rows_in(store)), await letters_in(store)) == ({"o"}, {})


def lock(path: Path) -> apsw.Connection:
    """Somebody else who writes to the file, and does not end."""
    connection = apsw.Connection(str(path))
    connection.execute("begin immediate")
    return connection


@in_loop
async def test_a_locked_store_is_waited_for_and_nothing_more_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ticketrush.orders.sqlite.BUSY_MS", 50)
    notices = story(50, random.Random(1))
    source = ListSource(messages_of(notices))
    async with opened(SqliteOrders(tmp_path / "o.db")) as store:
        other = lock(tmp_path / "o.db")
        async with working(source, store, batch_max=10) as worker:
            await until(lambda: worker.away != "")
            await asyncio.sleep(0.3)
            assert (source.read, source.finished, worker.stored, worker.dead) == (10, 0, 0, 0)

            other.execute("rollback")
            await until(lambda: source.finished == len(notices))
            assert worker.away == ""
        assert (await rows_in(store), await letters_in(store)) == (naive_rows(notices), {})
        other.close()


@in_loop
async def test_a_log_that_is_away_is_waited_for(tmp_path: Path) -> None:
    source = ListSource(messages_of([held("o")]))
    source.is_away = True
    async with opened(SqliteOrders(tmp_path / "o.db")) as store, working(source, store) as worker:
        await until(lambda: worker.away == "the list is away")
        assert worker.lag is None
        source.is_away = False
        await until(lambda: source.finished == 1 and worker.lag == 0)
        assert worker.away == ""


@pytest.mark.parametrize("what", ["store", "log", "defect"])
@in_loop
async def test_a_stop_does_not_wait_for_what_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr("ticketrush.orders.sqlite.BUSY_MS", 50)
    monkeypatch.setattr(worker_module, "RETRY_S", WITHIN_S / 2)
    source = ListSource(messages_of([held("o")]))
    async with opened(Planted(tmp_path / "o.db", lambda *_: what == "defect")) as store:
        other = lock(tmp_path / "o.db") if what == "store" else None
        source.is_away = what == "log"
        async with working(source, store) as worker:
            await until(lambda: worker.away != "")
            began_s = time.monotonic()
        assert time.monotonic() - began_s < WITHIN_S / 4
        if other is not None:
            other.close()
        store.is_hit, source.is_away = lambda *_: False, False
        monkeypatch.undo()
        await source.close()
        await work_off(source, store)
        order = await store.order("o")
        assert (order is not None and order.state is OrderState.HELD) or "list/0" in await letters_in(store)
