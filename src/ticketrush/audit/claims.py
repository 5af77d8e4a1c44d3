"""What the auditor holds the events against: what buyers were told, what the ledger says of itself."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, Protocol

import msgspec

Acknowledged = tuple[str, str, str, str, int]
"""What a buyer was told of a reservation: (buyer, key, sale, item, quantity)."""

_IDS_AT_ONCE: Final = 65_536


class Told(msgspec.Struct):
    """What the buyers were told.

    ``acknowledged`` is keyed by reservation id, ``paid`` are the ids that were acknowledged as paid.
    ``unknown`` are the (buyer, key) whose last answer was a time-out, a cut connection or
    "unknown": each may or may not have happened.
    """

    acknowledged: dict[str, Acknowledged] = msgspec.field(default_factory=dict)
    paid: set[str] = msgspec.field(default_factory=set)
    unknown: list[tuple[str, str]] = msgspec.field(default_factory=list)


class OrderRecord(msgspec.Struct, frozen=True, gc=False):
    """An order as the order store has it; `state` is that of a reservation, or "incomplete"."""

    id: str
    state: str
    sale: str
    item: str
    buyer: str
    quantity: int


class LevelLike(Protocol):
    """Anything that says the units of one item, as ``model.Level`` and ``Units`` do."""

    @property
    def capacity(self) -> int: ...
    @property
    def available(self) -> int: ...
    @property
    def leased(self) -> int: ...
    @property
    def held(self) -> int: ...
    @property
    def sold(self) -> int: ...


class Units(msgspec.Struct, frozen=True, gc=False):
    """Units of one item, as ``/v1/audit/state`` shows them."""

    capacity: int
    available: int
    leased: int
    held: int
    sold: int


class LedgerState(msgspec.Struct, frozen=True):
    """What a ledger claims to be after its first `seq` events."""

    seq: int
    levels: dict[str, dict[str, Units]]
    digest: str

    @classmethod
    def of(
        cls, seq: int, levels: Mapping[str, Mapping[str, LevelLike]], states: Iterable[tuple[str, str]]
    ) -> LedgerState:
        """The claim of a ledger with these `levels` and (reservation id, state) pairs."""
        units = {sale: {item: _units(level) for item, level in items.items()} for sale, items in levels.items()}
        return cls(seq, units, digest(levels, states))


def digest(levels: Mapping[str, Mapping[str, LevelLike]], states: Iterable[tuple[str, str]]) -> str:
    """The SHA-256, in hex, of levels {sale: {item: level}} and (reservation id, state) pairs.

    The order in which sales, items and reservations come does not matter. A million reservations
    take about a second.
    """
    sha = hashlib.sha256()
    for sale, items in sorted(levels.items()):
        for item, of in sorted(items.items()):
            sha.update(f"{sale} {item} {of.capacity} {of.available} {of.leased} {of.held} {of.sold}\n".encode())
    ids_by_state: defaultdict[str, list[str]] = defaultdict(list)
    for reservation_id, state in states:
        ids_by_state[state].append(reservation_id)
    for state, ids in sorted(ids_by_state.items()):
        ids.sort()
        sha.update(f"{state} {len(ids)}\n".encode())
        for first in range(0, len(ids), _IDS_AT_ONCE):
            sha.update("\n".join([*ids[first : first + _IDS_AT_ONCE], ""]).encode())
    return sha.hexdigest()


def _units(of: LevelLike) -> Units:
    return Units(of.capacity, of.available, of.leased, of.held, of.sold)
