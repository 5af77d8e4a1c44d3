"""The roll of the nodes: who lives, on which server, and how far each has come in a recovery.

It is kept on the server itself, in one hash. Beside it stands the server on which the ledger was last made
whole: whoever starts on another one makes it whole first.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from ticketrush.errors import LedgerUnavailable
from ticketrush.ledger.redis_node import RedisNode
from ticketrush.ledger.redis_sale import PREFIX, SALES

NODES: Final = PREFIX + "nodes"
"""Hash: node -> "identity of the server/last step of the recovery on it that is done, when it was last heard of"."""

WHOLE_ON: Final = PREFIX + "whole_on"
"""Key: the identity of the server on which the ledger was made whole."""

FENCING, RESTORED, SETTLED, WHOLE = range(4)
"""The steps: it has begun; it has written again what it remembers; tried once more what found no room; sells."""

FORGET_S: Final = 600

ALIVE_MS: Final = 5_000
ANNOUNCE_S: Final = 1.0
"""How often a node says during a recovery that it lives."""

WAIT_S: Final = 3.0
"""How long a recovery waits for nodes that have not been seen on this server yet."""

RESTORE_S: Final = 30.0
"""How long it waits for nodes that are at it."""


class Said(NamedTuple):
    """What one node has said of itself."""

    name: str
    identity: str
    step: int
    at_ms: int


class Roll:
    """The roll, for one node."""

    def __init__(self, node: RedisNode) -> None:
        self._node = node
        self._identity, self._step = "", WHOLE
        self._at_ms = self._before_ms = 0
        """When this node was last heard of, and when on the server before this one; by the clocks of those."""

    async def announce(self, identity: str = "", step: int = WHOLE) -> None:
        """Say that this node lives, and how far it has come on which server."""
        if identity and identity != self._identity:
            self._identity, self._before_ms = identity, self._at_ms
        self._step = step
        at_ms = await self._now_ms()
        await self._node.command("hset", NODES, self._node.name, f"{self._identity}/{self._step} {at_ms}")
        self._at_ms = at_ms

    async def leave(self) -> None:
        """This node is about to stop: nobody need wait for it."""
        await self._node.command("hdel", NODES, self._node.name)

    async def forget_the_dead(self) -> None:
        """Strike out nodes that have not been heard of for a long time."""
        now_ms = await self._now_ms()
        long_gone = [said.name for said in await self._said() if said.at_ms < now_ms - FORGET_S * 1_000]
        if long_gone:
            await self._node.command("hdel", NODES, *long_gone)

    # --- a recovery -------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def recovering(self, identity: str) -> AsyncIterator[None]:
        """Be known as one who makes the ledger whole on `identity`, for as long as the block lasts."""
        await self.announce(identity, FENCING)
        ended = asyncio.Event()
        speaking = asyncio.create_task(self._speak(ended))
        try:
            yield
        finally:
            ended.set()
            await speaking

    async def _speak(self, ended: asyncio.Event) -> None:
        while not ended.is_set():
            with contextlib.suppress(LedgerUnavailable):  # whoever recovers finds out by itself
                await self.announce(step=self._step)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANNOUNCE_S):
                    await ended.wait()

    async def meet(self, step: int) -> None:
        """Say that `step` is done, and wait until all living nodes have done it, but not for ever."""
        await self.announce(step=step)
        began_s = time.monotonic()
        while (waited_s := time.monotonic() - began_s) < RESTORE_S:
            is_late = waited_s < WAIT_S and step == RESTORED and await self._is_anybody_missing()
            if not is_late and not await self.is_anybody_before(step):
                return
            await asyncio.sleep(0.05)

    async def is_anybody_before(self, step: int) -> bool:
        """Whether a living node is at it on this server, and has not done `step`."""
        since_ms = await self._now_ms() - ALIVE_MS
        return any(
            said.identity == self._identity and said.step < step and said.at_ms >= since_ms
            for said in await self._said()
        )

    async def _is_anybody_missing(self) -> bool:
        """Whether a node lived when the server before this one was last heard of, and has not come here yet."""
        elsewhere = [said.at_ms for said in await self._said() if said.identity != self._identity]
        last_ms = max([*elsewhere, self._before_ms])
        return any(at_ms >= last_ms - ALIVE_MS for at_ms in elsewhere)

    # --- where it is whole ------------------------------------------------------------------

    async def is_whole_on(self, identity: str) -> bool:
        """Whether the ledger was made whole on that server. One without any sale is whole wherever it is."""
        found = await self._node.command("get", WHOLE_ON)
        if found is None and not await self._node.command("hlen", SALES):
            await self.keep_whole(identity)
            return True
        return found is not None and found.decode() == identity

    async def keep_whole(self, identity: str) -> None:
        """The ledger is whole on that server from now on."""
        await self._node.command("set", WHOLE_ON, identity)

    async def _now_ms(self) -> int:
        seconds, micros = await self._node.command("time")
        return int(seconds * 1_000 + micros // 1_000)

    async def _said(self) -> list[Said]:
        rows: dict[bytes, bytes] = await self._node.command("hgetall", NODES)
        return [_said(name.decode(), words.decode()) for name, words in rows.items()]


def _said(name: str, words: str) -> Said:
    where, _, at_ms = words.rpartition(" ")
    identity, _, step = where.rpartition("/")
    return Said(name, identity, int(step), int(at_ms))
