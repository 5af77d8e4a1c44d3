"""The recovery of `redis_recovery`, done because an operator asks for it, with the levels before and after."""

from __future__ import annotations

import msgspec

from ticketrush.audit import Units
from ticketrush.ledger.redis_node import RedisNode
from ticketrush.ledger.redis_reads import Reads
from ticketrush.ledger.redis_recovery import Recovery
from ticketrush.ledger.redis_sale import RedisSale


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


async def reconcile(node: RedisNode, reads: Reads, recovery: Recovery, identity: str) -> Report:
    """Fence, restore, build and open every sale that is on the server `identity`.

    Raises:
        LedgerUnavailable: the server went away meanwhile; run it again.
    """
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
