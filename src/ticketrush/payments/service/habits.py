"""What the test gateway does to what it was asked for."""

from __future__ import annotations

from typing import Final

import msgspec

SHUFFLE_MS: Final = 300
"""How much later a webhook may be sent when they are to come out of order."""


class Habits(msgspec.Struct, frozen=True):
    """How pleasant the gateway is.

    `delay_ms` pass before a charge is decided; each webhook is sent `repeat` times; with `reorder` each at a
    random moment of the next 300 ms; a charge is declined with a probability of `decline_share`, drawn from `seed`.
    """

    delay_ms: int = 0
    repeat: int = 1
    reorder: bool = False
    decline_share: float = 0.0
    seed: int | None = None
