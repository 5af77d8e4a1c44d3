"""The journal as an event log: read from where the store says, whatever becomes of the file meanwhile."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, cast

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.in_loop import in_loop
from tests.orders import claim, held, rows_in
from tests.property.profiles import PROFILE
from ticketrush import events as ev
from ticketrush.events import AnyEvent
from ticketrush.ledger.journal import Journal
from ticketrush.model import Item, Sale
from ticketrush.orders.errors import SourceUnavailable
from ticketrush.orders.journal_source import JournalSource
from ticketrush.orders.model import Notice
from ticketrush.orders.notices import Prices, notice_of
from ticketrush.orders.protocol import Message, OrderStore
from ticketrush.orders.sqlite import SqliteOrders
from ticketrush.orders.worker import OrderWorker

WITHIN_S: Final = 20.0
PRICE_MINOR: Final = 55_300


def created(sale: str, price_minor: int = PRICE_MINOR) -> ev.SaleCreated:
    return ev.SaleCreated(500, Sale(sale, (Item("second", 1_000, price_minor=price_minor),)))


def made(id: str, sale: str = "g1", buyer: str = "ann", quantity: int = 1) -> ev.Held:
    return ev.Held(1_000, id, sale, "second", buyer, quantity, "", 2_000)


def history(orders: int, *, id: str = "o") -> list[AnyEvent]:
    """A sale, its opening, and orders of which every third is paid and every fifth cancelled."""
    told: list[AnyEvent] = [created("g1"), ev.SaleScheduled(600, "g1", 1, None)]
    for number in range(orders):
        told.append(made(f"{id}{number}"))
        if number % 3 == 0:
            told.append(ev.Paid(1_100, f"{id}{number}", f"p-{number}"))
        elif number % 5 == 0:
            told.append(ev.Cancelled(1_200, f"{id}{number}"))
    return told


def notices_in(events: Sequence[AnyEvent]) -> list[Notice]:
    prices = Prices()
    return [notice for event in events if (notice := notice_of(event, prices)) is not None]


@contextmanager
def owned(path: Path) -> Iterator[Journal]:
    """The journal as the one process has it that writes it."""
    journal = Journal(path)
    try:
        _, batches = journal.load()
        list(batches)
        yield journal
    finally:
        journal.close()


def write(path: Path, *batches: Sequence[AnyEvent]) -> None:
    """Append to a journal, which is made if there is none."""
    with owned(path) as journal:
        for batch in batches:
            journal.append(batch)


@asynccontextmanager
async def stored(folder: Path) -> AsyncIterator[OrderStore]:
    store = SqliteOrders(folder / "orders.db")
    await store.migrate()
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def reading(path: Path, store: OrderStore) -> AsyncIterator[JournalSource]:
    source = JournalSource(path, store)
    await source.open()
    try:
        yield source
    finally:
        await source.close()


async def rest_of(source: JournalSource, most: int = 100) -> list[Message]:
    """All that it has to say now."""
    found: list[Message] = []
    while page := await source.next(most, 0):
        found += page
    return found


async def said_by(source: JournalSource, most: int = 100) -> list[Notice]:
    return [message.notice for message in await rest_of(source, most) if message.notice is not None]


async def work(source: JournalSource, store: OrderStore, batch_max: int = 100) -> OrderWorker:
    """A worker that has written all that the journal says."""
    worker = OrderWorker(source, store, batch_max=batch_max)
    running = asyncio.create_task(worker.run())
    until_s = time.monotonic() + WITHIN_S
    while await source.lag() or await store.position(source.name) != _place(source):
        assert time.monotonic() < until_s
        await asyncio.sleep(0.005)
    worker.stop()
    await running
    return worker


def _place(source: JournalSource) -> str | None:
    at = source.position()
    return at[1] if at is not None else None


# --- what it says -----------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 2, 3, 5, 1_000])
@in_loop
async def test_all_is_told_in_order_also_when_a_batch_is_cut(tmp_path: Path, most: int) -> None:
    events = history(20)
    write(tmp_path / "t.db", events[:7], events[7:8], events[8:])
    async with stored(tmp_path) as store, reading(tmp_path / "t.db", store) as source:
        assert await source.lag() == len(events)
        first = await source.next(most, 1)
        assert 1 <= len(first) <= most

        messages = [*first, *await rest_of(source, most)]

        assert [message.notice for message in messages] == notices_in(events)
        assert len({message.where for message in messages}) == len(messages)
        assert await source.lag() > 0, "nothing of it is stored yet"
        await source.done()
        assert await source.lag() == 0


@in_loop
async def test_what_is_written_later_is_told_and_an_empty_journal_waited_for(tmp_path: Path) -> None:
    events = history(3)
    async with stored(tmp_path) as store:
        with owned(tmp_path / "t.db") as journal:
            async with reading(tmp_path / "t.db", store) as source:
                assert await source.next(10, 0.05) == []
                assert source.position() is None
                waiting = asyncio.create_task(source.next(10, WITHIN_S))
                await asyncio.sleep(0.05)
                journal.append(events)
                assert [message.notice for message in await waiting] == notices_in(events)


@in_loop
async def test_an_item_whose_price_nobody_knows_is_told_as_no_notice(tmp_path: Path) -> None:
    write(tmp_path / "t.db", [created("g1"), made("a", sale="never-created"), made("b")])
    async with stored(tmp_path) as store, reading(tmp_path / "t.db", store) as source:
        bad, good = await rest_of(source)

    assert (bad.notice, good.notice) == (None, held("b", claim()))
    assert bad.where == f"{source.name}/2"
    assert "KeyError" in bad.error
    assert b"never-created" in bad.payload


# --- from where -------------------------------------------------------------------------------


@in_loop
async def test_reading_begins_where_the_store_says_and_prices_from_before_are_known(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    write(path, [created("g1"), created("g2", 70)], history(3)[2:])
    async with stored(tmp_path) as store:
        async with reading(path, store) as source:
            await work(source, store)
        write(path, [made("late-1", "g2", quantity=2)], [made("late-2")])
        async with reading(path, store) as source:
            assert await source.lag() == 2
            late = await said_by(source)
            assert [(each.order, each.claim and each.claim.amount_minor) for each in late] == [
                ("late-1", 140),
                ("late-2", PRICE_MINOR),
            ]


@in_loop
async def test_what_was_not_written_is_told_again(tmp_path: Path) -> None:
    events = history(9)
    write(tmp_path / "t.db", events)
    async with stored(tmp_path) as store:
        async with reading(tmp_path / "t.db", store) as source:
            first = [each.notice for each in await source.next(4, 1) if each.notice is not None]
            await store.put(first, position=source.position())
            await source.next(4, 1)  # and the worker is killed
        async with reading(tmp_path / "t.db", store) as source:
            assert first + await said_by(source) == notices_in(events), "also from the middle of a batch"


def put_in_place(path: Path, other: Path, how: str) -> None:
    """Another journal takes the place of the one at `path`."""
    if how == "moved":
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        other.rename(path)
        return
    source, target = apsw.Connection(str(other)), apsw.Connection(str(path))
    with target.backup("main", source, "main") as copying:
        copying.step()
    source.close()
    target.close()


def fork(folder: Path) -> tuple[Path, Path, list[AnyEvent]]:
    """A journal, and a backup of it which went on in another way and is as long; what the second one says."""
    path, other = folder / "t.db", folder / "backup.db"
    before = history(6)
    write(path, before)
    shutil.copy(path, other)
    write(path, history(9, id="lost")[2:])
    after = history(9, id="new")[2:]
    write(other, after)
    return path, other, before + after


@pytest.mark.parametrize("how", ["moved", "restored"])
@pytest.mark.parametrize("is_running", [False, True])
@in_loop
async def test_a_backup_that_was_put_back_is_read_from_its_start(tmp_path: Path, how: str, is_running: bool) -> None:
    path, other, events = fork(tmp_path)
    async with stored(tmp_path) as store:
        async with reading(path, store) as source:
            await work(source, store)
            if is_running:
                put_in_place(path, other, how)
                await work(source, store)
        if not is_running:
            put_in_place(path, other, how)
            async with reading(path, store) as source:
                await work(source, store)

        rows = await rows_in(store)
        assert set(rows) >= {notice.order for notice in notices_in(events)}
        assert {id for id in rows if id.startswith("lost")}, "what was written once stays"
        assert await store.dead_letters(after=0, limit=10) == []
        async with reading(path, store) as source:
            assert await source.lag() == 0, "from here on it is the journal"


@in_loop
async def test_a_journal_that_lost_its_end_goes_on_without_it(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    write(path, history(3))
    shutil.copy(path, tmp_path / "old.db")
    async with stored(tmp_path) as store, reading(path, store) as source:
        write(path, [made("lost-1")], [made("lost-2")])
        await work(source, store)
        put_in_place(path, tmp_path / "old.db", "restored")
        assert await source.lag() == len(history(3)), "never less than nothing"

        write(path, [made("new")])
        await work(source, store)

        assert "new" in await rows_in(store)


@in_loop
async def test_dead_letters_of_two_journals_do_not_hide_each_other(tmp_path: Path) -> None:
    path, other = tmp_path / "t.db", tmp_path / "other.db"
    for file, id in ((path, "a"), (other, "b")):
        write(file, [created("g1"), ev.Cancelled(1_000, id), made(id), ev.Paid(1_100, id, "p-1")])
    async with stored(tmp_path) as store, reading(path, store) as source:
        await work(source, store)
        first = source.name
        put_in_place(path, other, "moved")
        await work(source, store)

        letters = await store.dead_letters(after=0, limit=10)
        places = [letter.where.rpartition("/")[0] for letter in letters]
        assert places == [f"{first}/4", f"{source.name}/4"]


@in_loop
async def test_two_journals_into_one_store_do_not_read_each_other_again(tmp_path: Path) -> None:
    files = tmp_path / "a.db", tmp_path / "b.db"
    for file, count in zip(files, (3, 5), strict=True):
        write(file, [*history(count, id=file.stem), made(f"{file.stem}-last")])
    async with stored(tmp_path) as store:
        for _ in range(2):
            for file in files:
                async with reading(file, store) as source:
                    await work(source, store)
        for file in files:
            async with reading(file, store) as source:
                assert await source.lag() == 0


@in_loop
async def test_a_journal_that_is_not_there_is_away(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    async with stored(tmp_path) as store:
        source = JournalSource(path, store)
        with pytest.raises(
            SourceUnavailable, match=r"waiting for `ticketrush serve --ledger sqlite:///.*t.db` to make it"
        ):
            await source.open()
        write(path, history(2))
        await source.open()
        path.rename(tmp_path / "aside.db")
        for ask in (lambda: source.next(10, 0), source.lag):
            with pytest.raises(SourceUnavailable, match="No such file"):
                await ask()
        (tmp_path / "aside.db").rename(path)
        assert await said_by(source) == notices_in(history(2))
        await source.close()


# --- in any pieces ----------------------------------------------------------------------------


class Positions:
    """As much of a store as a journal is read with."""

    def __init__(self) -> None:
        self.place: str | None = None

    async def position(self, _: str) -> str | None:
        return self.place


@settings(PROFILE)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 6), st.integers(1, 9), st.sampled_from(["goes on", "stops", "is killed"])),
        max_size=12,
    )
)
def test_however_it_is_written_and_read_all_is_told_once_in_order(steps: list[tuple[int, int, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_read_in_pieces(Path(folder), steps))


async def _read_in_pieces(folder: Path, steps: list[tuple[int, int, str]]) -> None:
    """So many events are written in one batch, so many read at most, and then the reader goes on or begins anew."""
    path, events, positions = folder / "t.db", history(20), Positions()
    store = cast("OrderStore", positions)
    kept: list[Notice] = []
    written = 1
    write(path, events[:1])
    source = JournalSource(path, store)
    for count, most, then in [*steps, (len(events), 1, "stops")]:
        if batch := events[written : written + count]:
            write(path, batch)
        written += len(batch)
        told = [each.notice for each in await source.next(most, 0) if each.notice is not None]
        if then != "is killed":  # before it could keep what it was told
            kept += told
            positions.place = _place(source) or positions.place
        if then != "goes on":
            await source.close()
            source = JournalSource(path, store)
            await source.open()
    kept += await said_by(source)
    await source.close()
    assert kept == notices_in(events)
