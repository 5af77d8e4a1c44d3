"""What a node does by itself: hears of what other nodes do, keeps its leases alive, brings back what dead ones left.

A message (pub/sub) says at once that units have come back or a sale has changed; a look every
`TICK_S` finds it when the message was lost. While an item cannot be bought here, the events of
its sale are followed (`redis_follow`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from redis.asyncio import RedisCluster
from redis.exceptions import MaxConnectionsError, RedisError

from ticketrush import logs
from ticketrush.errors import LedgerRefused, LedgerUnavailable
from ticketrush.ledger.redis_follow import Following
from ticketrush.ledger.redis_node import Moved, RedisNode
from ticketrush.ledger.redis_reaper import Reaper
from ticketrush.ledger.redis_recovery import Recovery
from ticketrush.ledger.redis_sale import CHANGED, RedisSale

TICK_S: Final = 0.2
"""How often a node looks at the sales that it sells."""

SLOW_TICKS: Final = 5
"""Every so many looks it also looks for new sales, dead leases and another server."""

USED_S: Final = 60.0
"""A sale that nobody asked for in this time is looked at rarely."""

RARE_MAX: Final = 100
"""Sales that nobody asks for that are looked at in one slow round."""

REASONS_MAX: Final = 20
"""Reasons that are told of a server that is away, and sick sales that are borne in one round of looks."""

SICK_S: Final = 5.0
"""How long a sale that could not be looked at is left alone. The first one, for the first time, is not: it may have
been the line."""

NEWS_S: Final = 0.01

TORN_S: Final = 8.0
"""How long a sale may be between two steps of a recovery, or of its creation, before another node goes on with it."""

QUIET_S: Final = 5.0
"""How long batches under way may take to end before the ledger is made whole; each of their calls is bounded."""

START_TRIES: Final = 5
"""How often a node that starts tries to make the ledger whole."""

STOP_TRIES: Final = 4
STOP_S: Final = 1.5

log = logs.get("ticketrush.ledger.redis")


class Watch:
    """The tasks of one node."""

    def __init__(self, node: RedisNode, reaper: Reaper, recovery: Recovery) -> None:
        self._node, self._reaper, self._recovery = node, reaper, recovery
        self.is_whole = True
        """False from when another server is there until the ledger is whole on it."""
        self.is_reaper = False
        self._batches = 0
        """Under way."""
        self._quiet = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._following = Following(node, self._hear)
        self._news: set[str] = set()
        self._awake = asyncio.Event()
        self._stopping = False
        self._failing: set[str] = set()
        """Why the server could not be asked, since it last could."""
        self._sick: dict[str, tuple[str, float]] = {}
        """Sale -> why it could not be looked at, and when it is tried again (monotonic)."""
        self._rare = 0

    async def start(self) -> None:
        """Begin, once the ledger is whole on the server that is there: another node need not have seen it change.

        Raises:
            LedgerUnavailable: the server cannot be asked, or went away while the ledger was made whole.
        """
        identity, roll = await self._node.link.identity(), self._recovery.roll
        if identity == self._node.link.trusted and await roll.is_whole_on(identity):
            self._recovery.identity = identity
            await roll.announce(identity)
        else:
            await self._recover_first()
        self.is_reaper = await self._reaper.is_due()
        self._spawn(self._forever(self._ticks))
        self._spawn(self._forever(self._listen))
        self._spawn(self._forever(self._following.read))

    async def _recover_first(self) -> None:
        for tries_left in range(START_TRIES, 0, -1):
            try:
                await self._recover(await self._node.link.identity())
                return
            except LedgerUnavailable as error:  # others that start may have been in the way
                log.warning("server_away", error=str(error))
                if tries_left == 1:
                    with contextlib.suppress(LedgerUnavailable):
                        await self._recovery.roll.leave()
                    raise
            await asyncio.sleep(TICK_S)

    def check_whole(self) -> None:
        """Raises LedgerRefused while the ledger is made whole: what is not there may be about to be written again."""
        if not self.is_whole:
            raise LedgerRefused("the ledger is being made whole after a failover")

    @contextlib.contextmanager
    def batch(self) -> Iterator[None]:
        """A batch is decided within; none is while the ledger is made whole. Raises LedgerRefused."""
        self.check_whole()
        self._batches += 1
        try:
            yield
        finally:
            self._batches -= 1
            if not self._batches:
                self._quiet.set()

    async def stop(self) -> None:
        """End all tasks."""
        self._stopping = self._following.stopping = True
        self._awake.set()
        left = set(self._tasks)
        for _ in range(STOP_TRIES):
            if left:
                _, left = await asyncio.wait(left, timeout=STOP_S)
            for task in left:  # only one that hangs: a call that is broken off leaves its connection open
                task.cancel()
        with contextlib.suppress(LedgerUnavailable):
            await self._recovery.roll.leave()

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
            now_s = time.monotonic()
            used = (sale for sale in self._node.sales.values() if sale.id in news or now_s - sale.used_s < USED_S)
            await self._look_at(list(used))
            await self._reclaim_dropped()
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
        if identity != self._recovery.identity or not self.is_whole:  # the one before may be back, before that was done
            await self._recover(identity)
        elif self._failing:
            log.info("server_back")
        self._failing.clear()
        await self._recovery.roll.announce()
        await self._apart("new sales", self._node.discover())
        sales = list(self._node.sales.values())
        await self._look_at((sales + sales)[self._rare : self._rare + min(RARE_MAX, len(sales))])
        self._rare = (self._rare + RARE_MAX) % max(1, len(sales))
        self.is_reaper = await self._reaper.is_due()
        if self.is_reaper:
            await self._apart("dead leases", self._reaper.dead())
            await self._recovery.roll.forget_the_dead()

    async def _look_at(self, sales: list[RedisSale]) -> None:
        """Look at each; one that is sick is left alone for a while, and keeps nobody from the others."""
        borne = 0
        for sale in sales:
            before, until_s = self._sick.get(sale.id, ("", 0.0))
            if time.monotonic() < until_s:
                continue
            rest_s = SICK_S if before or borne else 0.0
            if not await self._apart(sale.id, self._look(sale), rest_s):
                borne += 1
                if borne == REASONS_MAX:
                    raise LedgerUnavailable(f"{borne} sales in a row cannot be looked at, the last is {sale.id!r}")

    async def _reclaim_dropped(self) -> None:
        dropped = self._node.dropped
        for _ in range(len(dropped)):
            if not dropped or await self._apart("dropped leases", self._reaper.dropped()):
                return
            dropped.insert(0, dropped.pop())  # the last one is at fault: the others first

    async def _apart(self, what: str, work: Awaitable[object], rest_s: float = 0.0) -> bool:
        """Whether `work` succeeds. A failure of its own is logged once, and it rests; one of the server is raised."""
        try:
            await work
        except Exception as error:  # whatever it is, the rest must go on
            is_refused = isinstance(error, LedgerRefused) and not isinstance(error, Moved)
            if is_refused and self._node.link.is_one and not isinstance(error.__cause__, MaxConnectionsError):
                raise  # the server takes no writes, of nobody
            await self._node.command("time")
            if self._sick.get(what, ("", 0.0))[0] != repr(error):
                log.warning("sick", what=what, error=str(error), unforeseen=not isinstance(error, LedgerUnavailable))
            self._sick[what] = (repr(error), time.monotonic() + (0.0 if is_refused else rest_s))
            return False
        if self._sick.pop(what, None) is not None:
            log.info("well_again", what=what)
        return True

    async def _recover(self, identity: str) -> None:
        """Another server is there: it may be an older copy, whatever its settings promise."""
        log.warning("another_server")
        self.is_whole = False
        await self._until_quiet()  # what is under way finds the server of before or none, never the new one unfenced
        await self._node.link.trust(identity)
        await self._recovery.run(identity)
        self.is_whole = True
        self._tell()

    async def _until_quiet(self) -> None:
        if self._batches:
            self._quiet.clear()
            try:
                async with asyncio.timeout(QUIET_S):
                    await self._quiet.wait()
            except TimeoutError as error:
                raise LedgerUnavailable(f"{self._batches} batches have not ended in {QUIET_S:g} s") from error

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
        self._following.consider(sale)

    def _tell(self) -> None:
        if self._node.changed:
            self._node.on_change()
        if self._node.moved_on:
            moved, self._node.moved_on = sorted(self._node.moved_on), set()
            log.warning("epoch_changed", sales=len(moved), first=moved[:20])

    def _hear(self, sale: str) -> None:
        """Something has happened in a sale: look at it soon."""
        self._news.add(sale)
        self._awake.set()

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
                    if sale not in self._node.sales:
                        await self._apart("new sales", self._node.discover())
                    self._hear(sale)
        finally:
            await pubsub.aclose()  # type: ignore[no-untyped-call]
