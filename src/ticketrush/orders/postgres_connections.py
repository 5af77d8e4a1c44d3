"""A few connections to a PostgreSQL server, each lent to one piece of work for a bounded time.

A connection on which something is in doubt is thrown away, at once: nothing waits for a server that does
not answer, neither to end a statement nor to say good-bye. (asyncpg's own pool does.)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, TypeAlias

import asyncpg

from ticketrush.orders.errors import NoticeRefused, StoreOutdated, StoreUnavailable
from ticketrush.orders.tables import statements
from ticketrush.settings import without_password

Connection: TypeAlias = asyncpg.Connection

CONNECTIONS_MAX: Final = 4
CONNECT_S: Final = 5.0

_EPOCH_MS: Final = 946_684_800_000
"""PostgreSQL counts microseconds from the year 2000."""

_DURABLE: Final = statements("postgres")["durable"]

_WATCH: Final = statements("postgres")["watch"]

_LIMIT: Final = statements("postgres")["limit"]


class Connections:
    """At most so many connections to the server at `url`, made when they are wanted."""

    def __init__(self, url: str, *, most: int = CONNECTIONS_MAX) -> None:
        self._url, self.name = url, without_password(url)
        self._slots = asyncio.Semaphore(most)
        self._idle: list[tuple[Connection, float]] = []
        """Those that nobody has, each with the limit of its statements."""
        self._is_open = False

    def open(self) -> None:
        """Let them be asked for."""
        self._is_open = True

    async def close(self) -> None:
        """End them all; nothing is waited for."""
        self._is_open = False
        while self._idle:
            self._idle.pop()[0].terminate()
        await asyncio.sleep(0)  # so that the sockets are closed before a loop that ends now

    @asynccontextmanager
    async def one(self, within_s: float) -> AsyncIterator[Connection]:
        """A connection for what is done inside, which is broken off after `within_s`.

        Raises:
            StoreUnavailable: the server cannot be reached, or an error inside says that it does not do what it
                is asked to now.
            StoreOutdated: an error inside says that the tables are not ours.
        """
        connection: Connection | None = None
        try:
            async with asyncio.timeout(within_s), self._slots:
                connection, limit_s = self._take() or (await self._connect(within_s), within_s)
                if limit_s != within_s:
                    await connection.execute(_LIMIT, _limit(within_s))
                try:
                    yield connection
                except NoticeRefused:
                    self._give_back(connection, within_s)
                    connection = None
                    raise
                self._give_back(connection, within_s)
                connection = None
        except asyncpg.UndefinedTableError as error:
            raise StoreOutdated(
                f"the order store {self.name} lacks a table ({error}): run `ticketrush migrate --orders {self.name}`"
            ) from error
        except asyncpg.DuplicateTableError as error:
            raise StoreOutdated(f"{self.name} has tables of something else ({error}); name another database") from error
        except ConnectionRefusedError as error:
            raise StoreUnavailable(
                f"the order store {self.name} does not answer (connection refused): start it, or name another with "
                "--orders"
            ) from error
        except TimeoutError:
            raise StoreUnavailable(f"the order store {self.name} gave no answer within {within_s:g} s") from None
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            raise StoreUnavailable(f"the order store {self.name}: {error or type(error).__name__}") from error
        finally:
            if connection is not None:
                connection.terminate()

    def _take(self) -> tuple[Connection, float] | None:
        if not self._is_open:
            raise StoreUnavailable(f"the order store {self.name} is not open")
        while self._idle:
            connection, limit_s = self._idle.pop()
            if not connection.is_closed():
                return connection, limit_s
        return None

    def _give_back(self, connection: Connection, limit_s: float) -> None:
        if self._is_open:
            self._idle.append((connection, limit_s))
        else:
            connection.terminate()

    async def _connect(self, within_s: float) -> Connection:
        """A new connection. The server ends by itself what was broken off here: soon if it can watch."""
        limit = _limit(within_s)
        connection = await asyncpg.connect(
            self._url,
            timeout=CONNECT_S,
            server_settings={
                "application_name": "ticketrush",
                "statement_timeout": limit,
                "idle_in_transaction_session_timeout": limit,
                "timezone": "UTC",
            },
        )
        try:
            await connection.set_type_codec(
                "timestamptz", schema="pg_catalog", format="tuple", encoder=_encode_time, decoder=_decode_time
            )
            await connection.execute(_DURABLE)
            with suppress(asyncpg.UndefinedObjectError, asyncpg.InvalidParameterValueError):
                await connection.execute(_WATCH)  # servers before PostgreSQL 14 cannot, nor can every system
        except BaseException:
            connection.terminate()
            raise
        return connection


def _limit(within_s: float) -> str:
    return str(int(within_s * 1_000))


def _encode_time(at_ms: int) -> tuple[int]:
    return ((at_ms - _EPOCH_MS) * 1_000,)


def _decode_time(value: tuple[int]) -> int:
    return value[0] // 1_000 + _EPOCH_MS


Record: TypeAlias = Any
"""A row: asyncpg's record, which unpacks like a tuple."""
