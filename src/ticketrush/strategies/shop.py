"""Order-first and pay-first: when the stock is touched, and what a buyer is told at which moment."""

from __future__ import annotations

import enum
from typing import ClassVar, Final, Protocol

from ticketrush.strategies.store import Order, OrderState, Store


class Told(enum.StrEnum):
    """What a buyer is told; the refusals are named as in the product's HTTP API."""

    SUCCESS = "success"
    SUCCESS_BEFORE = "success_before"
    SOLD_OUT = "sold_out"
    ALL_HELD = "all_held"
    PAID = "paid"
    REFUNDED = "payment_refunded"
    UNKNOWN_ORDER = "unknown_order"


_OF_PAYMENT: Final = {OrderState.PAID: Told.PAID, OrderState.REFUNDED: Told.REFUNDED}


class Strategy(Protocol):
    """One way to deduct stock. `name` is how it is known."""

    name: ClassVar[str]

    async def order(self, order: Order) -> Told:
        """A buyer orders a unit."""
        ...

    async def pay(self, order: Order) -> Told:
        """A buyer pays for an order."""
        ...


class OrderFirst:
    """Order and stock change together when ordering; paying changes the order alone.

    Who is told success can pay. An order that is never paid keeps its unit, as in the articles: so
    while there are such orders, nobody can be told for certain that all is sold.
    """

    name: ClassVar[str] = "order-first"

    def __init__(self, store: Store) -> None:
        self._store = store

    async def order(self, order: Order) -> Told:
        """See `Strategy.order`. Losers cost a read without a lock."""
        look = await self._store.look(order.id)
        if look.state is not None:
            return Told.SUCCESS_BEFORE
        if look.available and await self._store.place_and_take(order):
            return Told.SUCCESS
        return Told.ALL_HELD if look.unpaid or look.available else Told.SOLD_OUT

    async def pay(self, order: Order) -> Told:
        """See `Strategy.pay`."""
        state = await self._store.pay(order)
        return _OF_PAYMENT[state] if state else Told.UNKNOWN_ORDER


class PayFirst:
    """An order changes no stock; paying takes a unit, if one is left.

    Nothing is left over. But everybody who orders before the last payment is told success, and many
    of them cannot pay any more.
    """

    name: ClassVar[str] = "pay-first"

    def __init__(self, store: Store) -> None:
        self._store = store

    async def order(self, order: Order) -> Told:
        """See `Strategy.order`. Nothing is accepted any more once the last unit is paid."""
        look = await self._store.look(order.id)
        if look.state is not None:
            return Told.SUCCESS_BEFORE
        if not look.available:
            return Told.SOLD_OUT
        await self._store.place(order)
        return Told.SUCCESS

    async def pay(self, order: Order) -> Told:
        """See `Strategy.pay`. The money is given back when no unit is left."""
        state = await self._store.pay_and_take(order)
        return _OF_PAYMENT[state] if state else Told.UNKNOWN_ORDER


STRATEGIES: Final[dict[str, type[OrderFirst | PayFirst]]] = {kind.name: kind for kind in (OrderFirst, PayFirst)}
"""Those that are small servers of their own, by name."""
