"""The auditor: a history of events, and what buyers were told, checked against I1..I8.

It is pure (no clock, no I/O) and shares no code with the ledger: the units and the orders are
folded from the events a second time, here, so that one mistake cannot hide itself.
"""

from __future__ import annotations

from ticketrush.audit.check import audit
from ticketrush.audit.claims import Acknowledged, LedgerState, LevelLike, OrderRecord, Told, Units, digest
from ticketrush.audit.report import INVARIANTS, AuditReport

__all__ = [
    "INVARIANTS",
    "Acknowledged",
    "AuditReport",
    "LedgerState",
    "LevelLike",
    "OrderRecord",
    "Told",
    "Units",
    "audit",
    "digest",
]
