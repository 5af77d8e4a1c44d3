"""The order worker's source on Redis or Valkey: the streams of all books of all sales, read by a consumer group.

Several readers may share a group. Each entry is given to one of them; what it has not acknowledged
after `CLAIM_S`, because it died or its store is slow, is given to another one. So everything comes
at least once, and an entry that comes late may come behind later ones.

A group is made when its stream is first seen, from the stream's beginning: also after a failover that
lost it. Then all comes again, which is harmless (see `orders.model`).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Final

from redis.asyncio import RedisCluster

from ticketrush.errors import LedgerUnavailable
from ticketrush.ledger.redis_link import Link
from ticketrush.orders.entries import Entry, entries_of, messages_of, rows_of
from ticketrush.orders.errors import SourceUnavailable
from ticketrush.orders.groups import NO_GROUP, Groups, all_of, ask
from ticketrush.orders.protocol import Message

CLAIM_S: Final = 10.0
"""How long an entry may be with a reader that does not acknowledge it, before another reader takes it."""

PAUSE_MIN_S: Final = 0.005
PAUSE_MAX_S: Final = 0.08
"""Between two looks at streams that had nothing new; longer the longer it is quiet."""

STREAMS_AT_ONCE: Final = 64
READS_MAX: Final = 16
"""Reads, of so many streams each, before it pauses; the other streams have their turn then."""

CLAIMS_MAX: Final = 8
"""The same of looking for entries of dead readers."""

ENTRIES_AT_ONCE: Final = 256
ACKS_AT_ONCE: Final = 500


class Streams:
    """A `Source`. One task calls it; it belongs to one event loop.

    Args:
        url: the ledger's, see `ledger.redis_link`.
        group: who reads: each group is told everything.
        claim_s: see `CLAIM_S`.
    """

    def __init__(self, url: str, group: str = "orders", *, claim_s: float = CLAIM_S) -> None:
        self.name = f"streams/{group}"
        self.consumer = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._link = Link(url)
        self._apart = isinstance(self._link.client, RedisCluster)
        """Each stream may be on another server."""
        self._groups = Groups(self._link, group)
        self._claim_s = claim_s
        self._waiting: deque[Entry] = deque()
        """Read, and not returned yet."""
        self._returned: list[Entry] = []
        self._silent: list[Entry] = []
        """Entries that tell nothing of orders: to be acknowledged without being returned."""
        self._next_claims: dict[str, str] = {}
        """Stream -> where the search for entries of dead readers goes on."""
        self._claim_due_s = 0.0
        self._read_at = self._claim_at = 0
        """Whose turn it is."""
        self._unanswered = 0
        """Calls that may have given us entries that we have not heard of."""
        self._is_open = False
        self._told, self._busy = 100.0, 1
        """Messages of an entry, and streams with news in one read, as it was lately."""

    async def open(self) -> None:
        """See `Source.open`."""
        try:
            await self._link.open()
            await self._link.trust("")  # whichever server it is: what is in its streams has happened
        except LedgerUnavailable as error:
            raise SourceUnavailable(str(error)) from error
        self._is_open = True
        await self._groups.discover()

    async def close(self) -> None:
        """See `Source.close`. Where nothing is left with this reader, the server forgets it."""
        if self._is_open and not self._unanswered:
            await self._groups.leave(self.consumer)
        self._is_open = False
        await self._link.close()

    def position(self) -> None:
        """See `Source.position`: the group on the server knows it."""

    async def next(self, most: int, wait_s: float) -> Sequence[Message]:
        """See `Source.next`. An entry is returned whole, so it may be up to 1,023 messages more than `most`."""
        until_s, pause_s = time.monotonic() + wait_s, PAUSE_MIN_S
        while True:
            if not self._waiting:
                await self._look(most)
            messages = self._take(most)  # nothing is awaited behind this: who is cancelled has not got them
            left_s = until_s - time.monotonic()
            if messages or left_s <= 0:
                return messages
            if not self._waiting:
                await asyncio.sleep(min(pause_s, left_s))
                pause_s = min(2 * pause_s, PAUSE_MAX_S)

    async def done(self) -> None:
        """See `Source.done`. What could not be acknowledged is acknowledged with the next `done`."""
        await self._acknowledge(self._returned)

    async def lag(self) -> int:
        """See `Source.lag`. Counts entries: one is all that one batch did to one book."""
        return await self._groups.lag()

    def _take(self, most: int) -> list[Message]:
        messages: list[Message] = []
        while self._waiting and len(messages) < most:
            entry = self._waiting.popleft()
            found = messages_of(entry, self._groups.prices)
            (self._returned if found else self._silent).append(entry)
            self._told += (len(found) - self._told) / 16
            messages += found
        return messages

    # --- reading ----------------------------------------------------------------------------

    async def _look(self, most: int) -> None:
        """Get entries: those of dead readers, else those that nobody has read."""
        if self._silent:
            await self._acknowledge(self._silent)
        await self._groups.refresh()
        if time.monotonic() >= self._claim_due_s:
            await self._claim()
        for _ in range(min(READS_MAX, -(-len(self._groups.streams) // STREAMS_AT_ONCE))):
            if self._waiting:
                return
            streams = self._groups.some(self._read_at, STREAMS_AT_ONCE)
            self._read_at += len(streams)
            await self._read(streams, most)

    async def _read(self, streams: list[str], most: int) -> None:
        """Read what is new in `streams`: about as many entries as `most` messages fill."""
        wanted = round(most / (max(1.0, self._told) * self._busy))
        count = max(1, min(ENTRIES_AT_ONCE // len(streams), wanted))
        together = [[stream] for stream in streams] if self._apart else [streams]
        answers, failed = await all_of(self._read_together(group, count) for group in together)
        entries = [entry for answer in answers for entry in answer]
        if entries:
            self._busy = len({entry.stream for entry in entries})
            self._waiting += entries
        elif failed:
            raise failed[0]

    async def _read_together(self, streams: list[str], count: int) -> list[Entry]:
        wanted = dict.fromkeys(streams, ">")
        self._unanswered += 1
        try:
            answer = await ask(self._link, "xreadgroup", self._groups.group, self.consumer, wanted, count)
        except SourceUnavailable as error:
            if NO_GROUP not in str(error):
                raise
        else:
            self._unanswered -= 1
            return rows_of(answer)
        self._unanswered -= 1
        for stream in streams:  # one of them; the others have it already
            self._groups.lost(stream)
        return []

    async def _claim(self) -> None:
        """Take over entries that another reader does not acknowledge.

        Each stream has its turn within `claim_s`, however many there are: if this comes late, it looks at more of them.
        """
        now_s, slices = time.monotonic(), -(-len(self._groups.streams) // STREAMS_AT_ONCE)
        every_s = self._claim_s / max(4, slices)
        late_s = min(now_s - self._claim_due_s, self._claim_s)
        self._claim_due_s = now_s + every_s
        for _ in range(min(CLAIMS_MAX, slices, 1 + int(late_s / every_s))):
            streams = self._groups.some(self._claim_at, STREAMS_AT_ONCE)
            self._claim_at += STREAMS_AT_ONCE
            await self._claim_from(streams)
            if self._waiting:  # there may be more in these
                self._claim_at -= STREAMS_AT_ONCE
                self._claim_due_s = 0.0
                return

    async def _claim_from(self, streams: list[str]) -> None:
        count = max(1, ENTRIES_AT_ONCE // len(streams))
        answers, failed = await all_of(self._claim_in(stream, count) for stream in streams)
        self._waiting += [entry for answer in answers for entry in answer]
        if failed and not self._waiting:
            raise failed[0]

    async def _claim_in(self, stream: str, count: int) -> list[Entry]:
        start, old = self._next_claims.get(stream, "0-0"), round(self._claim_s * 1_000)
        group = self._groups.group
        self._unanswered += 1
        try:
            answer = await ask(self._link, "xautoclaim", stream, group, self.consumer, old, start, count)
        except SourceUnavailable as error:
            if NO_GROUP not in str(error):
                raise
            answer = (b"0-0", [])  # reading finds out, too
        self._unanswered -= 1
        self._next_claims[stream] = answer[0].decode()
        return entries_of(stream, answer[1])

    # --- acknowledging ----------------------------------------------------------------------

    async def _acknowledge(self, entries: list[Entry]) -> None:
        """Acknowledge `entries`, and leave in the list those that could not be."""
        ids: defaultdict[str, list[str]] = defaultdict(list)
        for entry in entries:
            ids[entry.stream].append(entry.id)
        answers, failed = await all_of(self._acknowledge_in(stream, some) for stream, some in ids.items())
        gone = set(answers)
        entries[:] = [entry for entry in entries if entry.stream not in gone]
        if failed:
            raise failed[0]

    async def _acknowledge_in(self, stream: str, ids: list[str]) -> str:
        for begin in range(0, len(ids), ACKS_AT_ONCE):
            await ask(self._link, "xack", stream, self._groups.group, *ids[begin : begin + ACKS_AT_ONCE])
        return stream
