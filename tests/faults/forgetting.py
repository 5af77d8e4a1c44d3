"""A Valkey that forgets, as one does whose replica takes over too early, or whose disk loses the end of a file."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from unittest.mock import patch

from ticketrush import model as m
from ticketrush.cluster.valkey import Valkey
from ticketrush.errors import LedgerUnavailable
from ticketrush.ledger.redis import RedisLedger
from ticketrush.ledger.redis_recovery import Found
from ticketrush.ledger.redis_watch import Watch


class Forgetful:
    """A server that keeps a file, and can go back to what it knew; every time it is another server."""

    def __init__(self, server: Valkey) -> None:
        self.server, self.url = server, server.url
        self._files = server.folder / f"{server.name}-aof"
        self._copy = server.folder / "copy"

    def remember(self) -> None:
        """What it knows now is what it will go back to."""
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._files, self._copy)

    def forget(self) -> None:
        """It is killed, and comes back with what it knew then."""
        self.server.kill()
        shutil.rmtree(self._files)
        shutil.copytree(self._copy, self._files)
        self.server.start()


def newest_of(folder: Path) -> Path:
    """The newest part of an append-only file."""
    return max(folder.rglob("*.incr.aof"), key=lambda file: file.stat().st_mtime)


def cut_tail(folder: Path, size: int) -> None:
    """Cut the end off the newest part of an append-only file, as a power cut may."""
    newest = newest_of(folder)
    with newest.open("r+b") as file:
        file.truncate(max(0, newest.stat().st_size - size))


@contextlib.asynccontextmanager
async def node(url: str, name: str, *, shards: int = 1, is_quiet: bool = True) -> AsyncIterator[RedisLedger]:
    """A node in this process; one that is quiet does nothing by itself."""
    ledger = RedisLedger(url, node=name, durability="memory", shards=shards)
    with patch.object(Watch, "start") if is_quiet else contextlib.nullcontext():
        await ledger.start()
    try:
        yield ledger
    finally:
        await ledger.close()


async def meet(ledger: RedisLedger) -> str:
    """Let a quiet node see the server that is there; its identity."""
    with contextlib.suppress(LedgerUnavailable):  # the connection led to the server of before
        await ledger._link.identity()
    identity = await ledger._link.identity()
    await ledger._link.trust(identity)
    return identity


async def recover(ledger: RedisLedger) -> Found:
    """Let a quiet node make the ledger whole on the server that is there."""
    return await ledger._recovery.run(await meet(ledger))


async def hold(ledger: RedisLedger, at_ms: int, *ids: str, sale: str = "g") -> list[str]:
    """Ask for a unit under each id; the ids of those that were told "held"."""
    asks = [m.Reserve(id, sale, "a", f"buyer-of-{id}", 1, f"key-{id}") for id in ids]
    outcomes = await ledger.execute(at_ms, asks)
    return [outcome.reservation.id for outcome in outcomes if isinstance(outcome, m.Reserved)]


async def state_of(ledger: RedisLedger, id: str) -> m.State | None:
    """The state of a reservation, as the server has it."""
    row = await ledger._reads.reservation(id)
    return None if row is None else row.state


async def eventually(what: Callable[[], bool], within_s: float = 3.0) -> None:
    """Wait for something that a node does by itself."""
    until_s = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < until_s, f"not so within {within_s:g} s"
        await asyncio.sleep(0.02)


def held(ledger: RedisLedger, sale: str) -> int:
    """Units held of the first item, as the node knows; -1 if it has not heard of the sale."""
    stock = ledger.stock(sale)
    return -1 if stock is None else stock.levels[0].held
