"""After a failover or a restart: the ledger is made whole before anybody buys.

A server that comes back, or another in its place, may have forgotten the last of what it was told:
reservations that buyers were told of, and units that nodes had leased. So, for every sale:

1. *Fence*: raise the epoch of every book and mark it "restoring": no lease of before can be spent.
2. *Restore*: each node writes again, with the same ids, what it acknowledged in the last minute and
   the books have forgotten. What finds no room is tried again when all nodes have restored; what has
   no place then is reported, never papered over.
3. *Build*: when every living node has restored (or a few seconds have passed), one of them raises the
   epoch again, reads what is taken, and builds the stock of each item as capacity less what is taken.
4. *Open*: the books sell again, under new leases.

Every step may be repeated, and any node may die between any two (the property test
tests/property/lease_model.py explores it).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from ticketrush import logs
from ticketrush import model as m
from ticketrush.errors import LedgerUnavailable
from ticketrush.ledger.redis_decide import Memory
from ticketrush.ledger.redis_node import RedisNode
from ticketrush.ledger.redis_reaper import Reaper
from ticketrush.ledger.redis_sale import PREFIX, SALES, RedisSale, blob_of, definition

NODES: Final = PREFIX + "nodes"
"""Hash: node -> "identity of the server/steps of restoring that are done, when it was last heard of"."""

RESTORING: Final = PREFIX + "restoring"
"""Key: the node that writes again now; it ends by itself if that node dies."""

RESTORING_MS: Final = 2_000
RESTORING_TRIES: Final = 500

FORGET_S: Final = 600

ALIVE_MS: Final = 5_000
WAIT_S: Final = 3.0
"""How long the building waits for nodes that have not restored yet."""

_TAKING: Final = (m.State.HELD, m.State.PAID)

ROWS_AT_ONCE: Final = 500

log = logs.get("ticketrush.ledger.redis")


class Found(msgspec.Struct):
    """What a recovery did: reservations written again, and those that buyers were told of and that are lost."""

    restored: int = 0
    lost: list[str] = msgspec.field(default_factory=list)
    sales: int = 0
    seconds: float = 0.0


class Recovery:
    """Makes the ledger whole again, for one node."""

    def __init__(self, node: RedisNode, memory: Memory, reaper: Reaper) -> None:
        self._node, self._memory, self._reaper = node, memory, reaper
        self.identity = ""
        """The server that this node has last seen whole."""
        self.found = Found()

    async def announce(self, identity: str = "", step: int = 2) -> None:
        """Say that this node lives, and how far it has restored on which server."""
        seconds, micros = await self._node.command("time")
        said = f"{identity or self.identity}/{step} {seconds * 1_000 + micros // 1_000}"
        await self._node.command("hset", NODES, self._node.name, said)

    async def forget_the_dead(self) -> None:
        """Strike out nodes that have not been heard of for a long time."""
        seconds, _ = await self._node.command("time")
        said = await self._node.command("hgetall", NODES)
        long_gone = [
            name for name, words in said.items() if int(words.rpartition(b" ")[2]) < (seconds - FORGET_S) * 1_000
        ]
        if long_gone:
            await self._node.command("hdel", NODES, *long_gone)

    async def leave(self) -> None:
        """This node is about to stop: nobody need wait for it."""
        await self._node.command("hdel", NODES, self._node.name)

    async def run(self, identity: str) -> Found:
        """Make every sale whole on the server `identity`, and sell again.

        Raises:
            LedgerUnavailable: the server went away meanwhile; run it again.
        """
        began_s, self.found = time.monotonic(), Found()
        sales = list(self._node.sales.values())
        refused = {}
        for sale in sales:
            await self._fence(sale)
            refused[sale.id] = await self._restore(sale, self._remembered(sale))
        await self._meet(identity, 1)
        for sale in sales:  # what others have restored, and what has fallen due unpaid, may have made room
            await self._expire(sale)
            lost = await self._restore(sale, refused[sale.id])
            self.found.lost += [row.id for rows in lost.values() for row in rows]
        await self._meet(identity, 2)
        for sale in sales:
            await self._build(sale)
        self.identity = identity
        self.found.sales = len(self._node.sales)
        self.found.seconds = round(time.monotonic() - began_s, 3)
        log.warning(
            "ledger_made_whole",
            restored=self.found.restored,
            lost=len(self.found.lost),
            lost_ids=self.found.lost[:20],
            seconds=self.found.seconds,
        )
        return self.found

    async def mend(self, sale: RedisSale) -> None:
        """A sale whose stock is of another epoch than its books, or is missing: a node died on the way. Go on."""
        epoch, _ = await self._progress(sale, 0)
        if epoch != sale.epoch:
            self._node.moved(sale, epoch)
        built = [await self._node.command("hget", shelf.key, "epoch") for shelf in sale.shelves.values()]
        is_sound = all(each is not None and int(each) == epoch for each in built) and await self._is_open(sale)
        if not is_sound and await self._reaper.is_due():
            await self._build_it(sale)
            self._node.moved(sale, (await self._progress(sale, 0))[0])

    # --- fence ------------------------------------------------------------------------------

    async def _fence(self, sale: RedisSale) -> None:
        for number, book in enumerate(sale.books):
            book.seq = book.known_seq = 0  # the server may know less than it did
            book.read_to = "0-0"
            epoch, whole = await self._progress(sale, number)
            if whole is None:
                await self._make_again(sale, number)
            elif whole != "0":
                await self._take(sale, number, max(epoch, sale.epoch) + 1, 0)
        self._node.moved(sale, (await self._progress(sale, 0))[0])

    async def _progress(self, sale: RedisSale, number: int) -> tuple[int, str | None]:
        """A book's epoch, and how far its recovery is; None if the book is forgotten."""
        epoch, whole = await self._node.command("hmget", sale.books[number].meta, "epoch", "whole")
        return (0, None) if epoch is None else (int(epoch), whole.decode())

    async def _take(self, sale: RedisSale, number: int, epoch: int, whole: int) -> bool:
        """Take a book to an epoch; False if it is further already."""
        reply = await self._node.book(sale, number, "book_epoch", epoch=epoch, whole=whole, items=list(sale.shelves))
        return bool(reply[0] == "ok")

    async def _make_again(self, sale: RedisSale, number: int) -> None:
        """The server has forgotten the book altogether, or the whole sale: as it was when this node last knew it."""
        of = sale.created
        asks = definition(sale, epoch=sale.epoch + 1, whole=0)
        await self._node.book(sale, number, "sale", blob_of(of), silent=number > 0, **asks)
        opens, closes = sale.sale.opens_at_ms, sale.sale.closes_at_ms
        if (opens, closes) != (of.opens_at_ms, of.closes_at_ms):
            await self._node.book(sale, number, "sale", op="copy", silent=number > 0, opens=opens, closes=closes)
        if number == 0:
            await self._node.command("hset", SALES, sale.id, sale.number)
            for item in of.items:
                more = sale.shelves[item.id].capacity - item.capacity
                if more > 0:
                    await self._node.book(
                        sale, 0, "sale", op="add", silent=False, item=item.id, units=more, id="restored", most=2**52
                    )

    # --- restore ----------------------------------------------------------------------------

    def _remembered(self, sale: RedisSale) -> dict[int, list[m.Reservation]]:
        """For each book what this node acknowledged, as last acknowledged; first what gives units back."""
        newest: dict[int, dict[str, m.Reservation]] = {}
        for _, id, number, reservations in self._memory.batches:
            if id == sale.id:
                newest.setdefault(number, {}).update((each.id, each) for each in reservations)
        return {
            number: sorted(told.values(), key=lambda row: (row.state in _TAKING, row.expires_at_ms))
            for number, told in newest.items()
        }

    async def _restore(self, sale: RedisSale, told: dict[int, list[m.Reservation]]) -> dict[int, list[m.Reservation]]:
        """Write again what is missing; returns what had no place."""
        refused: dict[int, list[m.Reservation]] = {}
        for number, rows in told.items():
            for first in range(0, len(rows), ROWS_AT_ONCE):
                left = await self._write(sale, number, rows[first : first + ROWS_AT_ONCE])
                if left:
                    refused.setdefault(number, []).extend(left)
        return refused

    async def _expire(self, sale: RedisSale) -> None:
        for number in range(len(sale.books)):
            while (await self._node.book(sale, number, "expire", most=ROWS_AT_ONCE, due_by=wall_ms()))[8]:
                pass

    async def _write(self, sale: RedisSale, number: int, rows: list[m.Reservation]) -> list[m.Reservation]:
        for _ in range(3):
            async with self._alone():
                for book in range(len(sale.books)):
                    await self._node.look(sale, book)
                others = [book for each, book in enumerate(sale.books) if each != number]
                room = {
                    item: shelf.capacity - sum(sum(book.levels[item]) for book in others)
                    for item, shelf in sale.shelves.items()
                }
                reply = await self._node.book(
                    sale, number, "restore", room=room, rows=[[row.id, _record(row)] for row in rows]
                )
            if reply[0] == "ok":
                self.found.restored += sum(outcome == 1 for outcome in reply[8])
                return [row for row, said in zip(rows, reply[8], strict=True) if said == -1]
            if not await self._are_missing(sale, number, rows):
                return []
            await self._fence(sale)  # it was opened without us, and we have something to add
        raise LedgerUnavailable(f"sale {sale.id!r} is opened again and again while it is being restored")

    @contextlib.asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """One node at a time restores: what it has read of the other books is still so when it writes."""
        me = self._node.name
        for _ in range(RESTORING_TRIES):
            if await self._node.command("set", RESTORING, me, None, RESTORING_MS, True):
                break
            await asyncio.sleep(0.02)
        else:
            raise LedgerUnavailable("other nodes have been restoring for too long")
        try:
            yield
        finally:
            await self._node.command("delete", RESTORING)

    async def _are_missing(self, sale: RedisSale, number: int, rows: list[m.Reservation]) -> bool:
        found = await self._node.command("hmget", sale.books[number].records, [row.id for row in rows])
        return None in found

    # --- build ------------------------------------------------------------------------------

    async def _meet(self, identity: str, step: int) -> None:
        """Say that this step is done, and wait until all living nodes have done it, or for `WAIT_S`."""
        await self.announce(identity, step)
        done = {f"{identity}/{each}" for each in range(step, 3)}
        until_s = time.monotonic() + WAIT_S
        while time.monotonic() < until_s:
            seconds, micros = await self._node.command("time")
            now_ms = seconds * 1_000 + micros // 1_000
            said = [value.decode().rpartition(" ") for value in (await self._node.command("hvals", NODES))]
            if all(whole_on in done or int(at_ms) < now_ms - ALIVE_MS for whole_on, _, at_ms in said):
                return
            await asyncio.sleep(0.05)

    async def _build(self, sale: RedisSale) -> None:
        """Build the stock, or see another node do it."""
        until_s = time.monotonic() + WAIT_S
        while not await self._is_open(sale):
            if await self._reaper.is_due() or time.monotonic() > until_s:
                await self._build_it(sale)
            else:
                await asyncio.sleep(0.05)
        self._node.moved(sale, (await self._progress(sale, 0))[0])
        for number in range(len(sale.books)):
            await self._node.look(sale, number)
        await self._node.stocks(sale)

    async def _is_open(self, sale: RedisSale) -> bool:
        books: list[Any] = [await self._progress(sale, number) for number in range(len(sale.books))]
        return all(book[1] == "1" and book[0] == books[0][0] for book in books)

    async def _build_it(self, sale: RedisSale) -> None:
        epoch = 1 + max([(await self._progress(sale, number))[0] for number in range(len(sale.books))])
        for number in range(len(sale.books)):
            if not await self._take(sale, number, epoch, 2):
                return  # another node is ahead
        for item, shelf in sale.shelves.items():
            taken = sum(sum(book.levels[item]) for book in sale.books)
            ask = self._node.ask(
                sale.id,
                epoch=epoch,
                capacity=shelf.capacity,
                taken=taken,
                released={str(number): total for number, total in sale.released(item).items()},
            )
            left = await self._node.link.run("stock_build", (shelf.key,), ask | {"now": self._node.seen_ms}, keep=True)
            if left is not None and left < 0:
                log.error("oversold", sale=sale.id, item=item, units=-left)
        for number in reversed(range(len(sale.books))):  # the first book, which all look at, last
            await self._take(sale, number, epoch, 1)


def wall_ms() -> int:
    """The time by which holds have fallen due."""
    return int(time.time() * 1_000)


def _record(row: m.Reservation) -> list[object]:
    return [
        row.item,
        row.buyer,
        row.quantity,
        row.key,
        row.held_at_ms,
        row.expires_at_ms,
        row.state.value,
        row.changed_at_ms,
        row.payment,
    ]
