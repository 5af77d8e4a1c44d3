"""The servers that are compared: each strategy in a process of its own, started fresh and asked for its books."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import msgspec

from ticketrush import processes, stop
from ticketrush.cluster.errors import ClusterError, NotInstalled
from ticketrush.cluster.nodes import Node, ended
from ticketrush.cluster.postgres import Postgres
from ticketrush.cluster.server import running
from ticketrush.crowd.errors import CrowdError
from ticketrush.strategies.errors import StrategyError
from ticketrush.strategies.options import Database, StrategyOptions
from ticketrush.strategies.product import RESERVE_FIRST, Product, product_node
from ticketrush.strategies.shop import OrderFirst, PayFirst
from ticketrush.strategies.store import DATABASE_AT, Books


@dataclass(frozen=True, slots=True)
class Entry:
    """A strategy that is to be measured, and what it keeps its orders in."""

    strategy: str
    database: Database

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.strategy}, {self.database}"


def entries(options: StrategyOptions) -> list[Entry]:
    """What is measured, in order: each strategy with each database."""
    names = (OrderFirst.name, PayFirst.name, RESERVE_FIRST)
    return [Entry(name, database) for database in options.databases for name in names]


class Rival(Protocol):
    """A running server that sells by one strategy."""

    url: str

    def books(self) -> Books:
        """Stop it, and read what it has sold.

        Raises:
            StrategyError: it did not end as it should; has its last words.
        """
        ...


class _Stopped(msgspec.Struct):
    event: Literal["stopped"]
    paid: int
    transactions: int


class _Small:
    """Order-first or pay-first: says at its end what is in its books."""

    def __init__(self, node: Node) -> None:
        self.url = node.url
        self._node = node

    def books(self) -> Books:
        """See `Rival.books`."""
        code = self._node.stop()
        last = self._node.child.stdout.read_bytes().splitlines()[-1]
        try:
            said = msgspec.json.decode(last, type=_Stopped)
        except msgspec.MsgspecError:
            how = f"{self._node.name} {ended(code or 0)}, and said nothing of its books"
            raise StrategyError(f"{how}:\n{self._node.child.words()}") from None
        return Books(said.paid, said.transactions)


@contextlib.contextmanager
def rival(entry: Entry, options: StrategyOptions, folder: Path, postgres: str) -> Iterator[Rival]:
    """The server of `entry`, ready to sell; `postgres` is the URL of a server for those that need one.

    Raises:
        StrategyError: it does not start, or ends while it sells; has its last words.
        NoAnswer: there is no such PostgreSQL.
    """
    with contextlib.ExitStack() as stack:
        at = ""
        if entry.database == "postgres":
            at = stack.enter_context(_database(postgres, entry.strategy))
        if entry.strategy == RESERVE_FIRST:
            node = product_node(folder, f"{RESERVE_FIRST}-{entry.database}", orders=at)
            stack.enter_context(_serving(node))
            yield stack.enter_context(contextlib.closing(Product(node, options.tickets, options.hold, orders=at)))
        else:
            node = _small_node(entry, options, folder, at)
            stack.enter_context(_serving(node))
            yield _Small(node)


def _small_node(entry: Entry, options: StrategyOptions, folder: Path, at: str) -> Node:
    name = f"{entry.strategy}-{entry.database}"
    command = (sys.executable, "-m", "ticketrush.strategies", entry.strategy, entry.database)
    env = processes.plain_environment() | {DATABASE_AT: at or str(folder / f"{name}.db")}
    return Node(name, folder, ["--tickets", str(options.tickets)], env, command=command)


@contextlib.contextmanager
def postgres_for(options: StrategyOptions, folder: Path) -> Iterator[str]:
    """The URL of the PostgreSQL of `options`: the one that is named, or one that is started; "" if none is needed.

    Raises:
        NotInstalled: one is to be started, and there is none.
        StrategyError: it does not start.
    """
    if "postgres" not in options.databases:
        yield ""
        return
    _need_asyncpg()
    if options.postgres is not None:
        yield options.postgres
        return
    try:
        with running(Postgres(folder)) as server:
            yield server.url
    except ClusterError as error:
        if isinstance(error, NotInstalled):
            raise
        raise StrategyError(str(error)) from error


@contextlib.contextmanager
def _serving(node: Node) -> Iterator[None]:
    """`node`, ready, for as long as the block lasts."""
    try:
        with stop.postponed():
            node.launch()
        try:
            node.wait_until_ready()
        except ClusterError as error:
            raise StrategyError(str(error)) from error
        try:
            yield
        except CrowdError as error:
            if node.is_running:
                raise
            how = f"{node.name} {node.how_it_ended()} while it was selling"
            raise StrategyError(f"{how}:\n{node.child.words()}") from error
    finally:
        with stop.postponed():
            node.stop()


@contextlib.contextmanager
def _database(server: str, strategy: str) -> Iterator[str]:
    """A new database of the PostgreSQL at `server`, by its URL; nothing but one strategy is counted in it."""
    from ticketrush.strategies import databases  # noqa: PLC0415 - needs an extra that is not always installed

    name = f"ticketrush_{strategy.replace('-', '_')}_{secrets.token_hex(4)}"
    asyncio.run(databases.create(server, name))
    try:
        yield databases.url_of(server, name)
    finally:
        with stop.postponed():
            asyncio.run(databases.drop(server, name))


def _need_asyncpg() -> None:
    if importlib.util.find_spec("asyncpg") is None:
        raise NotInstalled(
            "order-first and pay-first in PostgreSQL need a driver: run `pip install 'ticketrush[postgres]'`, or take "
            "--database sqlite"
        )
