"""How fast an interpreter is: milliseconds for a fixed piece of plain Python.

Builds of the same version differ by a third: with or without profile-guided optimization, as a shared
library or not. What a build was made with is not always written in it, so it is measured. Nothing is
imported from elsewhere: `scripts/interpreter` runs this file with every Python that it may choose.
"""

from __future__ import annotations

import sys
import time

ROUNDS = 9


def pace_ms() -> float:
    """The best of a few rounds of calls, arithmetic, tuples and dictionaries."""
    return min(_round_ms() for _ in range(ROUNDS))


def _round_ms() -> float:
    began_s = time.perf_counter()
    _fibonacci(20)
    seen: dict[int, tuple[int, str]] = {}
    for number in range(30_000):
        seen[number % 1_000] = (number, str(number))
    return (time.perf_counter() - began_s) * 1_000


def _fibonacci(n: int) -> int:
    return n if n < 2 else _fibonacci(n - 1) + _fibonacci(n - 2)


if __name__ == "__main__":
    sys.stdout.write(f"{pace_ms():.2f}\n")
