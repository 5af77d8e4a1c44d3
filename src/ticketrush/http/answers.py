"""Answers: what goes back to a client, and how values look as JSON.

An `Answer` knows nothing of the server that sends it. The fast lane turns it into bytes itself,
the ASGI application into a `Response`; so both say the same.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from ticketrush import model as m
from ticketrush.clock import iso, iso_or_none

Header = tuple[bytes, bytes]

JSON: Final[Header] = (b"content-type", b"application/json")

encode = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """A status, headers (names in lower case; without content-length and date) and a body."""

    status: int
    headers: tuple[Header, ...]
    body: bytes


def json_answer(value: object, status: int = 200, *headers: Header) -> Answer:
    """`value` as JSON."""
    return Answer(status, (JSON, *headers), encode(value))


class ReservationView(msgspec.Struct, frozen=True, gc=False):
    """A reservation as its buyer sees it."""

    id: str
    sale: str
    item: str
    quantity: int
    state: str
    held_at: str
    expires_at: str
    changed_at: str
    payment: str

    @classmethod
    def of(cls, reservation: m.Reservation) -> ReservationView:
        """The view of `reservation`."""
        held_at_ms, changed_at_ms = reservation.held_at_ms, reservation.changed_at_ms
        held_at = iso(held_at_ms)
        return cls(
            reservation.id,
            reservation.sale,
            reservation.item,
            reservation.quantity,
            reservation.state,
            held_at,
            iso(reservation.expires_at_ms),
            held_at if changed_at_ms == held_at_ms else iso(changed_at_ms),
            reservation.payment,
        )


class ItemView(msgspec.Struct, frozen=True, gc=False):
    """An item of a sale with its levels."""

    id: str
    capacity: int
    available: int
    leased: int
    held: int
    sold: int
    purchase_limit: int | None
    price_minor: int
    currency: str


class SaleView(msgspec.Struct, frozen=True, gc=False):
    """A sale as anybody sees it."""

    id: str
    state: str
    opens_at: str | None
    closes_at: str | None
    hold_window_s: float
    as_of: str
    version: int
    items: list[ItemView]

    @classmethod
    def of(cls, stock: m.Stock, now_ms: int) -> SaleView:
        """The view of a sale and its levels at `now_ms`."""
        sale = stock.sale
        items = [
            ItemView(
                item.id,
                level.capacity,
                level.available,
                level.leased,
                level.held,
                level.sold,
                item.purchase_limit,
                item.price_minor,
                item.currency,
            )
            for item, level in zip(sale.items, stock.levels, strict=True)
        ]
        return cls(
            sale.id,
            sale.phase(now_ms).value,
            iso_or_none(sale.opens_at_ms),
            iso_or_none(sale.closes_at_ms),
            sale.hold_window_ms / 1_000,
            iso(now_ms),
            stock.version,
            items,
        )
