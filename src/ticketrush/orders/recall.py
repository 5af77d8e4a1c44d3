"""What the order store knows of reservations: the second source when a ledger has forgotten some.

The store is behind the ledger, so what it says is never more than what happened: what was held, or was paid
or ended since, was told to a buyer. The ledger compares, and is right wherever it knows as much.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from ticketrush import model as m
from ticketrush.orders.model import Order, OrderState
from ticketrush.orders.protocol import OrderStore

PAGE: Final = 1_000


async def recall(store: OrderStore) -> AsyncIterator[list[m.Reservation]]:
    """All reservations that the store knows enough of, a page at a time, in the order in which it heard of them.

    Raises:
        StoreUnavailable: it did not answer; begin again.
    """
    after = 0
    while page := await store.page(after, PAGE):
        yield [row for row in map(reservation_of, page) if row is not None]
        after = page[-1].number


def reservation_of(order: Order) -> m.Reservation | None:
    """The reservation of an order; None if something that was before is not known yet."""
    claim = order.claim
    if claim is None or order.held_at_ms is None or order.state is OrderState.INCOMPLETE:
        return None
    times = order.paid_at_ms, order.cancelled_at_ms, order.expired_at_ms, order.refunded_at_ms
    return m.Reservation(
        order.id,
        claim.sale,
        claim.item,
        claim.buyer,
        claim.quantity,
        claim.key,
        order.held_at_ms,
        claim.expires_at_ms,
        m.State(order.state.value),
        max((at_ms for at_ms in times if at_ms is not None), default=order.held_at_ms),
        order.payment,
    )
