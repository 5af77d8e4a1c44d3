"""Torn, altered and foreign journals: a clear error and nothing written, or a whole beginning; never half believed."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import apsw
import pytest

from tests.faults.damage import BATCHES, Made, crash, flip, foreign, make, sql, start
from tests.faults.disk import small_disk
from tests.faults.nursery import Child
from tests.faults.starts import fingerprint, refused_start
from ticketrush.errors import JournalCorrupt, JournalError, JournalForeign, JournalLocked
from ticketrush.ledger.embedded import EmbeddedLedger

TRIES: Final = 40
SEED: Final = 20_261_122


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("sound") / "tickets.db")


@pytest.fixture(scope="module")
def with_snapshot(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("snapshot") / "tickets.db", snapshot=True)


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A third of it in the file, the rest in the WAL."""
    return crash(tmp_path_factory.mktemp("crashed") / "tickets.db", tidied=BATCHES // 3)


def everything(made: Made) -> int:
    return len(made.events)


@pytest.mark.parametrize("made", ["sound", "with_snapshot", "crashed"])
def test_a_sound_journal_is_believed_whole(made: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The yardstick: else the tests below could pass by refusing everything."""
    journal: Made = request.getfixturevalue(made)
    assert start(journal.copy(tmp_path / "copy")) == everything(journal)


# --- foreign files ----------------------------------------------------------------------------


def _sqlite(path: Path, *statements: str) -> None:
    connection = apsw.Connection(str(path))
    for statement in statements:
        connection.execute(statement)
    connection.close()


FOREIGN: Final[dict[str, Callable[[Path], object]]] = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("These are my notes. " * 100),
    "zeros": lambda path: path.write_bytes(bytes(65_536)),
    "other-database": lambda path: _sqlite(path, "create table accounts (id, balance)"),
    "newer-version": lambda path: _sqlite(path, "pragma application_id=0x54525348", "pragma user_version=2"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_refused_and_stays_as_it_is(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "tickets.db"
    FOREIGN[kind](path)
    assert isinstance(start(foreign(path)), JournalForeign)


def test_our_name_on_an_empty_database_is_not_enough(tmp_path: Path) -> None:
    path = tmp_path / "tickets.db"
    _sqlite(path, "pragma application_id=0x54525348", "pragma user_version=1", "create table other (x)")
    assert isinstance(start(foreign(path)), JournalCorrupt)


def test_a_newer_version_that_is_still_in_the_wal_is_refused(sound: Made, tmp_path: Path) -> None:
    made = sound.copy(tmp_path / "copy")
    connection = apsw.Connection(str(made.path))
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.pragma("user_version", 2)
    connection.close()
    assert isinstance(start(made), JournalForeign)


def test_a_folder_in_place_of_the_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tickets.db"
    path.mkdir()
    assert isinstance(start(foreign(path)), JournalError)
    assert list(path.iterdir()) == []


# --- torn and altered files -------------------------------------------------------------------


@pytest.mark.parametrize("made", ["sound", "with_snapshot"])
def test_a_journal_cut_short_is_refused(made: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    journal: Made = request.getfixturevalue(made)
    dice = random.Random(SEED)
    size = journal.path.stat().st_size
    cuts = [1, 15, 16, 99, 100, 4_095, 4_096, size - 4_096, size - 1, *(dice.randrange(1, size) for _ in range(TRIES))]
    for number, cut in enumerate(cuts):
        copy = journal.copy(tmp_path / str(number))
        os.truncate(copy.path, cut)
        error = start(copy)
        assert isinstance(error, JournalCorrupt), f"cut at {cut} of {size}: {error}"


@pytest.mark.parametrize("made", ["sound", "with_snapshot"])
def test_a_bit_flipped_anywhere_is_never_half_believed(
    made: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A bit that nobody reads may flip; all others must be noticed."""
    journal: Made = request.getfixturevalue(made)
    dice = random.Random(SEED)
    for number in range(2 * TRIES):
        copy = journal.copy(tmp_path / str(number))
        copy.path.write_bytes(flip(copy.path.read_bytes(), dice))
        told = start(copy)
        assert isinstance(told, JournalError) or told == everything(journal), f"it believes {told} events"
        shutil.rmtree(copy.path.parent)


@pytest.mark.parametrize("column", ["events", "chain", "count", "first_seq"])
def test_an_altered_entry_is_refused(column: str, sound: Made, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    copy = sound.copy(tmp_path / "copy")
    with sql(copy.path) as connection:
        rows = list(connection.execute("select rowid, events from batches"))
    for number in range(TRIES // 2):
        copy = sound.copy(tmp_path / str(number))
        row, events = dice.choice(rows)
        with sql(copy.path) as connection:
            value = flip(events, dice) if column == "events" else None
            if column == "first_seq":
                connection.execute("update batches set first_seq = first_seq + 1 where first_seq = ?", (row,))
            else:
                by = 1 if column == "count" else dice.randrange(1, 2**31)
                connection.execute(
                    f"update batches set {column} = coalesce(?, {column} + {by}) where first_seq = ?", (value, row)
                )
        assert isinstance(start(copy), JournalCorrupt), f"row {row}"


def _rows(connection: apsw.Connection) -> list[int]:
    return [row for (row,) in connection.execute("select first_seq from batches order by first_seq")]


def test_a_missing_entry_is_refused(sound: Made, tmp_path: Path) -> None:
    for number, which in enumerate((0, 1, BATCHES // 2, -2)):
        copy = sound.copy(tmp_path / str(number))
        with sql(copy.path) as connection:
            connection.execute("delete from batches where first_seq = ?", (_rows(connection)[which],))
        assert isinstance(start(copy), JournalCorrupt)


def test_a_missing_end_is_noticed_where_a_snapshot_remembers_it(with_snapshot: Made, tmp_path: Path) -> None:
    copy = with_snapshot.copy(tmp_path / "copy")
    with sql(copy.path) as connection:
        connection.execute("delete from batches where first_seq = ?", (_rows(connection)[-1],))
    assert isinstance(start(copy), JournalCorrupt)


@pytest.mark.parametrize("what", ["events", "events, count, chain"])
def test_swapped_entries_are_refused(what: str, sound: Made, tmp_path: Path) -> None:
    copy = sound.copy(tmp_path / "copy")
    with sql(copy.path) as connection:
        first, second = _rows(connection)[10:12]
        both = [
            next(connection.execute(f"select {what} from batches where first_seq = ?", (n,))) for n in (first, second)
        ]
        assignments = ", ".join(f"{name} = ?" for name in what.split(", "))
        for row, values in ((first, both[1]), (second, both[0])):
            connection.execute(f"update batches set {assignments} where first_seq = ?", (*values, row))
    assert isinstance(start(copy), JournalCorrupt)


# --- snapshots --------------------------------------------------------------------------------


def test_the_snapshot_of_another_journal_is_refused(sound: Made, tmp_path: Path) -> None:
    """Even if it is of the same event number."""
    other = make(tmp_path / "other" / "tickets.db", count=BATCHES // 2, snapshot=True)
    with sql(other.path) as connection:
        seq, chain, state = next(connection.execute("select seq, chain, state from snapshots"))
    copy = sound.copy(tmp_path / "copy")
    with sql(copy.path) as connection:
        connection.execute("insert into snapshots values (?, ?, ?)", (seq, chain ^ 1, state))
    assert isinstance(start(copy), JournalCorrupt)


def test_an_altered_snapshot_is_refused(with_snapshot: Made, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    with sql(with_snapshot.copy(tmp_path / "copy").path) as connection:
        state = next(connection.execute("select state from snapshots"))[0]
    for number in range(TRIES):
        copy = with_snapshot.copy(tmp_path / str(number))
        with sql(copy.path) as connection:
            connection.execute("update snapshots set state = ?", (flip(state, dice),))
        assert isinstance(start(copy), JournalCorrupt)


def test_a_journal_without_its_snapshot_is_replayed_whole(with_snapshot: Made, tmp_path: Path) -> None:
    copy = with_snapshot.copy(tmp_path / "copy")
    with sql(copy.path) as connection:
        connection.execute("delete from snapshots")
    assert start(copy) == everything(with_snapshot)


# --- the WAL, after a crash -------------------------------------------------------------------


def test_a_wal_cut_short_leaves_a_whole_beginning(crashed: Made, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    size = crashed.wal.stat().st_size
    believed = set()
    for number, cut in enumerate([0, 1, 31, 32, 33, size - 1, *(dice.randrange(size) for _ in range(TRIES))]):
        copy = crashed.copy(tmp_path / str(number))
        os.truncate(copy.wal, cut)
        told = start(copy)
        assert isinstance(told, int), told
        believed.add(told)
    assert len(believed) > TRIES // 2
    assert max(believed) < everything(crashed)


def test_a_bit_flipped_in_the_wal_leaves_a_whole_beginning(crashed: Made, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    for number in range(TRIES):
        copy = crashed.copy(tmp_path / str(number))
        copy.wal.write_bytes(flip(copy.wal.read_bytes(), dice))
        assert isinstance(start(copy), int)


def test_a_lost_wal_leaves_what_was_tidied_up(crashed: Made, tmp_path: Path) -> None:
    copy = crashed.copy(tmp_path / "copy")
    copy.wal.unlink()
    told = start(copy)
    assert isinstance(told, int)
    assert 0 < told < everything(crashed)


def test_a_wal_beside_the_wrong_file_is_never_half_believed(crashed: Made, sound: Made, tmp_path: Path) -> None:
    """A backup of one file without the other."""
    short = make(tmp_path / "short" / "tickets.db", count=5)
    for number, wrong in enumerate((sound, short)):
        copy = crashed.copy(tmp_path / str(number))
        shutil.copyfile(wrong.path, copy.path)
        told = start(Made(copy.path, crashed.events, crashed.state))
        assert isinstance(told, JournalCorrupt | int), told


def test_rubbish_in_place_of_the_shared_memory_file_does_not_matter(crashed: Made, tmp_path: Path) -> None:
    copy = crashed.copy(tmp_path / "copy")
    copy.path.with_name("tickets.db-shm").write_bytes(random.Random(SEED).randbytes(32_768))
    assert start(copy) == everything(crashed)


# --- places and owners ------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "newer-version"])
def test_the_server_refuses_a_foreign_file_in_one_line(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "tickets.db"
    FOREIGN[kind](path)
    before = fingerprint(path)
    refused_start(path)
    assert fingerprint(path) == before


def test_the_server_refuses_a_torn_journal_in_one_line(sound: Made, tmp_path: Path) -> None:
    copy = sound.copy(tmp_path / "copy")
    os.truncate(copy.path, 5_000)
    before = fingerprint(copy.path)
    assert "backup" in refused_start(copy.path)
    assert fingerprint(copy.path) == before


def test_the_server_refuses_a_folder_that_is_not_there(tmp_path: Path) -> None:
    refused_start(tmp_path / "nowhere" / "tickets.db")
    assert list(tmp_path.iterdir()) == []


def test_the_server_refuses_a_folder_that_cannot_be_written(sound: Made, tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        copy = sound.copy(disk.folder / "tickets")
        disk.read_only()
        before = fingerprint(*copy.path.parent.iterdir())
        assert "damaged" not in refused_start(copy.path)
        refused_start(copy.path.with_name("new.db"))
        assert fingerprint(*copy.path.parent.iterdir()) == before


def test_a_second_server_is_told_who_owns_the_journal(tmp_path: Path) -> None:
    async def story() -> None:
        child = Child(tmp_path)
        try:
            await child.serving()
            said = await asyncio.to_thread(refused_start, child.ledger)
            assert str(child.pid) in said, said
            with pytest.raises(JournalLocked, match=str(child.pid)):
                await EmbeddedLedger(child.ledger).start()
            assert child.process.exitcode is None
        finally:
            assert child.kill() == -signal.SIGKILL
        again = Child(tmp_path)
        try:
            await again.serving()
            assert again.stop() == 0
        finally:
            again.kill()

    asyncio.run(story())
