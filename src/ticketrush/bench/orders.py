"""How many orders a store takes in: what its order worker could write, with nothing else in the way."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Final

from ticketrush.bench.target import ITEM, SALE
from ticketrush.ids import Ids
from ticketrush.orders.model import Claim, Kind, Notice
from ticketrush.orders.protocol import OrderStore
from ticketrush.orders.worker import BATCH_MAX

PAID_AFTER: Final = 10_000
"""Orders that are held between an order's being held and its being paid."""

BUYERS: Final = 200_000
_AT_MS: Final = 1_700_000_000_000
_HOLD_MS: Final = 300_000


async def orders_per_s(
    store: OrderStore, orders: int, *, batch: int = BATCH_MAX, paid_after: int = PAID_AFTER, first: int = 0
) -> float:
    """Write `orders` new orders, each of them held and then paid, into an open store; how many a second.

    `paid_after` 0 tells both of an order at once. `first` is the number of the first one, so that a store can be
    measured again. Every batch is durable before the next one is made; making it is counted, as a worker has to
    make it too.

    Raises:
        StoreUnavailable: the store did not answer.
    """
    notices = _notices(first, orders, paid_after)
    began_s = time.perf_counter()
    while part := [notice for notice, _ in zip(notices, range(batch), strict=False)]:
        await store.put(part)
    return orders / (time.perf_counter() - began_s)


def _notices(first: int, orders: int, paid_after: int) -> Iterator[Notice]:
    """Ids drawn as a ledger draws them."""
    ids, held = Ids(), deque[str]()
    for number in range(first, first + orders + paid_after):
        if number < first + orders:
            held.append(ids.draw())
            yield _held(number, held[-1])
        if number - paid_after >= first:
            yield _paid(number - paid_after, held.popleft())


def _held(number: int, id: str) -> Notice:
    at_ms = _AT_MS + number
    claim = Claim(
        SALE, ITEM, f"buyer-{number * 7_919 % BUYERS:07d}", 1, at_ms + _HOLD_MS, 55_300, "CNY", f"{number:032x}"
    )
    return Notice(id, Kind.HELD, at_ms, claim)


def _paid(number: int, id: str) -> Notice:
    return Notice(id, Kind.PAID, _AT_MS + number + 1_000, payment=f"pay-{number:012d}")
