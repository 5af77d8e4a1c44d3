"""Real PostgreSQL servers for tests: one for all tests of a run, and others that a test may kill.

``pytest_plugins = ["tests.postgres"]`` in a conftest, or an import of the fixtures, makes them known.
A machine without a server fails (`NotInstalled` says what to install); nothing is skipped.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from tests.in_loop import finish
from ticketrush.cluster.postgres import Postgres
from ticketrush.cluster.server import running

_numbers: Final = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A server for all tests; a test must not kill it."""
    with own_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> str:
    """The URL of an empty database that nobody has used before."""
    return fresh_database(postgres)


@pytest.fixture
def new_postgres() -> Iterator[Callable[[], Postgres]]:
    """Starts servers that the test may kill and restart; they are gone after it."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(own_postgres())


def fresh_database(server: Postgres) -> str:
    """The URL of an empty database of `server` that nobody has used before."""
    name = f"test_{next(_numbers)}"
    execute(server.url, f"CREATE DATABASE {name}")
    return f"{server.url.rpartition('/')[0]}/{name}"


def execute(url: str, *commands: str) -> None:
    """Run SQL commands, each a transaction of its own, on a connection of their own."""
    finish(_execute(url, commands))


async def _execute(url: str, commands: tuple[str, ...]) -> None:
    connection = await asyncpg.connect(url)
    try:
        for command in commands:
            await connection.execute(command)
    finally:
        await connection.close()


@contextlib.contextmanager
def own_postgres() -> Iterator[Postgres]:
    """A server in a temporary folder, to be killed and restarted; both are gone afterwards."""
    with (
        tempfile.TemporaryDirectory(prefix="ticketrush-postgres-") as folder,
        running(Postgres(Path(folder))) as server,
    ):
        yield server
