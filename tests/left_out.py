"""Tests that are left out on a machine which lacks what they need: one line at the end says so, and why."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

import pytest

_LEFT_OUT: Final = pytest.StashKey[Counter[str]]()
"""Reason -> tests."""

_OUTPUT: Final = "left_out"


def leave_out(config: pytest.Config, items: list[pytest.Item], reasons: dict[pytest.Item, str]) -> None:
    """Take those that have a reason out of `items`."""
    if reasons:
        _counts(config).update(reasons.values())
        config.hook.pytest_deselected(items=list(reasons))
        items[:] = [item for item in items if item not in reasons]


def tell_controller(config: pytest.Config) -> None:
    """What a process that runs a part of the tests (pytest-xdist) has left out, to the one that speaks at the end."""
    output: dict[str, Any] | None = getattr(config, "workeroutput", None)
    if output is not None:
        output[_OUTPUT] = dict(_counts(config))


def hear_worker(config: pytest.Config, output: dict[str, Any]) -> None:
    """Each of these processes looks at all tests, so each says the same."""
    config.stash[_LEFT_OUT] = Counter(output.get(_OUTPUT, {}))


def _counts(config: pytest.Config) -> Counter[str]:
    none: Counter[str] = Counter()
    return config.stash.setdefault(_LEFT_OUT, none)


def lines(config: pytest.Config) -> list[str]:
    """What there is to say."""
    return [
        f"{count} {'test was' if count == 1 else 'tests were'} left out: {reason}"
        for reason, count in sorted(_counts(config).items())
    ]
