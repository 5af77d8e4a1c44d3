"""What a node does by itself: hears of what other nodes do, keeps its leases alive, brings back what dead ones left.

A message (pub/sub) says at once that units have come back or a sale has changed; a look every
`TICK_S` finds it when the message was lost. While an item cannot be bought here, the events of
its sale are followed, so that a closed gate knows every key that has won anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Final

from redis.asyncio import RedisCluster
from redis.exceptions import RedisError

from ticketrush import logs
from ticketrush.errors import LedgerUnavailable
from ticketrush.events import Held
from ticketrush.ledger.redis_node import Moved, RedisNode
from ticketrush.ledger.redis_reads import streams_of
from ticketrush.ledger.redis_reaper import Reaper
from ticketrush.ledger.redis_recovery import Recovery
from ticketrush.ledger.redis_sale import CHANGED, Book, RedisSale

TICK_S: Final = 0.2
"""How often a node looks at the sales that it sells."""

SLOW_TICKS: Final = 5
"""Every so many looks it also looks for new sales, dead leases and another server."""

USED_S: Final = 60.0
"""A sale that nobody asked for in this time is looked at rarely."""

RARE_MAX: Final = 100
"""Sales that nobody asks for that are looked at in one slow round."""

REASONS_MAX: Final = 20

NEWS_S: Final = 0.01

TORN_S: Final = 8.0
"""How long a sale may be between two steps of a recovery, or of its creation, before another node goes on with it."""

STOP_TRIES: Final = 4
STOP_S: Final = 1.5

BLOCK_MS: Final = 250
ENTRIES: Final = 1_000

log = logs.get("ticketrush.ledger.redis")


class Watch:
    """The tasks of one node."""

    def __init__(self, node: RedisNode, reaper: Reaper, recovery: Recovery) -> None:
        self._node, self._reaper, self._recovery = node, reaper, recovery
        self.is_whole = True
        """False from when another server is there until the ledger is whole on it."""
        self.is_reaper = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._followed: dict[str, RedisSale] = {}
        self._news: set[str] = set()
        self._awake = asyncio.Event()
        self._stopping = False
        self._failing: set[str] = set()
        """Why the server could not be asked, since it last could."""
        self._rare = 0

    async def start(self) -> None:
        """Begin. Raises LedgerUnavailable if the server cannot be asked who it is."""
        self._recovery.identity = await self._node.link.identity()
        await self._node.link.trust(self._recovery.identity)
        await self._recovery.announce()
        self.is_reaper = await self._reaper.is_due()
        self._spawn(self._forever(self._ticks))
        self._spawn(self._forever(self._listen))
        self._spawn(self._forever(self._read))

    async def stop(self) -> None:
        """End all tasks."""
        self._stopping = True
        self._awake.set()
        left = set(self._tasks)
        for _ in range(STOP_TRIES):
            if left:
                _, left = await asyncio.wait(left, timeout=STOP_S)
            for task in left:  # only one that hangs: a call that is broken off leaves its connection open
                task.cancel()
        with contextlib.suppress(LedgerUnavailable):
            await self._recovery.leave()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _forever(self, work: Callable[[], Awaitable[None]]) -> None:
        """Do `work` again and again; a server that is away is asked again after a moment."""
        while not self._stopping:
            try:
                await work()
            except (LedgerUnavailable, RedisError, OSError) as error:
                if str(error) not in self._failing and len(self._failing) < REASONS_MAX:
                    log.warning("server_away", error=str(error))
                    self._failing.add(str(error))
            except Exception:  # whatever it was, a node that no longer looks would strand units
                log.exception("defect")
            if not self._stopping:
                await asyncio.sleep(TICK_S)

    # --- looking ----------------------------------------------------------------------------

    async def _ticks(self) -> None:
        for count in range(1_000_000):
            if self._failing or count % SLOW_TICKS == 0:
                await self._slowly()
            news, self._news = self._news, set()
            for sale in list(self._node.sales.values()):
                if sale.id in news or time.monotonic() - sale.used_s < USED_S:
                    await self._look(sale)
            await self._reaper.dropped()
            self._tell()
            if self._stopping:
                return
            self._awake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._awake.wait()
                    await asyncio.sleep(NEWS_S)  # a stream of messages is one piece of news

    async def _slowly(self) -> None:
        identity = await self._node.link.identity()
        if identity != self._recovery.identity:
            await self._recover(identity)
        elif self._failing:
            log.info("server_back")
        self._failing.clear()
        await self._recovery.announce()
        await self._node.discover()
        sales = list(self._node.sales.values())
        for sale in (sales + sales)[self._rare : self._rare + min(RARE_MAX, len(sales))]:
            await self._look(sale)
        self._rare = (self._rare + RARE_MAX) % max(1, len(sales))
        self.is_reaper = await self._reaper.is_due()
        if self.is_reaper:
            await self._reaper.dead()
            await self._recovery.forget_the_dead()

    async def _recover(self, identity: str) -> None:
        """Another server is there: it may be an older copy, whatever its settings promise."""
        log.warning("another_server")
        self.is_whole = False
        await self._node.link.trust(identity)
        await self._recovery.run(identity)
        self.is_whole = True

    @property
    def is_well(self) -> bool:
        """Whether the server answers, and the ledger is whole on it."""
        return self.is_whole and not self._failing

    async def _look(self, sale: RedisSale) -> None:
        for number in range(len(sale.books)):
            await self._node.look(sale, number)
        is_sound = sale.is_whole
        try:
            await self._node.stocks(sale)
        except Moved:
            is_sound = False
        if is_sound:
            sale.torn_s = 0.0
        elif not sale.torn_s:
            sale.torn_s = time.monotonic()
        elif time.monotonic() - sale.torn_s > TORN_S:  # whoever was at it is dead
            await self._recovery.mend(sale)
        self._follow(sale)

    def _tell(self) -> None:
        if self._node.changed:
            self._node.on_change()

    # --- listening --------------------------------------------------------------------------

    async def _listen(self) -> None:
        """Hear at once what other nodes say."""
        client = self._node.link.client
        if isinstance(client, RedisCluster):
            return  # looks alone, every TICK_S
        pubsub = client.pubsub()
        try:
            await pubsub.subscribe(CHANGED)
            while not self._stopping:
                message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=TICK_S)
                if message is None:
                    continue
                node, _, sale = message["data"].decode().partition(" ")
                if node != self._node.name:
                    self._news.add(sale)
                    if sale not in self._node.sales:
                        await self._node.discover()
                    self._awake.set()
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]

    # --- following --------------------------------------------------------------------------

    def _follow(self, sale: RedisSale) -> None:
        """Follow the events of a sale while one of its items cannot be bought here."""
        if any(sale.free(item) == 0 for item in sale.shelves):
            self._followed[sale.id] = sale
        elif self._followed.pop(sale.id, None) is not None:
            sale.following = False

    async def _read(self) -> None:
        """Learn the keys that have won in the followed sales, all in one call; wait a moment if there are none."""
        followed = [(sale, book) for sale in self._followed.values() for book in sale.books]
        try:
            while followed and not self._stopping and not await self._next(followed):
                followed = [(sale, book) for sale in self._followed.values() for book in sale.books]
        except BaseException:
            for sale in self._followed.values():
                sale.following = False
            raise

    async def _next(self, followed: list[tuple[RedisSale, Book]]) -> bool:
        """Read once behind what is known of each book; True if it is time for a pause."""
        behind = set()
        if isinstance(self._node.link.client, RedisCluster):  # the streams are on several servers
            answers = [await self._node.command("xread", {book.events: book.read_to}, ENTRIES) for _, book in followed]
        else:
            streams = {book.events: book.read_to for _, book in followed}
            answers = [await self._node.command("xread", streams, ENTRIES, BLOCK_MS)]
        entries = {stream: rows for answer in answers for stream, rows in streams_of(answer)}
        for sale, book in followed:
            rows = entries.get(book.events, [])
            for id, events in rows:
                sale.keys.update(event.key for event in events if isinstance(event, Held) and event.key)
                book.read_to = id
            if len(rows) == ENTRIES:
                behind.add(sale.id)
        for sale, _ in followed:
            if sale.id not in behind and not sale.following and sale.id in self._followed:
                sale.following = True
                self._node.changed.add(sale.id)
        self._tell()
        return isinstance(self._node.link.client, RedisCluster) and not behind
