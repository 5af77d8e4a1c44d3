"""Real Valkey servers for tests: one for all tests of a run, and others that a test may kill.

``pytest_plugins = ["tests.valkey"]`` in a conftest, or an import of the fixtures, makes them known.
A machine without a server fails (`NotInstalled` says what to install); nothing is skipped.
"""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from ticketrush.cluster.server import running
from ticketrush.cluster.valkey import Persistence, Valkey

DATABASES: Final = 4_096
"""More than there are tests that ask for one."""

_numbers: Final = itertools.count()


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """A server for all tests, which keeps nothing on the disk; a test must not kill it."""
    with own_valkey("none") as server:
        yield server


@pytest.fixture
def valkey_url(valkey: Valkey) -> str:
    """The URL of a database that nobody has used before."""
    return fresh_database(valkey)


def fresh_database(server: Valkey) -> str:
    """The URL of a database of `server` that nobody has used before."""
    number = next(_numbers)
    assert number < DATABASES, "more databases than the server was started with; raise DATABASES"
    return f"{server.url.rpartition('/')[0]}/{number}"


@contextlib.contextmanager
def own_valkey(persistence: Persistence = "memory") -> Iterator[Valkey]:
    """A server in a temporary folder, to be killed and restarted; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ticketrush-valkey-") as folder:
        more = ("--databases", str(DATABASES))
        with running(Valkey(Path(folder), persistence=persistence, more=more)) as server:
            yield server
