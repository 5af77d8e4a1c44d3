"""The values every layer speaks in: sales, reservations, commands, outcomes.

All are frozen. Times are UTC in milliseconds since 1970 (``*_at_ms``), lengths of time carry
their unit (``hold_window_ms``), stock is counted in whole units. ``gc=False`` keeps the millions
of reservations of a long sale out of the garbage collector's sight; it is safe because none of
these values can be part of a reference cycle.
"""

from __future__ import annotations

import enum
import re
from typing import Final

import msgspec

QUANTITY_MAX: Final = 1_000
"""Units one request may ask for."""

CAPACITY_MAX: Final = 1_000_000_000
"""Units one item may have."""

ITEMS_MAX: Final = 100
"""Items one sale may have."""

SALES_MAX: Final = 10_000
"""Sales one ledger may have."""

HOLD_WINDOW_MS_MAX: Final = 7 * 24 * 3_600_000
"""The longest hold, a week."""

IDENTIFIER: Final = re.compile(r"[A-Za-z0-9._~-]{1,64}", re.ASCII)
"""Sale and item ids: what a URL carries without escapes."""

BUYER: Final = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
"""Buyer ids: 1 to 128 visible ASCII characters (a token's ``sub``)."""

CURRENCY: Final = re.compile(r"[A-Z]{3}", re.ASCII)
"""Currencies: ISO 4217."""

TIME_MS_MAX: Final = 253_402_300_799_999
"""The last moment of the year 9999, where ISO 8601 ends."""

KEY: Final = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
"""Idempotency keys: 1 to 128 visible ASCII characters."""


class State(enum.StrEnum):
    """The states of a reservation: HELD -> PAID -> REFUNDED, HELD -> CANCELLED, HELD -> EXPIRED."""

    HELD = "held"
    PAID = "paid"
    REFUNDED = "refunded"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


def _check_whole(**numbers: int | None) -> None:
    """What reaches a journal must be readable again: no float in the place of a whole number."""
    for name, number in numbers.items():
        if number is not None and type(number) is not int:
            raise ValueError(f"{name} {number!r} is not a whole number")


def _check_items(items: object) -> None:
    if not (isinstance(items, tuple) and all(isinstance(item, Item) for item in items)):
        raise ValueError("items is not a tuple of Item")


class Item(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """Something counted that is for sale: a seat class of a train, a ticket category.

    ``purchase_limit`` is the number of units one buyer may hold and own together; None is no limit.
    """

    id: str
    capacity: int
    purchase_limit: int | None = None
    price_minor: int = 0
    currency: str = "CNY"

    def __post_init__(self) -> None:
        _check_whole(capacity=self.capacity, purchase_limit=self.purchase_limit, price_minor=self.price_minor)
        if not IDENTIFIER.fullmatch(self.id):
            raise ValueError(f"item id {self.id!r} is not 1 to 64 of the characters A-Z a-z 0-9 . _ ~ -")
        if not 0 <= self.capacity <= CAPACITY_MAX:
            raise ValueError(f"capacity {self.capacity} of item {self.id!r} is not between 0 and {CAPACITY_MAX}")
        if self.purchase_limit is not None and not 1 <= self.purchase_limit <= CAPACITY_MAX:
            raise ValueError(f"purchase_limit {self.purchase_limit} of item {self.id!r} is not at least 1 (or null)")
        if not 0 <= self.price_minor <= 10**12:
            raise ValueError(f"price_minor {self.price_minor} of item {self.id!r} is not between 0 and 10^12")
        if not CURRENCY.fullmatch(self.currency):
            raise ValueError(f"currency {self.currency!r} is not an ISO 4217 code such as CNY")


class Sale(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """An event at which stock goes on sale.

    It is open while ``opens_at_ms <= now < closes_at_ms``; None as ``opens_at_ms`` means "not until
    an operator opens it", None as ``closes_at_ms`` means "until an operator closes it". ``capacity``
    of its items is what they began with; units added later are in the ledger's levels.
    """

    id: str
    items: tuple[Item, ...]
    opens_at_ms: int | None = None
    closes_at_ms: int | None = None
    hold_window_ms: int = 300_000

    def __post_init__(self) -> None:
        _check_whole(opens_at_ms=self.opens_at_ms, closes_at_ms=self.closes_at_ms, hold_window_ms=self.hold_window_ms)
        _check_items(self.items)
        if not IDENTIFIER.fullmatch(self.id):
            raise ValueError(f"sale id {self.id!r} is not 1 to 64 of the characters A-Z a-z 0-9 . _ ~ -")
        if not 1 <= len(self.items) <= ITEMS_MAX:
            raise ValueError(f"a sale has 1 to {ITEMS_MAX} items, not {len(self.items)}")
        if len({item.id for item in self.items}) != len(self.items):
            raise ValueError("two items of the sale have the same id")
        if not 1 <= self.hold_window_ms <= HOLD_WINDOW_MS_MAX:
            raise ValueError(f"hold window {self.hold_window_ms} ms is not between 1 and {HOLD_WINDOW_MS_MAX} ms")
        for at_ms in (self.opens_at_ms, self.closes_at_ms):
            if at_ms is not None and not 0 <= at_ms <= TIME_MS_MAX:
                raise ValueError(f"time {at_ms} ms is not between the years 1970 and 9999")

    def phase(self, now_ms: int) -> Phase:
        """Whether buyers may buy at `now_ms`."""
        if self.closes_at_ms is not None and now_ms >= self.closes_at_ms:
            return Phase.CLOSED
        if self.opens_at_ms is None or now_ms < self.opens_at_ms:
            return Phase.NOT_OPEN
        return Phase.OPEN


class Phase(enum.StrEnum):
    """Where a sale stands in time."""

    NOT_OPEN = "not_open"
    OPEN = "open"
    CLOSED = "closed"


class Reservation(msgspec.Struct, frozen=True, gc=False):
    """A buyer's claim on units of an item.

    HELD until it is paid, cancelled or expired; ``expires_at_ms`` is the first moment at which an
    unpaid one may be expired. ``payment`` names the payment that settled it, "" before.
    """

    id: str
    sale: str
    item: str
    buyer: str
    quantity: int
    key: str
    held_at_ms: int
    expires_at_ms: int
    state: State = State.HELD
    changed_at_ms: int = 0
    payment: str = ""


class Level(msgspec.Struct, frozen=True, gc=False):
    """Units of one item: ``capacity = available + leased + held + sold`` (I2)."""

    item: str
    capacity: int
    available: int
    leased: int
    held: int
    sold: int


class Stock(msgspec.Struct, frozen=True, gc=False):
    """The levels of a sale; ``version`` grows with every change of any of them.

    ``settled`` is False while its ledger has yet to learn which keys have won elsewhere: until then
    a gate may not answer for it, since a winner who asks again must get the first answer.
    """

    sale: Sale
    version: int
    levels: tuple[Level, ...]
    next_expiry_at_ms: int | None = None
    settled: bool = True


# --- commands: what a caller asks of the ledger -----------------------------------------------


class Reserve(msgspec.Struct, frozen=True, gc=False):
    """Hold `quantity` units for `buyer`, all or nothing, under the new id `id`.

    `key` makes a repetition harmless: the same buyer with the same key in the same sale gets the
    first reservation again. "" is no key.
    """

    id: str
    sale: str
    item: str
    buyer: str
    quantity: int
    key: str


class Confirm(msgspec.Struct, frozen=True, gc=False):
    """HELD -> PAID. `payment` names the payment; repeating it with the same name is harmless."""

    id: str
    payment: str


class Cancel(msgspec.Struct, frozen=True, gc=False):
    """HELD -> CANCELLED; the units return to the sale."""

    id: str


class Refund(msgspec.Struct, frozen=True, gc=False):
    """PAID -> REFUNDED; the units return to the sale."""

    id: str


class Expire(msgspec.Struct, frozen=True, gc=False):
    """HELD -> EXPIRED for at most `most` reservations that are due; the units return to the sale."""

    most: int = 1_024


class CreateSale(msgspec.Struct, frozen=True, gc=False):
    """Put `sale` into the ledger. The same sale again is harmless, another one is refused."""

    sale: Sale


class OpenSale(msgspec.Struct, frozen=True, gc=False):
    """Open the sale now. An open sale stays as it is; a closed one opens again."""

    sale: str


class CloseSale(msgspec.Struct, frozen=True, gc=False):
    """Close the sale now. Holds stay valid and may be paid until they expire."""

    sale: str


class AddStock(msgspec.Struct, frozen=True, gc=False):
    """Add `units` to the capacity of an item, once for each `key`."""

    sale: str
    item: str
    units: int
    key: str


Command = Reserve | Confirm | Cancel | Refund | Expire | CreateSale | OpenSale | CloseSale | AddStock


# --- outcomes: what the ledger answers --------------------------------------------------------


class Reason(enum.StrEnum):
    """Why a command had no effect. The values are the stable codes of the HTTP API."""

    SOLD_OUT = "sold_out"
    ALL_HELD = "all_held"
    PURCHASE_LIMIT = "purchase_limit"
    NOT_OPEN = "not_open"
    CLOSED = "closed"
    UNKNOWN_SALE = "unknown_sale"
    UNKNOWN_ITEM = "unknown_item"
    UNKNOWN_RESERVATION = "unknown_reservation"
    KEY_REUSED = "idempotency_key_reused"
    WRONG_STATE = "wrong_state"
    SALE_EXISTS = "sale_exists"
    LIMIT_EXCEEDED = "limit_exceeded"
    OVERLOADED = "overloaded"
    UNAVAILABLE = "unavailable"
    UNKNOWN = "unknown"


class Reserved(msgspec.Struct, frozen=True, gc=False):
    """A reservation was made, or (`replayed`) had been made before under the same key."""

    reservation: Reservation
    replayed: bool = False


class Changed(msgspec.Struct, frozen=True, gc=False):
    """A reservation is in the state asked for; `repeated` if it was already."""

    reservation: Reservation
    repeated: bool = False


class ExpiredSome(msgspec.Struct, frozen=True, gc=False):
    """`count` holds were expired; `more` are still due."""

    count: int
    more: bool


class SaleChanged(msgspec.Struct, frozen=True, gc=False):
    """The sale is as asked for; `repeated` if it was already."""

    sale: Sale
    repeated: bool = False


class Refused(msgspec.Struct, frozen=True, gc=False):
    """Nothing was changed. `retry_at_ms` is when it may be worth asking again, 0 for never.

    ``Reason.UNKNOWN`` is the exception: the effect may have happened; repeat with the same key.
    `reservation` is the one whose state stood in the way.
    """

    reason: Reason
    retry_at_ms: int = 0
    reservation: Reservation | None = None


Outcome = Reserved | Changed | ExpiredSome | SaleChanged | Refused
