"""What is put under load: an address that answers the one request of the bench."""

from __future__ import annotations

import dataclasses
from typing import Final

SALE: Final = "bench"
ITEM: Final = "second"
PATH: Final = f"/v1/sales/{SALE}/reservations"
BODY: Final = f'{{"item":"{ITEM}","quantity":1}}'.encode()
"""The body of every request; load.lua makes the same from its arguments."""


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A server that listens at `url`; `pid` is the process whose CPU (children included) is measured.

    `store_pid` is that of the server of its ledger, measured by itself; 0 if there is none.
    """

    url: str
    pid: int
    store_pid: int = 0
