"""Reserve-first: ticketrush itself as it is served, and what its database was asked to do."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Final

from ticketrush import processes
from ticketrush.cluster.nodes import Node
from ticketrush.crowd.operator import Operator
from ticketrush.orders.model import OrderState
from ticketrush.strategies.errors import StrategyError
from ticketrush.strategies.store import ITEM, Books
from ticketrush.wiring import make_tables, store_of

RESERVE_FIRST: Final = "reserve-first"
SALE: Final = "strategies"
CATCH_UP_S: Final = 30.0
"""How long the order worker may take, after the crowd has gone, until every sale is an order."""

_LOOK_S: Final = 0.5
_BATCHES: Final = re.compile(r"^ticketrush_batches_total (\S+)$", re.MULTILINE)


def product_node(folder: Path, name: str, *, orders: str) -> Node:
    """A node with a journal of its own in `folder`, and an order worker if `orders` is the URL of a database for it.

    Raises:
        StoreUnavailable: the database does not answer.
    """
    env = processes.plain_environment()
    if orders:
        asyncio.run(make_tables(orders))
        env["TICKETRUSH_ORDERS"] = orders  # it may have a password in it, which arguments would show to others
    return Node(name, folder, ["--open", "--ledger", f"sqlite:///{folder / name}.db"], env)


class Product:
    """A running node with the sale open; it counts the commits of its journal itself, and PostgreSQL its own."""

    def __init__(self, node: Node, tickets: int, hold_s: float, *, orders: str) -> None:
        self.url = node.url
        self._node, self._orders = node, orders
        self._operator = Operator([node.url], b"", "")
        self._operator.open_sale(SALE, ITEM, tickets, 1, hold_s)
        self._before = self._commits()

    def books(self) -> Books:
        """See `Rival.books`. With an order store every sale must have become an order."""
        level = self._operator.level(SALE)
        transactions = self._commits() - self._before
        if self._orders:
            asyncio.run(self._wait_for_orders(level.sold))
            self._node.stop()
            transactions += asyncio.run(_transactions(self._orders))
        return Books(level.sold, transactions, level.held)

    def close(self) -> None:
        """Let the node go; who has started it stops it."""
        self._operator.close()

    def _commits(self) -> int:
        found = _BATCHES.search(self._operator.ask("GET", "/metrics").decode())
        if found is None:
            raise StrategyError(f"{self._node.name} does not tell ticketrush_batches_total at {self.url}/metrics")
        return int(float(found[1]))

    async def _wait_for_orders(self, sold: int) -> None:
        store = store_of(self._orders)
        try:
            await store.open()
            give_up_s = time.monotonic() + CATCH_UP_S
            while (paid := sum(of.orders for of in await store.totals() if of.state is OrderState.PAID)) < sold:
                if time.monotonic() > give_up_s:
                    raise StrategyError(
                        f"{paid:,} of {sold:,} sales are paid orders {CATCH_UP_S:g} s after the last one"
                    )
                await asyncio.sleep(_LOOK_S)
        finally:
            await store.close()


async def _transactions(url: str) -> int:
    from ticketrush.strategies.databases import transactions  # noqa: PLC0415 - an extra, not always installed

    return await transactions(url)
