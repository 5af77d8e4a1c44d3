"""Databases on a PostgreSQL server: made for one strategy, and dropped."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final
from urllib.parse import urlsplit

import asyncpg

from ticketrush.crowd.errors import NoAnswer
from ticketrush.settings import without_password
from ticketrush.strategies.errors import StrategyError
from ticketrush.strategies.statements import statements

CONNECT_S: Final = 10.0
COMMAND_S: Final = 60.0
"""How long making or dropping a database may take."""

_SQL: Final = statements("databases.sql")


async def create(server: str, name: str) -> None:
    """Make the database `name` on the server of the URL `server`.

    Raises:
        NoAnswer: there is no such server.
        StrategyError: it does not let us.
    """
    async with connected(server) as connection:
        await connection.execute(f'CREATE DATABASE "{name}"')


async def drop(server: str, name: str) -> None:
    """Drop it, whoever uses it. Raises like `create`."""
    async with connected(server) as connection:
        await connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def url_of(server: str, name: str) -> str:
    """The URL of the database `name` on the server of the URL `server`."""
    return urlsplit(server)._replace(path=f"/{name}").geturl()


async def transactions(url: str) -> int:
    """How many transactions the database at `url` has committed since it was made, by its own count.

    Raises:
        StrategyError: somebody is still connected to it.
    """
    async with connected(url) as connection:
        async with asyncio.timeout(CONNECT_S):
            while await connection.fetchval(_SQL["others"]):  # noqa: ASYNC110 - another process's doing
                await asyncio.sleep(0.02)
        return int(await connection.fetchval(_SQL["transactions"]))


@contextlib.asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection for as long as the block lasts. Raises like `create`."""
    where = without_password(url)
    try:
        connection = await asyncpg.connect(url, timeout=CONNECT_S, command_timeout=COMMAND_S)
    except (OSError, TimeoutError) as error:
        why = str(error) or "no answer in time"
        raise NoAnswer(f"PostgreSQL at {where} does not answer: {why}; start it, or leave out --postgres") from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
        raise StrategyError(f"PostgreSQL at {where} does not let us in: {error}") from error
    try:
        yield connection
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise StrategyError(f"PostgreSQL at {where}: {str(error) or 'no answer in time'}") from error
    finally:
        await connection.close(timeout=CONNECT_S)
