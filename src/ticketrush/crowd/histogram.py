"""Latencies in a fixed amount of memory.

Buckets grow with the value, as in HdrHistogram (https://hdrhistogram.github.io/HdrHistogram/): 128
of them for each power of two, so a value is known to within 1/128 of itself. Recording is a few
integer operations, and a histogram is as large after a billion values as it was before the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final

SUB_BITS: Final = 7
SUB_BUCKETS: Final = 1 << SUB_BITS
VALUE_US_MAX: Final = (1 << 30) - 1
"""The longest latency told apart from longer ones, in microseconds: about 18 minutes."""

BUCKETS: Final = (VALUE_US_MAX.bit_length() - SUB_BITS) * SUB_BUCKETS + SUB_BUCKETS


def bucket_of(value_us: int) -> int:
    """The bucket that counts `value_us`."""
    if value_us < 2 * SUB_BUCKETS:
        return max(value_us, 0)
    value_us = min(value_us, VALUE_US_MAX)
    shift = value_us.bit_length() - SUB_BITS - 1
    return (shift << SUB_BITS) + (value_us >> shift)


def value_of(bucket: int) -> int:
    """The largest value in microseconds that `bucket` counts."""
    if bucket < 2 * SUB_BUCKETS:
        return bucket
    shift = (bucket >> SUB_BITS) - 1
    return (((bucket & (SUB_BUCKETS - 1)) + SUB_BUCKETS + 1) << shift) - 1


class Histogram:
    """Counts of latencies in microseconds, known to within 1 %."""

    __slots__ = ("counts", "largest_us")

    def __init__(self, counts: Sequence[int] | None = None, largest_us: int = 0) -> None:
        self.counts = list(counts) if counts is not None else [0] * BUCKETS
        self.largest_us = largest_us

    def record(self, value_us: int) -> None:
        """Count one value."""
        if value_us > self.largest_us:  # noqa: PLR1730 (half the time of max())
            self.largest_us = value_us
        self.counts[bucket_of(value_us)] += 1

    @property
    def total(self) -> int:
        """How many values were counted."""
        return sum(self.counts)

    def quantile_us(self, share: float) -> int:
        """The value that `share` (0 to 1) of all values do not exceed, 0 if there are none."""
        return quantile_us(self.counts, share, self.largest_us)

    def curve(self, shares: Iterable[float]) -> list[int]:
        """The quantiles at `shares`, in microseconds."""
        sums = list(accumulate(self.counts))
        return [_at(sums, share, self.largest_us) for share in shares]

    def sparse(self) -> dict[int, int]:
        """Only the buckets that counted something, to send or to keep."""
        return {bucket: count for bucket, count in enumerate(self.counts) if count}

    @classmethod
    def of_sparse(cls, sparse: dict[int, int], largest_us: int) -> Histogram:
        """The histogram that `sparse` was made of."""
        histogram = cls(largest_us=largest_us)
        for bucket, count in sparse.items():
            histogram.counts[bucket] = count
        return histogram

    @classmethod
    def merged(cls, several: Iterable[Histogram]) -> Histogram:
        """One histogram of the values of `several`."""
        parts = list(several)
        counts = [sum(column) for column in zip(*(part.counts for part in parts), strict=True)]
        return cls(counts or None, max((part.largest_us for part in parts), default=0))


def quantile_us(counts: Sequence[int], share: float, largest_us: int = VALUE_US_MAX) -> int:
    """The quantile of the values in the buckets `counts`; never above `largest_us`."""
    return _at(list(accumulate(counts)), share, largest_us)


def _at(sums: Sequence[int], share: float, largest_us: int) -> int:
    if not sums or not sums[-1]:
        return 0
    rank = max(1, -int(-share * sums[-1] // 1))
    low, high = 0, len(sums) - 1
    while low < high:
        middle = (low + high) // 2
        if sums[middle] < rank:
            low = middle + 1
        else:
            high = middle
    return min(value_of(low), largest_us)
