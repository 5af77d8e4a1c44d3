"""The recovery of `redis_recovery`, done because an operator asks for it, with the levels before and after.

A process that was started for it has acknowledged nothing itself. What others know, such as the order
store, it is told before (`remind`), and the recovery writes that again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from ticketrush import model as m
from ticketrush.audit import Units
from ticketrush.ids import DRAWN
from ticketrush.ledger.redis_node import RedisNode
from ticketrush.ledger.redis_reads import Reads
from ticketrush.ledger.redis_recovery import Recovery, wall_ms
from ticketrush.ledger.redis_sale import ROUTE, RedisSale


class Reconciled(msgspec.Struct, frozen=True):
    """One item: its units as the server had them before and after, and how many leases ended."""

    sale: str
    item: str
    leases: int
    before: Units
    after: Units

    @property
    def is_oversold(self) -> bool:
        """Whether more is taken than there is."""
        return self.after.held + self.after.sold > self.after.capacity


class Report(msgspec.Struct, frozen=True):
    """What a reconciliation found, and did.

    ``restored`` reservations were written again, ``lost`` ones (ids) had no place any more.
    """

    restored: int
    lost: list[str]
    sales: int
    seconds: float
    items: list[Reconciled]

    @property
    def is_well(self) -> bool:
        """Whether nothing is lost and nothing is oversold."""
        return not self.lost and not any(item.is_oversold for item in self.items)


class Reminded(msgspec.Struct):
    """What became of reservations that were told: how many the ledger lacks, and those it has no place for."""

    lacking: int = 0
    placeless: list[m.Reservation] = msgspec.field(default_factory=list)


async def remind(node: RedisNode, recovery: Recovery, rows: Sequence[m.Reservation]) -> Reminded:
    """Take reservations that buyers were told of, to be written again by `reconcile`.

    Kept are those that the ledger does not know or knows less of, about 700 bytes each.

    Raises:
        LedgerUnavailable: the server does not answer; begin again.
    """
    reminded = Reminded()
    placed: defaultdict[str, list[m.Reservation]] = defaultdict(list)
    for row in rows:
        sale = node.sales.get(row.sale)
        if sale is None or not _has_place(sale, row):
            reminded.placeless.append(row)
        else:
            placed[row.sale].append(row)
            node.heard(row.changed_at_ms, 0)
    for id, told in placed.items():
        reminded.lacking += await recovery.restorer.tell(node.sales[id], told, wall_ms())
    return reminded


def _has_place(sale: RedisSale, row: m.Reservation) -> bool:
    """Whether the sale has the item, and the reservation would be found again where it would be written.

    A sale that was created anew may have other items, or another number in its reservations' ids.
    """
    drawn, dash, route = row.id.rpartition(ROUTE)
    leads_here = not dash or len(drawn) != DRAWN or dash + route == sale.routes[sale.book_of(row.buyer)]
    return leads_here and row.item in sale.shelves


async def reconcile(node: RedisNode, reads: Reads, recovery: Recovery, identity: str) -> Report:
    """Fence, restore, build and open every sale that is on the server `identity`.

    Raises:
        LedgerUnavailable: the server went away meanwhile; run it again.
    """
    node.now_ms = wall_ms()
    sales = list(node.sales.values())
    before = {sale.id: await reads.levels(sale) for sale in sales}
    leases = {(sale.id, item): await _leases(node, sale, item) for sale in sales for item in sale.shelves}
    found = await recovery.run(identity, always=True)
    await recovery.roll.leave()
    items = []
    for sale in sales:
        after = await reads.levels(sale)
        items += [
            Reconciled(sale.id, item, leases[sale.id, item], before[sale.id][item], after[item])
            for item in sale.shelves
        ]
    return Report(found.restored, found.lost, found.sales, found.seconds, items)


async def _leases(node: RedisNode, sale: RedisSale, item: str) -> int:
    fields = await node.command("hkeys", sale.shelves[item].key)
    return sum(field.startswith(b"granted ") for field in fields)
