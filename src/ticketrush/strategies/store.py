"""What a database is asked to do. A strategy is which of these transactions it asks for, and at which moment."""

from __future__ import annotations

import enum
from typing import Final, NamedTuple, Protocol

ITEM: Final = "second"
"""The one item that is sold."""

DATABASE_AT: Final = "TICKETRUSH_STRATEGIES_DATABASE_AT"
"""The variable that tells a small server the file or the URL of its database, which may have a password in it."""

WAIT_S: Final = 5.0
"""How long a request may wait for the database, its connections and its locks together."""


class OrderState(enum.StrEnum):
    """UNPAID → PAID, or UNPAID → REFUNDED if no unit was left when the payment came."""

    UNPAID = "unpaid"
    PAID = "paid"
    REFUNDED = "refunded"


class Order(NamedTuple):
    """An order of one unit. The id is made of buyer and key, so a request sent twice is one order."""

    id: str
    buyer: str


class Look(NamedTuple):
    """The stock, and how the order that was asked about stands; None if there is no such order.

    `unpaid` says whether any order at all still waits for its payment.
    """

    available: int
    unpaid: bool
    state: OrderState | None


class Books(NamedTuple):
    """What is in the database at the end; `transactions` it has committed, those that only read too.

    `held` units come back if they are not paid; only reserve-first has any.
    """

    paid: int
    transactions: int
    held: int = 0


class Store(Protocol):
    """Stock of one item, and its orders. What changes anything does so in one durable transaction.

    All of them raise StoreBusy when the database does not answer within `WAIT_S`.
    """

    async def open(self, capacity: int) -> None:
        """Make the tables, with `capacity` units for sale."""
        ...

    async def close(self) -> Books:
        """Let the database go; what it holds, and how many transactions it took since `open`."""
        ...

    async def look(self, id: str) -> Look:
        """Read the stock without a lock, and the order `id`."""
        ...

    async def place(self, order: Order) -> None:
        """Insert an unpaid order. Stock is not touched. An order that is there stays as it is."""
        ...

    async def place_and_take(self, order: Order) -> bool:
        """Lock the stock, insert an unpaid order, take a unit; False, and nothing happens, if none is left.

        An order that is there stays as it is, and takes nothing more.
        """
        ...

    async def pay(self, order: Order) -> OrderState | None:
        """Mark an unpaid order paid; how it stands then, None if this buyer has no such order."""
        ...

    async def pay_and_take(self, order: Order) -> OrderState | None:
        """Mark an unpaid order paid and take a unit, or mark it refunded if none is left; how it stands then.

        None if this buyer has no such order.
        """
        ...
