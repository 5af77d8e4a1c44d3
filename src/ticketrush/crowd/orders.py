"""The orders that came of a rush: waited for, then read out of their store for the auditor."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from ticketrush.audit import OrderRecord
from ticketrush.crowd.errors import CrowdError, OptionError
from ticketrush.events import AnyEvent, Cancelled, Expired, Held, Paid, Refunded
from ticketrush.orders.errors import StoreUnavailable
from ticketrush.orders.model import Order
from ticketrush.orders.protocol import OrderStore
from ticketrush.settings import without_password
from ticketrush.wiring import store_of

DRAIN_S: Final = 30.0
"""How long orders may take to arrive after the last reservation has ended."""

LOOK_S: Final = 0.05
PAGE: Final = 5_000

_STATES: Final[dict[type, str]] = {
    Held: "held",
    Paid: "paid",
    Cancelled: "cancelled",
    Expired: "expired",
    Refunded: "refunded",
}


class Orders(msgspec.Struct, frozen=True):
    """What the store has, and how many seconds after the sale all of it was there; None if it never was."""

    records: list[OrderRecord]
    drained_s: float | None


def check_empty(url: str) -> None:
    """See that nobody's orders are in the store at `url`: they would be audited, and stay there for ever.

    Raises:
        OptionError: there are some.
        CrowdError: the store does not answer.
    """
    if asyncio.run(_has_orders(url)):
        raise OptionError(f"there are orders in {without_password(url)} already: name an empty store, or `postgres`")


async def _has_orders(url: str) -> bool:
    store = store_of(url)
    try:
        await store.open()
        return bool(await store.page(0, 1))
    except StoreUnavailable as error:
        raise CrowdError(f"the orders cannot be read: {error}") from error
    finally:
        await store.close()


def orders_of(url: str, events: Sequence[AnyEvent]) -> Orders:
    """All orders of the store at `url`, once they are as `events` want them, or after `DRAIN_S`.

    Raises:
        CrowdError: the store does not answer.
    """
    return asyncio.run(_orders_of(url, events))


async def _orders_of(url: str, events: Sequence[AnyEvent]) -> Orders:
    store = store_of(url)
    try:
        await store.open()
        drained_s = await _wait(store, _wanted(events))
        records: list[OrderRecord] = []
        after = 0
        while page := await store.page(after, PAGE):
            records += map(_record, page)
            after = page[-1].number
        return Orders(records, drained_s)
    except StoreUnavailable as error:
        raise CrowdError(f"the orders cannot be read: {error}") from error
    finally:
        await store.close()


def _wanted(events: Sequence[AnyEvent]) -> Counter[str]:
    """How many orders there must be in each state."""
    states = {event.id: _STATES[type(event)] for event in events if isinstance(event, tuple(_STATES))}  # type: ignore[union-attr]
    return Counter(states.values())


async def _wait(store: OrderStore, wanted: Counter[str]) -> float | None:
    began_s = time.monotonic()
    while (waited_s := time.monotonic() - began_s) < DRAIN_S:
        found: Counter[str] = Counter()
        for total in await store.totals():
            found[total.state.value] += total.orders
        if found == wanted:
            return round(waited_s, 3)
        await asyncio.sleep(LOOK_S)
    return None


def _record(order: Order) -> OrderRecord:
    claim = order.claim
    if claim is None:
        return OrderRecord(order.id, order.state.value, "", "", "", 0)
    return OrderRecord(order.id, order.state.value, claim.sale, claim.item, claim.buyer, claim.quantity)
