"""How a batch is decided on Redis: units from the local stock, one script a book, words for its reply.

The script decides in order, within the units that the node gives it, and stops where more are
needed. The node then looks for units: it takes over what has been released, asks the stock, and goes
on. What finds no units anywhere is told so by the script, with the levels of that moment.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from ticketrush import model as m
from ticketrush.errors import LedgerRefused, LedgerUnavailable
from ticketrush.ledger.redis_node import Moved, RedisNode, using
from ticketrush.ledger.redis_sale import RedisSale
from ticketrush.model import Reason, Refused, State

OPS_MAX: Final = 1_024
"""Commands that one script decides; a batch of more is several."""

STALLED_MAX: Final = 3
"""How often units that seem to be there are asked for in vain before a purchase is answered all the same."""

BUSY_S: Final = 0.02
"""Batches that follow each other within this time lease units in advance."""

REMEMBERED_MAX: Final = 200_000
REMEMBERED_S: Final = 60.0
"""How much of what it acknowledged a node can write again when the server has forgotten it."""

RETRY_MS: Final = 1_000
"""After how long it is worth asking again when a part of the ledger did not answer."""

Booked = m.Reserve | m.Confirm | m.Cancel | m.Refund

_REFUSALS: Final = {
    "C": Refused(Reason.CLOSED),
    "I": Refused(Reason.UNKNOWN_ITEM),
    "L": Refused(Reason.PURCHASE_LIMIT),
    "S": Refused(Reason.SOLD_OUT),
    "U": Refused(Reason.UNKNOWN_RESERVATION),
}

Row = tuple[str, str, int, str, int, int, State, int, str]
"""A record: item, buyer, quantity, key, held_at, expires_at, state, changed_at, payment."""

_row_of: Final = msgspec.msgpack.Decoder(Row).decode


def failed(error: LedgerUnavailable, now_ms: int) -> Refused:
    """What those are told whose part of a batch failed: it may have happened, or it did not."""
    reason = Reason.UNAVAILABLE if isinstance(error, LedgerRefused) else Reason.UNKNOWN
    return Refused(reason, now_ms + RETRY_MS)


class Memory:
    """What this node acknowledged in the last minute: [(when, sale, book, reservations), ...]."""

    def __init__(self) -> None:
        self.batches: deque[tuple[float, str, int, list[m.Reservation]]] = deque()
        self._count = 0

    def keep(self, sale: str, book: int, reservations: list[m.Reservation]) -> None:
        """Remember a batch, and forget what is too old or too much."""
        if not reservations:
            return
        now_s = time.monotonic()
        self.batches.append((now_s, sale, book, reservations))
        self._count += len(reservations)
        while self.batches and (self._count > REMEMBERED_MAX or self.batches[0][0] < now_s - REMEMBERED_S):
            self._count -= len(self.batches.popleft()[3])


class Decider:
    """Decides reservations and their changes, a book at a time."""

    def __init__(self, node: RedisNode) -> None:
        self._node = node
        self.memory = Memory()
        self._last_s = 0.0

    async def decide(self, sale: RedisSale, number: int, commands: Sequence[Booked]) -> list[m.Outcome]:
        """The outcomes of commands of one book, in their order.

        Raises:
            LedgerUnavailable: it failed before anything was decided. Behind what was decided, those in doubt
                are told UNKNOWN, and those that nothing was done for UNAVAILABLE.
        """
        outcomes: list[m.Outcome] = []
        try:
            await self._decide(sale, number, commands, outcomes)
        except LedgerUnavailable as error:
            if not outcomes:
                raise
            outcomes += [failed(error, self._node.now_ms)] * (len(commands) - len(outcomes))
        return outcomes

    async def _decide(
        self, sale: RedisSale, number: int, commands: Sequence[Booked], outcomes: list[m.Outcome]
    ) -> None:
        """Put the outcomes into `outcomes`, up to where an error is raised."""
        final: dict[str, tuple[int, int]] = {}
        patience, stalled = 8, 0
        now_s = time.monotonic()
        is_busy, self._last_s = len(commands) > 8 and now_s - self._last_s < BUSY_S, now_s
        while len(outcomes) < len(commands):
            rest = commands[len(outcomes) : len(outcomes) + OPS_MAX]
            try:
                decided, refused = await self._attempt(sale, number, rest, final, is_busy, stalled)
            except Moved:
                patience -= 1
                if not patience:
                    raise
                await self._node.look(sale, 0)
                continue
            outcomes += decided
            stalled = 0 if decided else stalled + 1
            if refused:  # fenced, or another epoch: again, under a new lease
                patience -= 1
                if not patience:
                    raise LedgerRefused(f"the leases of sale {sale.id!r} are refused")
                await self._node.look(sale, 0)
            elif len(decided) < len(rest):
                short = rest[len(decided)]
                assert isinstance(short, m.Reserve), "only a purchase can be short of units"
                final.pop(short.item, None)

    async def _attempt(
        self,
        sale: RedisSale,
        number: int,
        commands: Sequence[Booked],
        final: dict[str, tuple[int, int]],
        is_busy: bool,
        stalled: int,
    ) -> tuple[list[m.Outcome], bool]:
        """One call of the script: the outcomes up to where it stopped, and whether it refused the lease or epoch."""
        budgets = await self._budgets(sale, number, commands, final, is_busy, stalled)
        ops = [_OPS[type(command)](command) for command in commands]
        leases = {item: [lease, units] for item, (lease, units) in budgets.items() if units}
        try:
            reply = await self._node.book(sale, number, "decide", epoch=sale.epoch, leases=leases, final=final, ops=ops)
        except LedgerRefused:
            self._put_back(sale, budgets, {})
            raise
        except BaseException:
            for item, (lease, _) in leases.items():  # may have been spent, or still be: never used again
                if sale.shelves[item].local.lease == lease:
                    self._node.drop(sale, sale.shelves[item])
            raise
        if reply[0] == "ok":
            self._put_back(sale, budgets, {item: level[3] for item, level in reply[7].items()} if reply[7] else {})
            return self._words(sale, number, commands, reply), False
        self._put_back(sale, budgets, {})
        if reply[0] == "fenced":
            shelf = sale.shelves[reply[1]]
            if shelf.local.lease == budgets[reply[1]][0]:  # and not one that was taken meanwhile
                self._node.drop(sale, shelf, reclaim=False)
        else:
            self._node.moved(sale, reply[1])
        return [], True

    async def _budgets(
        self,
        sale: RedisSale,
        number: int,
        commands: Sequence[Booked],
        final: dict[str, tuple[int, int]],
        is_busy: bool,
        stalled: int,
    ) -> dict[str, tuple[str, int]]:
        """For each item that is asked for: the lease, and the units of it that this call may spend."""
        demand: Counter[str] = Counter()
        for command in commands:
            if type(command) is m.Reserve and command.item in sale.shelves:
                demand[command.item] += command.quantity
        shelves = [sale.shelves[item] for item in demand]
        using(shelves)
        for shelf in shelves:
            item, local = shelf.item.id, shelf.local
            short = demand[item] - local.units
            if short > 0 and item not in final and sale.free(item):
                await self._node.stock(sale, shelf, short, demand[item] * self._node.ahead if is_busy else 0)
            # What another batch of this node took meanwhile is asked for again, a few times while there is any.
            is_all = sale.free(item) <= local.units or stalled >= STALLED_MAX
            if local.units < demand[item] and item not in final and is_all:
                final[item] = await self._elsewhere(sale, number, item)
        return {shelf.item.id: (shelf.local.lease, shelf.local.take(demand[shelf.item.id])) for shelf in shelves}

    async def _elsewhere(self, sale: RedisSale, number: int, item: str) -> tuple[int, int]:
        """Units that are not sold but out of this call's reach, and what its book had released by then.

        They are with other nodes, or held in other books: these are asked, so that nobody is told "sold out"
        while a unit may still come back.
        """
        for other in range(len(sale.books)):
            if other != number:
                await self._node.look(sale, other)
        others = sum(book.levels[item][0] for other, book in enumerate(sale.books) if other != number)
        away = sale.free(item) - sale.shelves[item].local.units + sale.elsewhere(item)
        return away + others, sale.books[number].released[item]

    def _put_back(self, sale: RedisSale, budgets: dict[str, tuple[str, int]], spent: dict[str, int]) -> None:
        for item, (lease, units) in budgets.items():
            left = units - spent.get(item, 0)
            if left:
                shelf = sale.shelves[item]
                shelf.local.put(lease, left)
                self._node.lent[shelf.key] = (sale, shelf)

    def _words(self, sale: RedisSale, number: int, commands: Sequence[Booked], reply: list[Any]) -> list[m.Outcome]:
        at_ms: int = reply[1]
        outcomes: list[m.Outcome] = []
        kept: list[m.Reservation] = []
        for command, said in zip(commands, reply[8], strict=False):
            if said == 1:
                assert isinstance(command, m.Reserve), "only a purchase makes a reservation"
                row = _held(sale, command, at_ms)
                outcome: m.Outcome = m.Reserved(row)
                kept.append(row)
                if command.key:
                    sale.keys.add(command.key)
            elif isinstance(said, str):
                outcome = Refused(Reason.NOT_OPEN, sale.sale.opens_at_ms or 0) if said == "N" else _REFUSALS[said]
            elif said[0] == "H":
                outcome = Refused(Reason.ALL_HELD, said[1])
            else:
                row = m.Reservation(said[1], sale.id, *msgspec.convert(said[2], Row))
                outcome = _ABOUT[said[0]](row)
                if said[0] == "A":
                    kept.append(row)
            outcomes.append(outcome)
        self.memory.keep(sale.id, number, kept)
        return outcomes


def _held(sale: RedisSale, command: m.Reserve, at_ms: int) -> m.Reservation:
    return m.Reservation(
        command.id,
        command.sale,
        command.item,
        command.buyer,
        command.quantity,
        command.key,
        at_ms,
        at_ms + sale.sale.hold_window_ms,
        State.HELD,
        at_ms,
    )


def reservation_of(id: str, sale: str, packed: bytes) -> m.Reservation:
    """A reservation from its record in a book."""
    return m.Reservation(id, sale, *_row_of(packed))


_OPS: Final[dict[type, Callable[[Any], list[object]]]] = {
    m.Reserve: lambda of: [0, of.id, of.item, of.buyer, of.quantity, of.key],
    m.Confirm: lambda of: [1, of.id, of.payment],
    m.Cancel: lambda of: [2, of.id],
    m.Refund: lambda of: [3, of.id],
}

_ABOUT: Final[dict[str, Callable[[m.Reservation], m.Outcome]]] = {
    "R": lambda row: m.Reserved(row, replayed=True),
    "K": lambda row: Refused(Reason.KEY_REUSED, reservation=row),
    "A": m.Changed,
    "B": lambda row: m.Changed(row, repeated=True),
    "W": lambda row: Refused(Reason.WRONG_STATE, reservation=row),
}
