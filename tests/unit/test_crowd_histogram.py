"""Latencies: within 1 %, in a fixed amount of memory."""

from __future__ import annotations

import math

import pytest

from ticketrush.crowd.histogram import BUCKETS, VALUE_US_MAX, Histogram, bucket_of, value_of


@pytest.mark.parametrize("value", [0, 1, 127, 128, 255, 256, 257, 999, 12_345, 10**6, 10**8, VALUE_US_MAX])
def test_a_bucket_tells_a_value_to_within_one_percent(value: int) -> None:
    assert value <= value_of(bucket_of(value)) <= value * 1.01


def test_buckets_are_in_the_order_of_their_values_without_a_gap() -> None:
    assert [bucket_of(value_of(bucket)) for bucket in range(BUCKETS)] == list(range(BUCKETS))
    assert [bucket_of(value_of(bucket) + 1) for bucket in range(BUCKETS - 1)] == list(range(1, BUCKETS))


def test_values_out_of_range_are_counted_at_the_ends() -> None:
    histogram = Histogram()
    histogram.record(-5)
    histogram.record(VALUE_US_MAX * 1_000)
    assert histogram.total == 2
    assert (histogram.counts[0], histogram.counts[-1]) == (1, 1)


def test_quantiles_agree_with_sorting_all_values() -> None:
    values = [int(math.exp(number / 1_500)) for number in range(20_000)]
    histogram = Histogram()
    for value in values:
        histogram.record(value)
    values.sort()
    for share in (0.01, 0.5, 0.9, 0.99, 0.999, 1.0):
        exact = values[max(0, math.ceil(share * len(values)) - 1)]
        assert exact <= histogram.quantile_us(share) <= exact * 1.01 + 1
    assert histogram.quantile_us(1.0) == values[-1] == histogram.largest_us


def test_nothing_recorded_is_zero_everywhere() -> None:
    assert Histogram().curve((0.0, 0.5, 1.0)) == [0, 0, 0]
    assert Histogram.merged([]).quantile_us(0.5) == 0


def test_sparse_and_back_is_the_same_and_merging_adds_up() -> None:
    one, other = Histogram(), Histogram()
    for value in (1, 10, 10, 100_000):
        one.record(value)
    other.record(7)
    again = Histogram.of_sparse(one.sparse(), one.largest_us)
    assert (again.counts, again.largest_us) == (one.counts, one.largest_us)
    both = Histogram.merged([one, other])
    assert (both.total, both.largest_us, both.counts[10]) == (5, 100_000, 2)
