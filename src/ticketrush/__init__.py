"""Sells a scarce stock to a crowd: never one too many, never one left over, never a success forgotten.

::

    async with ticketrush.open("sqlite:///tickets.db") as desk:
        await desk.create_sale(Sale("g1", (Item("second", 10_000, purchase_limit=2),), opens_at_ms=0))
        outcome = await desk.reserve("g1", "second", "ada", key="my-first-try")
"""

from __future__ import annotations

from ticketrush._version import __version__
from ticketrush.engine import Engine
from ticketrush.errors import (
    InvalidRequest,
    JournalCorrupt,
    JournalError,
    JournalForeign,
    JournalLocked,
    LedgerUnavailable,
    SettingsError,
    TicketrushError,
    Unauthorized,
)
from ticketrush.model import (
    Changed,
    Item,
    Level,
    Reason,
    Refused,
    Reservation,
    Reserved,
    Sale,
    SaleChanged,
    State,
    Stock,
)
from ticketrush.wiring import ledger_of


def open(url: str, *, durability: str = "fsync") -> Engine:
    """A desk that sells from the ledger at `url`, in this process; use it as ``async with``.

    At ``sqlite:///…`` the process owns the journal until the desk is closed; at ``redis://…`` it is
    one node of many. With durability "fsync" a success survives a power cut, with "memory" a crash
    of the process.

    Raises:
        SettingsError: the URL or the durability is not one of ours.
        JournalError: on entering; the journal cannot be used, and nothing was written to it.
    """
    return Engine(ledger_of(url, durability=durability))


__all__ = [
    "Changed",
    "Engine",
    "InvalidRequest",
    "Item",
    "JournalCorrupt",
    "JournalError",
    "JournalForeign",
    "JournalLocked",
    "LedgerUnavailable",
    "Level",
    "Reason",
    "Refused",
    "Reservation",
    "Reserved",
    "Sale",
    "SaleChanged",
    "SettingsError",
    "State",
    "Stock",
    "TicketrushError",
    "Unauthorized",
    "__version__",
    "ledger_of",
    "open",
]
