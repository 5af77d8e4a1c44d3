"""What goes between the lab and the buyers that it sends: a plan, progress, and what they saw.

Times are seconds of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Network
from typing import Final

import msgspec

from ticketrush.audit import Told

PATIENCE_S: Final = 6.5
"""How long a buyer waits for an answer: longer than the front door waits for a node."""


class Fate(StrEnum):
    """How one try of a buyer ended."""

    DONE = "done"
    """It had what it asked for."""
    REFUSED = "refused"
    """Sold out, or another answer that is final."""
    BUSY = "busy"
    """Not now (429, 503), or all is held for the moment."""
    SILENT = "silent"
    """No answer in time, no connection, or one that says that nobody knows (502, 504)."""


class Visit(msgspec.Struct, frozen=True):
    """The buyers of one sale: `buyers` of one ticket each, `per_second` of them whatever happens (open loop).

    Each request has a connection of its own, so that each is led its own way. A buyer has one address in the network
    `come_from`; without one, that of the host. Who is not answered within `patience_s` repeats it under the same key,
    until `give_up_s` after the last buyer came.
    """

    host: str
    port: int
    sale: str
    item: str
    buyers: int
    per_second: float
    secret: bytes
    audience: str
    expires_at_s: int
    prefix: str = "lab"
    come_from: str = ""
    patience_s: float = PATIENCE_S
    give_up_s: float = 60.0


class Try(msgspec.Struct, frozen=True, gc=False):
    """One request: when it was sent, how long it took, what became of it, and whether it repeats an earlier one."""

    at_s: float
    took_s: float
    pays: bool
    fate: Fate
    again: bool = False


class Progress(msgspec.Struct, frozen=True):
    """How far the buyers are; printed as a line of JSON."""

    at_s: float
    came: int
    acknowledged: int
    paid: int


class Seen(msgspec.Struct, frozen=True):
    """All that the buyers saw. `lost` are reservations that were acknowledged, and then unknown to the server.

    `sold_out` buyers were told that all is sold; `waiting` had no final answer at the end; `odd` are answers
    that should not have come.
    """

    tries: list[Try]
    told: Told
    sold_out: int
    lost: list[str]
    waiting: int
    odd: list[str]
    began_s: float
    ended_s: float


def name_of(prefix: str, number: int) -> str:
    """The buyer of that number; the idempotency key of its wish is the same, with .0 behind it."""
    return f"{prefix}-{number:06d}"


def address_of(visit: Visit, number: int) -> tuple[str, int] | None:
    """Where the buyer of that number comes from; None if it does not matter. Neither end of the network is used."""
    if not visit.come_from:
        return None
    network = IPv4Network(visit.come_from)
    return str(network[1 + number % (network.num_addresses - 2)]), 0


def was_asked(visit: Visit, buyer: str, key: str) -> bool:
    """Whether a buyer of `visit` asked for something under `key`."""
    prefix, _, number = buyer.rpartition("-")
    known = prefix == visit.prefix and number.isdigit() and int(number) < visit.buyers
    return known and buyer == name_of(prefix, int(number)) and key == f"{buyer}.0"
