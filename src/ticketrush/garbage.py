"""The garbage collector, told to look rarely: nearly all that a busy process makes is gone by counting alone."""

from __future__ import annotations

import gc
from typing import Final

_THRESHOLDS: Final = (50_000, 20, 100)


def collect_rarely() -> None:
    """Leave all that there is now out of every later look, and look seldom. For a process that has started up."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
