"""The facts a journal is made of, in the order in which they happened.

An event's sequence number is its position in the journal (from 1); it is not part of the event.
On disk an event is a MessagePack array that starts with its name, so fields may only be added at
the end, with defaults.
"""

from __future__ import annotations

import msgspec

from ticketrush.model import Sale


class Event(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What every event has: when it happened, UTC milliseconds."""

    at_ms: int


class SaleCreated(Event, frozen=True, gc=False, array_like=True, tag="sale_created"):
    sale: Sale


class SaleScheduled(Event, frozen=True, gc=False, array_like=True, tag="sale_scheduled"):
    """The sale's opening times were changed (opened, closed)."""

    sale: str
    opens_at_ms: int | None
    closes_at_ms: int | None


class StockAdded(Event, frozen=True, gc=False, array_like=True, tag="stock_added"):
    sale: str
    item: str
    units: int
    key: str


class Held(Event, frozen=True, gc=False, array_like=True, tag="held"):
    """A reservation was made."""

    id: str
    sale: str
    item: str
    buyer: str
    quantity: int
    key: str
    expires_at_ms: int


class Paid(Event, frozen=True, gc=False, array_like=True, tag="paid"):
    id: str
    payment: str


class Cancelled(Event, frozen=True, gc=False, array_like=True, tag="cancelled"):
    id: str


class Expired(Event, frozen=True, gc=False, array_like=True, tag="expired"):
    id: str


class Refunded(Event, frozen=True, gc=False, array_like=True, tag="refunded"):
    id: str


AnyEvent = SaleCreated | SaleScheduled | StockAdded | Held | Paid | Cancelled | Expired | Refunded
