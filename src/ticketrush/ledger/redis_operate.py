"""What an operator asks of the ledger: sales are made, opened, closed and given more units.

A sale is made in steps: its place among the sales; its books, the first one last; the stock of each
item; and a mark in the first book that the stocks are made. With the first book the sale is there, and
all its books are. Whoever makes it may die between any two steps: the same sale again goes on, with the
books that were stored. A stock is made only while that mark is missing and no recovery has built it, so
that one which is lost is never made as if nothing had been sold.
"""

from __future__ import annotations

import contextlib
from typing import Final, NamedTuple

from ticketrush import model as m
from ticketrush.errors import LedgerUnavailable
from ticketrush.ledger.redis_node import Moved, RedisNode
from ticketrush.ledger.redis_sale import NUMBERS, SALES, RedisSale, blob_of, definition, meta_of
from ticketrush.model import Reason, Refused

_UNKNOWN_SALE: Final = Refused(Reason.UNKNOWN_SALE)

_NOT_ADDED: Final = {
    "unknown_item": Reason.UNKNOWN_ITEM,
    "reused": Reason.KEY_REUSED,
    "limit": Reason.LIMIT_EXCEEDED,
}


class Stored(NamedTuple):
    """What the first book says of how its sale was made."""

    blob: bytes
    number: int
    epoch: int
    is_stocked: bool


class Operator:
    """Changes sales as a whole, for one node."""

    def __init__(self, node: RedisNode) -> None:
        self._node = node

    # --- making -----------------------------------------------------------------------------

    async def create(self, command: m.CreateSale) -> m.Outcome:
        """Make a sale, or what is missing of one that was made half."""
        wanted = command.sale
        stored = await self._stored(wanted.id)
        is_new = stored is None
        if stored is None:
            refused = await self._make_books(wanted)
            if refused is not None:
                return refused
            stored = await self._stored(wanted.id)  # another node may have been the first, with other books
        sale = await self._node.known(wanted.id)
        if stored is None or sale is None:
            raise LedgerUnavailable(f"{self._node.link.shown} has forgotten sale {wanted.id!r}")
        if stored.blob != blob_of(wanted):
            return Refused(Reason.SALE_EXISTS)
        await self._node.command("hsetnx", SALES, wanted.id, stored.number)
        if not stored.is_stocked and stored.epoch == 1:
            await self._make_stocks(sale)
        return m.SaleChanged(sale.sale, repeated=not is_new)

    async def _stored(self, id: str) -> Stored | None:
        fields = ("created", "number", "epoch", "stocked")
        blob, number, epoch, stocked = await self._node.command("hmget", meta_of(id), fields)
        return None if blob is None else Stored(blob, int(number), int(epoch), stocked is not None)

    async def _make_books(self, wanted: m.Sale) -> Refused | None:
        number = await self._number(wanted.id)
        if number is None:
            return Refused(Reason.LIMIT_EXCEEDED)
        made = RedisSale(wanted, number, self._node.shards, self._node.name)
        asks = definition(made, epoch=1, whole=1)
        status = ""
        for book in (*range(1, len(made.books)), 0):  # the first book last: with it the sale is there, and whole
            status, *_ = await self._node.book(made, book, "sale", blob_of(wanted), silent=book > 0, **asks)
            if status == "exists":  # somebody is making, or has made, another sale of this name
                await self._node.known(wanted.id)
                return Refused(Reason.SALE_EXISTS)
        if status == "ok" and wanted.id not in self._node.sales:
            self._node.add(made)  # and not read anew: this node knows all of its events
        return None

    async def _number(self, id: str) -> int | None:
        """The place of a sale among all sales, which it gets if it has none; None if there are too many."""
        numbers: dict[bytes, bytes] = await self._node.command("hgetall", SALES)
        if id.encode() not in numbers:
            if len(numbers) >= m.SALES_MAX:
                return None
            taken = {int(number) for number in numbers.values()}  # after a loss the counter may be behind
            number = await self._node.command("incr", NUMBERS)
            while number in taken:
                number = await self._node.command("incr", NUMBERS)
            await self._node.command("hsetnx", SALES, id, number)
        return int(await self._node.command("hget", SALES, id))

    async def _make_stocks(self, sale: RedisSale) -> None:
        with contextlib.suppress(Moved):  # a recovery has begun meanwhile, and builds them
            for shelf in sale.shelves.values():
                await self._node.stock(sale, shelf, make=True)
            await self._node.command("hset", meta_of(sale.id), "stocked", 1)

    # --- changing ---------------------------------------------------------------------------

    async def schedule(self, command: m.OpenSale | m.CloseSale) -> m.Outcome:
        """Open or close a sale.

        The first book decides; the others get a copy, with the clock of when it was read there: an older
        copy, of another node that was slow, does not overwrite a newer one.
        """
        sale = await self._node.sale(command.sale)
        if sale is None:
            return _UNKNOWN_SALE
        others = range(1, len(sale.books))
        op = "open" if isinstance(command, m.OpenSale) else "close"
        if op == "close":  # nobody buys any more when the event says so
            for number in others:
                await self._node.book(sale, number, "sale", op=op, silent=True)
        reply = await self._node.book(sale, 0, "sale", op=op, silent=False)
        found = await self._node.look(sale, 0)
        _, opens, closes, *_ = found[8]
        for number in others:
            await self._node.book(sale, number, "sale", op="copy", silent=True, at=found[2], opens=opens, closes=closes)
        return m.SaleChanged(sale.sale, repeated=reply[0] == "repeated")

    async def add(self, command: m.AddStock) -> m.Outcome:
        """Add units to an item, once for each key."""
        sale = await self._node.sale(command.sale)
        if sale is None:
            return _UNKNOWN_SALE
        reply = await self._node.book(
            sale,
            0,
            "sale",
            op="add",
            silent=False,
            item=command.item,
            units=command.units,
            id=command.key,
            most=m.CAPACITY_MAX,
        )
        status = reply[0]
        if status in {"ok", "repeated"}:
            self._node.added.append(command)
            await self._node.look(sale, 0)
            await self._node.stock(sale, sale.shelves[command.item])
            return m.SaleChanged(sale.sale, repeated=status == "repeated")
        return Refused(_NOT_ADDED[status])
