"""From the ledger's events to notices, and notices as messages that others can read (JSON)."""

from __future__ import annotations

from typing import Final

import msgspec

from ticketrush import events as ev
from ticketrush import model as m
from ticketrush.events import AnyEvent
from ticketrush.orders.model import Claim, Kind, Notice

_KINDS: Final = {ev.Cancelled: Kind.CANCELLED, ev.Expired: Kind.EXPIRED, ev.Refunded: Kind.REFUNDED}

encode: Final = msgspec.json.Encoder().encode
event_of: Final = msgspec.msgpack.Decoder(AnyEvent).decode
"""An event as the streams of a shared ledger have it. Raises msgspec.DecodeError."""

_decode: Final = msgspec.json.Decoder(Notice).decode


def decode(payload: bytes) -> Notice:
    """A notice from a message. Raises msgspec.DecodeError (a ValidationError if it is JSON of another shape)."""
    if not payload:
        raise msgspec.DecodeError("empty message")  # in Kafka, a tombstone is one
    return _decode(payload)


class Prices:
    """What items cost, learned from the sales."""

    def __init__(self) -> None:
        self._prices: dict[tuple[str, str], tuple[int, str]] = {}
        self._sales: set[str] = set()

    def learn(self, sale: m.Sale) -> None:
        """Take the prices of a sale in."""
        self._sales.add(sale.id)
        for item in sale.items:
            self._prices[sale.id, item.id] = (item.price_minor, item.currency)

    def knows(self, sale: str) -> bool:
        """Whether the sale was learned."""
        return sale in self._sales

    def of(self, sale: str, item: str) -> tuple[int, str]:
        """Price of a unit in minor units, and its currency. Raises KeyError for an item that was never learned."""
        return self._prices[sale, item]


def notice_of(event: AnyEvent, prices: Prices) -> Notice | None:
    """What an event tells of an order; None for one that tells nothing (a sale's; its prices are learned).

    Raises:
        KeyError: it is of a sale whose prices were not learned.
    """
    if isinstance(event, ev.Held):
        price_minor, currency = prices.of(event.sale, event.item)
        claim = Claim(
            event.sale,
            event.item,
            event.buyer,
            event.quantity,
            event.expires_at_ms,
            price_minor * event.quantity,
            currency,
            event.key,
        )
        return Notice(event.id, Kind.HELD, event.at_ms, claim)
    if isinstance(event, ev.Paid):
        return Notice(event.id, Kind.PAID, event.at_ms, payment=event.payment)
    if isinstance(event, ev.SaleCreated):
        prices.learn(event.sale)
        return None
    kind = _KINDS.get(type(event))
    if kind is None:
        return None
    return Notice(event.id, kind, event.at_ms)  # type: ignore[union-attr]
