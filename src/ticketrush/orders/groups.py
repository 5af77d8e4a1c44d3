"""Which streams there are, and our consumer group on each of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from redis.exceptions import ResponseError

from ticketrush import logs
from ticketrush import model as m
from ticketrush.errors import LedgerUnavailable
from ticketrush.ledger.redis_link import Link
from ticketrush.ledger.redis_sale import SALES, RedisSale
from ticketrush.orders.errors import SourceUnavailable
from ticketrush.orders.notices import Prices

DISCOVER_S: Final = 0.5
"""How often it looks for new sales and new streams."""

AT_ONCE: Final = 256
"""Sales that are learned, and streams that are looked for, in one go."""

NO_GROUP: Final = "NOGROUP"
"""How the server's word begins when a stream, or a group on it, is not there."""

_THERE_ALREADY: Final = "BUSYGROUP"
_NO_STREAM: Final = "requires the key to exist"

_sale_of: Final = msgspec.msgpack.Decoder(m.Sale).decode

log = logs.get("ticketrush.orders.streams")


async def ask(link: Link, command: str, *args: Any) -> Any:
    """The server's answer to a plain command, within `redis_link.TIMEOUT_S`. Raises SourceUnavailable."""
    try:
        return await link.command(command, *args)
    except LedgerUnavailable as error:
        raise SourceUnavailable(str(error)) from error


async def ask_all(link: Link, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
    """The answers to plain commands that are sent together; a ResponseError is what the server says of one of them.

    Raises SourceUnavailable.
    """
    try:
        answers = await link.commands(calls)
    except LedgerUnavailable as error:
        raise SourceUnavailable(str(error)) from error
    for answer in answers:
        if isinstance(answer, Exception) and not isinstance(answer, ResponseError):
            raise SourceUnavailable(f"no answer from {link.shown}: {answer}") from answer
    return answers


async def all_of(calls: Iterable[Awaitable[Any]]) -> tuple[list[Any], list[SourceUnavailable]]:
    """What calls made side by side answered, and how others failed; what else went wrong is raised."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, SourceUnavailable):
            raise result
    failed = [result for result in results if isinstance(result, SourceUnavailable)]
    return [result for result in results if not isinstance(result, SourceUnavailable)], failed


class Groups:
    """The streams of all sales that have our group, and the prices of these sales.

    A stream is there from the first event of its book on; the group is made from its beginning.
    """

    def __init__(self, link: Link, group: str) -> None:
        self.group = group
        self.prices: Final = Prices()
        self.streams: list[str] = []
        self._link = link
        self._absent: list[str] = []
        """Streams that were not there, or had no group, when last looked at; the longest ago first."""
        self._sales: set[bytes] = set()
        self._due_s = 0.0

    def some(self, at: int, most: int) -> list[str]:
        """At most `most` of the streams, round and round with growing `at`."""
        count = len(self.streams)
        return [self.streams[(at + index) % count] for index in range(min(most, count))]

    async def refresh(self) -> None:
        """Learn of new sales and streams, if it is time. Raises SourceUnavailable: in part; some may be new."""
        if time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + DISCOVER_S
            await self.discover()

    async def discover(self) -> None:
        """Learn of up to `AT_ONCE` new sales, and of as many new streams; of more at the next `refresh`."""
        numbers: dict[bytes, bytes] = await ask(self._link, "hgetall", SALES)
        unknown = sorted(numbers.keys() - self._sales, key=lambda sale: int(numbers[sale]))
        _, failed = await all_of(self._learn(sale) for sale in unknown[:AT_ONCE])
        looked_at, later = self._absent[:AT_ONCE], self._absent[AT_ONCE:]
        self._absent = later + looked_at
        failed += (await all_of(self._join(stream) for stream in looked_at))[1]
        if len(unknown) > AT_ONCE:
            self._due_s = 0.0
        if failed:
            raise failed[0]

    async def _learn(self, id: bytes) -> None:
        """Learn of one sale; one that is still being made is looked at again later."""
        sale = id.decode()
        meta = RedisSale(m.Sale(sale, (m.Item("none", 0),)), 0, 1, "").books[0].meta
        blob, shards = await ask(self._link, "hmget", meta, "created", "shards")
        if blob is None:
            return
        self._sales.add(id)
        try:
            created = _sale_of(blob)
        except (msgspec.DecodeError, ValueError):
            log.exception("sale_unreadable", sale=sale)
            return
        self.prices.learn(created)
        self._absent += [book.events for book in RedisSale(created, 0, int(shards), "").books]

    async def _join(self, stream: str) -> None:
        """Make our group on a stream, if it is there."""
        try:
            await ask(self._link, "xgroup_create", stream, self.group, "0")
        except SourceUnavailable as error:
            if _NO_STREAM in str(error):
                return
            if _THERE_ALREADY not in str(error):
                raise
        self._absent.remove(stream)
        self.streams.append(stream)

    def lost(self, stream: str) -> None:
        """The server no longer has our group on this stream: make it again, when the stream is there."""
        self.streams.remove(stream)
        self._absent.append(stream)
        self._due_s = 0.0

    async def leave(self, consumer: str) -> None:
        """Have the server forget a reader that reads no more, except on streams where something is left with it.

        Otherwise each start of a reader would leave a little there, on every stream. It stops at the first failure.
        """
        for begin in range(0, len(self.streams), AT_ONCE):
            some = self.streams[begin : begin + AT_ONCE]
            if (await all_of(self._leave(stream, consumer) for stream in some))[1]:
                return

    async def _leave(self, stream: str, consumer: str) -> None:
        if not await ask(self._link, "xpending_range", stream, self.group, "-", "+", 1, consumer):
            await ask(self._link, "xgroup_delconsumer", stream, self.group, consumer)

    async def lag(self) -> int:
        """Entries of all streams that this group was not given yet, or has not acknowledged."""
        total, streams, untold = 0, list(self.streams), list(self._absent)
        async for stream, groups in self._of_each("xinfo_groups", streams):
            told = None if isinstance(groups, ResponseError) else self._waiting(groups)
            if told is None:
                untold.append(stream)
            else:
                total += told
        async for _, length in self._of_each("xlen", untold):
            total += 0 if isinstance(length, ResponseError) else length
        return total

    def _waiting(self, groups: Sequence[Mapping[str, Any]]) -> int | None:
        """What our group has before it; None if it is not there, or the server cannot tell.

        It cannot after entries were taken out of the middle.
        """
        for group in groups:
            if group["name"].decode() == self.group and group["lag"] is not None:
                return int(group["lag"]) + int(group["pending"])
        return None

    async def _of_each(self, command: str, streams: Sequence[str]) -> AsyncIterator[tuple[str, Any]]:
        """Each stream and the answer to a command about it, or what the server says is wrong with it."""
        for begin in range(0, len(streams), AT_ONCE):
            some = streams[begin : begin + AT_ONCE]
            for stream, answer in zip(some, await ask_all(self._link, [(command, each) for each in some]), strict=True):
                yield stream, answer
