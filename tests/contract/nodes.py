"""Nodes of a shared ledger that do nothing by themselves, and that may die between any two calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from unittest.mock import patch

from ticketrush import model as m
from ticketrush.errors import LedgerUnavailable
from ticketrush.ledger.redis import RedisLedger
from ticketrush.ledger.redis_link import Link
from ticketrush.ledger.redis_watch import Watch


@asynccontextmanager
async def node(url: str, name: str, shards: int = 1) -> AsyncIterator[RedisLedger]:
    """A node that does nothing by itself."""
    ledger = RedisLedger(url, node=name, shards=shards)
    with patch.object(Watch, "start"):
        await ledger.start()
    try:
        yield ledger
    finally:
        await ledger.close()


async def do(ledger: RedisLedger, command: m.Command) -> m.Outcome:
    (outcome,) = await ledger.execute(1_000, [command])
    return outcome


@contextmanager
def dies_at(link: Link, call: int) -> Iterator[list[str]]:
    """No call is made from the one numbered `call` on; yields the names of those made."""
    made: list[str] = []
    real_run, real_command = link.run, link.command

    def count(name: str) -> None:
        if len(made) >= call:
            raise LedgerUnavailable("it is dead")
        made.append(name)

    async def run(name: str, *args: Any, **more: Any) -> Any:
        count(name)
        return await real_run(name, *args, **more)

    async def command(name: str, *args: Any) -> Any:
        count(name)
        return await real_command(name, *args)

    with patch.object(link, "run", run), patch.object(link, "command", command):
        yield made
