"""Histories of a small sale, written by hand, for the tests of the auditor."""

from __future__ import annotations

from ticketrush.audit import LedgerState, Told, Units
from ticketrush.events import AnyEvent, Cancelled, Expired, Held, Paid, Refunded, SaleCreated, StockAdded
from ticketrush.model import Item, Sale, State

HOLD_MS = 1_000
RAIL = Sale(
    "rail",
    (Item("second", 3, purchase_limit=2), Item("first", 1)),
    opens_at_ms=0,
    closes_at_ms=50_000,
    hold_window_ms=HOLD_MS,
)
CREATED = SaleCreated(0, RAIL)


def held(at_ms: int, id: str, *, buyer: str = "", key: str = "", item: str = "second", quantity: int = 1) -> Held:
    """Reservation `id` in the sale "rail"; by default each one has a buyer of its own."""
    return Held(at_ms, id, "rail", item, buyer or f"buyer-of-{id}", quantity, key, at_ms + HOLD_MS)


SOUND: list[AnyEvent] = [
    CREATED,
    held(10, "a", buyer="ann", key="k1"),
    held(10, "b", buyer="bob", key="k1", quantity=2),
    held(20, "c", buyer="cid", item="first"),
    Paid(30, "a", "p1"),
    Cancelled(40, "c"),
    held(40, "d", buyer="dan", item="first"),
    Expired(1_010, "b"),
    StockAdded(1_020, "rail", "second", 1, "more"),
    held(1_030, "e", buyer="bob", key="k2", quantity=2),
    Paid(1_040, "d", "p2"),
    Paid(1_050, "e", "p3"),
    Refunded(1_060, "a"),
    held(1_070, "f", buyer="eve", key="k3", quantity=2),
]
SOUND_LEVELS = {"rail": {"second": Units(4, 0, 0, 2, 2), "first": Units(1, 0, 0, 0, 1)}}
SOUND_STATES = {
    "a": State.REFUNDED,
    "b": State.EXPIRED,
    "c": State.CANCELLED,
    "d": State.PAID,
    "e": State.PAID,
    "f": State.HELD,
}
SOUND_STATE = LedgerState.of(len(SOUND), SOUND_LEVELS, SOUND_STATES.items())
SOUND_TOLD = Told(
    acknowledged={"a": ("ann", "k1", "rail", "second", 1), "e": ("bob", "k2", "rail", "second", 2)},
    paid={"a", "e"},
    unknown=[("eve", "k3"), ("zoe", "k9")],
)
