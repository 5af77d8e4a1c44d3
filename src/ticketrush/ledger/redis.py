"""The ledger of many nodes: one truth in Redis or Valkey, units leased to the nodes that sell them.

Each node decides its batches with one script a book (`redis_decide`), from units that it has leased
beforehand (`local_stock`). Any node may die at any moment: what it had leased and not spent comes
back when its lease ends (`redis_reaper`). What a server forgets is written again by the nodes that
remember it, before anybody buys (`redis_recovery`).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from ticketrush import audit, logs
from ticketrush import model as m
from ticketrush.errors import LedgerRefused, LedgerUnavailable
from ticketrush.events import AnyEvent
from ticketrush.ids import Ids
from ticketrush.ledger.local_stock import IDLE_S
from ticketrush.ledger.redis_decide import RETRY_MS, Booked, Decider, failed
from ticketrush.ledger.redis_expire import Expirer
from ticketrush.ledger.redis_link import Link
from ticketrush.ledger.redis_node import AHEAD, RedisNode
from ticketrush.ledger.redis_operate import Operator
from ticketrush.ledger.redis_reads import Reads, Where
from ticketrush.ledger.redis_reaper import Reaper
from ticketrush.ledger.redis_reconcile import Reminded, Report, reconcile, remind
from ticketrush.ledger.redis_recovery import Recovery
from ticketrush.ledger.redis_watch import STOP_S, Watch
from ticketrush.model import Reason, Refused

_BOOKED: Final = (m.Reserve, m.Confirm, m.Cancel, m.Refund)
_NOT_TRIED: Final = LedgerRefused("what was before it in the batch failed")
_UNKNOWN_SALE: Final = Refused(Reason.UNKNOWN_SALE)
_UNKNOWN_RESERVATION: Final = Refused(Reason.UNKNOWN_RESERVATION)

BACKUP_MS: Final = 500
"""How much later than the reaper other nodes expire holds."""

log = logs.get("ticketrush.ledger.redis")


class RedisLedger:
    """A `Ledger` that many nodes share. One event loop owns it.

    Args:
        url: see `redis_link`.
        durability: what a success survives. "memory": a crash of any node; "fsync": also of the
            server and the power; "replica": also the loss of the server.
        node: a name for this node, in keys and logs.
        shards: books of each sale that is created here; more than one spreads a sale over a cluster.
        ahead: how many batches a busy node leases in advance, as long as there is plenty.
    """

    overlap = 2
    """While the server decides one batch, the node answers the one before and collects the next."""

    def __init__(
        self, url: str, *, durability: str = "memory", node: str = "", shards: int = 1, ahead: int = AHEAD
    ) -> None:
        name = node or f"{socket.gethostname()}-{os.getpid()}"
        self._link = Link(url, durability=durability)
        self._node = RedisNode(self._link, name, shards, ahead)
        self._decider = Decider(self._node)
        self._operator = Operator(self._node)
        self._reads = Reads(self._node)
        self._reaper = Reaper(self._node)
        self._recovery = Recovery(self._node, self._decider.memory, self._reaper)
        self._watch = Watch(self._node, self._reaper, self._recovery)
        self._ids = Ids()
        self._operations: dict[type, Callable[[Any], Awaitable[m.Outcome]]] = {
            m.CreateSale: self._operator.create,
            m.OpenSale: self._operator.schedule,
            m.CloseSale: self._operator.schedule,
            m.AddStock: self._operator.add,
            m.Expire: Expirer(self._node).expire,
        }
        self._started = False
        self._reported_ms = 0
        self._idle: asyncio.TimerHandle | None = None
        self._giving: asyncio.Task[None] | None = None

    # --- life -------------------------------------------------------------------------------

    async def start(self) -> None:
        """See `Ledger.start`."""
        await self._link.open()
        with contextlib.suppress(LedgerUnavailable):  # a sick sale: the watch looks again, and tells
            await self._node.discover()
        await self._watch.start()
        self._started = True

    async def close(self) -> None:
        """See `Ledger.close`. All leased units go back."""
        if self._idle is not None:
            self._idle.cancel()
        if self._giving is not None:
            await asyncio.wait((self._giving,), timeout=STOP_S)
        if self._started:
            self._started = False
            await self._watch.stop()
            with contextlib.suppress(LedgerUnavailable):
                await self._node.idle(time.monotonic() + 1)
                await self._node.leave()
                await self._reaper.dropped()
        await self._link.close()

    async def open_for_operator(self) -> None:
        """Read and mend, without selling: in the place of `start`; `close` ends it."""
        await self._link.open()
        await self._link.trust(await self._link.identity())
        await self._node.discover()

    async def remind(self, rows: Sequence[m.Reservation]) -> Reminded:
        """Take reservations that buyers were told of, for `reconcile` to write again; see `redis_reconcile.remind`."""
        return await remind(self._node, self._recovery, rows)

    async def reconcile(self) -> Report:
        """Make every sale whole again now, as after a failover; only after `open_for_operator`.

        Nodes that sell are refused for a moment, then go on under new leases.

        Raises:
            LedgerUnavailable: the server went away meanwhile; run it again.
        """
        return await reconcile(self._node, self._reads, self._recovery, await self._link.identity())

    @property
    def ready(self) -> bool:
        """See `Ledger.ready`."""
        return self._started and self._watch.is_well

    def watch(self, changed: Callable[[], None]) -> None:
        """See `Ledger.watch`."""
        self._node.on_change = changed

    # --- changing ---------------------------------------------------------------------------

    async def execute(self, now_ms: int, commands: Sequence[m.Command]) -> list[m.Outcome]:
        """See `Ledger.execute`."""
        if not self._started:
            raise LedgerRefused("the ledger is closed")
        self._node.now_ms = max(now_ms, self._node.seen_ms)
        with self._watch.batch():
            outcomes = await self._do_all(commands)
        self._return_idle()
        return outcomes

    async def _do_all(self, commands: Sequence[m.Command]) -> list[m.Outcome]:
        outcomes: list[m.Outcome] = []
        while len(outcomes) < len(commands):
            some = _alike(commands, len(outcomes))
            try:
                outcomes += await self._do(some)
            except LedgerUnavailable as error:
                if isinstance(some[0], m.Expire) and len(commands) > 1:  # nobody's loss: it is tried again
                    outcomes.append(m.ExpiredSome(0, more=True))
                elif not outcomes:
                    raise
                else:
                    outcomes += [failed(error, self._node.now_ms)] * len(some)
                    outcomes += [failed(_NOT_TRIED, self._node.now_ms)] * (len(commands) - len(outcomes))
        return outcomes

    async def _do(self, commands: Sequence[m.Command]) -> list[m.Outcome]:
        operation = self._operations.get(type(commands[0]))
        if operation is not None:
            return [await operation(commands[0])]
        return await self._decide(commands)  # type: ignore[arg-type]

    async def _decide(self, commands: Sequence[Booked]) -> list[m.Outcome]:
        """Decide purchases and changes, the books side by side, each in the order of the commands.

        Raises:
            LedgerUnavailable: nothing was decided. Where only a part fails, those in it are told so.
        """
        outcomes: list[m.Outcome] = [_UNKNOWN_RESERVATION] * len(commands)
        groups, errors = await self._sort(commands, outcomes)
        calls = (
            self._decider.decide(self._node.sales[sale], book, [commands[index] for index in indexes])
            for (sale, book), indexes in groups.items()
        )
        for indexes, decided in zip(groups.values(), await asyncio.gather(*calls, return_exceptions=True), strict=True):
            if isinstance(decided, LedgerUnavailable):
                errors.update(dict.fromkeys(indexes, decided))
            elif isinstance(decided, BaseException):
                raise decided
            else:
                for index, outcome in zip(indexes, decided, strict=True):
                    outcomes[index] = outcome
        if len(errors) == len(commands):
            raise next((each for each in errors.values() if not isinstance(each, LedgerRefused)), errors[0])
        for index, error in errors.items():
            outcomes[index] = failed(error, self._node.now_ms)
        if errors and self._node.now_ms >= self._reported_ms + RETRY_MS:
            self._reported_ms = self._node.now_ms
            log.warning("batch_failed_in_part", commands=len(errors), of=len(commands), error=str(errors.popitem()[1]))
        return outcomes

    async def _sort(
        self, commands: Sequence[Booked], outcomes: list[m.Outcome]
    ) -> tuple[dict[Where, list[int]], dict[int, LedgerUnavailable]]:
        """The places of the commands in the batch by the book that decides them, and of those that cannot be sorted.

        A command about something that is nowhere has its outcome already.
        """
        groups: defaultdict[Where, list[int]] = defaultdict(list)
        errors: dict[int, LedgerUnavailable] = {}
        routes: dict[str, Where] = {}
        away: LedgerUnavailable | None = None
        for index, command in enumerate(commands):
            try:
                if isinstance(command, m.Reserve):
                    sale = await self._node.sale(command.sale)
                    if sale is None:
                        outcomes[index] = _UNKNOWN_SALE
                        continue
                    where = routes[command.id] = (sale.id, sale.book_of(command.buyer))
                else:
                    found = routes.get(command.id) or self._reads.route(command.id)
                    if found is None and away is not None:  # nobody waits for a second time-out
                        raise away
                    found = found or await self._reads.find(command.id)
                    if found is None:
                        continue
                    where = found
            except LedgerUnavailable as error:
                away = LedgerRefused(f"not looked for: {error}")
                errors[index] = away
            else:
                groups[where].append(index)
        return groups, errors

    def _return_idle(self) -> None:
        """Units that are left over go back, unless they are used within a moment."""
        loop = asyncio.get_running_loop()
        if self._idle is None and self._node.lent:
            self._idle = loop.call_later(IDLE_S, self._on_idle)

    def _on_idle(self) -> None:
        self._idle = None
        if self._started:
            self._giving = asyncio.get_running_loop().create_task(self._give_back())

    async def _give_back(self) -> None:
        with contextlib.suppress(LedgerUnavailable):  # the lease stands; the next look tells the stock
            await self._node.idle(time.monotonic() - IDLE_S)
        if self._started:
            self._return_idle()

    # --- reading ----------------------------------------------------------------------------

    def sales(self) -> list[m.Sale]:
        """See `Ledger.sales`."""
        return [sale.sale for sale in self._node.sales.values()]

    def stock(self, sale: str) -> m.Stock | None:
        """See `Ledger.stock`."""
        known = self._node.sales.get(sale)
        return known.stock() if known is not None else None

    def changes(self) -> set[str]:
        """See `Ledger.changes`."""
        changed, self._node.changed = self._node.changed, set()
        return changed

    def new_id(self, sale: str, buyer: str) -> str:
        """See `Ledger.new_id`."""
        known = self._node.sales.get(sale)
        if known is None:
            return self._ids.draw()
        return self._ids.draw() + known.routes[known.book_of(buyer)]

    def remembers(self, sale: str, key: str) -> bool:
        """See `Ledger.remembers`."""
        known = self._node.sales.get(sale)
        return known is not None and known.remembers(key)

    def next_expiry_at_ms(self) -> int | None:
        """See `Ledger.next_expiry_at_ms`. One node is the first to expire; others do it if that one does not."""
        at_ms = self._node.due.first_ms()
        return at_ms if at_ms is None or self._watch.is_reaper else at_ms + BACKUP_MS

    def last_event_at_ms(self) -> int:
        """See `Ledger.last_event_at_ms`."""
        return self._node.seen_ms

    async def reservation(self, id: str) -> m.Reservation | None:
        """See `Ledger.reservation`."""
        self._watch.check_whole()
        return await self._reads.reservation(id)

    def reservations(self) -> AsyncIterator[list[m.Reservation]]:
        """All committed reservations, see `Reads.pages`."""
        return self._reads.pages()

    async def reservation_for(self, sale: str, buyer: str, key: str) -> m.Reservation | None:
        """See `Ledger.reservation_for`."""
        self._watch.check_whole()
        return await self._reads.reservation_for(sale, buyer, key)

    async def events(self, after: int, limit: int) -> list[tuple[int, AnyEvent]]:
        """See `Ledger.events`."""
        return await self._reads.events(after, limit)

    def calls(self) -> Mapping[str, int]:
        """See `Ledger.calls`."""
        return self._link.calls

    async def state(self) -> audit.LedgerState:
        """See `Ledger.state`."""
        await self._node.idle(time.monotonic())
        return await self._reads.state()


def _alike(commands: Sequence[m.Command], begin: int) -> Sequence[m.Command]:
    """The commands from `begin` on that are decided together: purchases and changes, or one of anything else."""
    end = begin
    while end < len(commands) and isinstance(commands[end], _BOOKED):
        end += 1
    return commands[begin : max(end, begin + 1)]
