"""Servers that tests of several kinds share, and the tests that are left out where there is no Kafka."""

from __future__ import annotations

from typing import Final

import pytest

from tests.kafka import kafka_bootstrap, kafka_topic, new_kafka, why_left_out
from tests.postgres import new_postgres, postgres, postgres_url

__all__ = ["kafka_bootstrap", "kafka_topic", "new_kafka", "new_postgres", "postgres", "postgres_url"]

_LEFT_OUT: Final = pytest.StashKey[dict[pytest.Item, str]]()


@pytest.hookimpl(trylast=True)  # count only what -k and -m have left
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a Kafka, if none can be had on this machine and it is no CI's."""
    left_out = {
        item: reason for item in items if (reason := why_left_out(frozenset(getattr(item, "fixturenames", ()))))
    }
    config.stash[_LEFT_OUT] = left_out
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say at the end what was left out, and why."""
    left_out = config.stash.get(_LEFT_OUT, {})
    for reason in sorted(set(left_out.values())):
        count = list(left_out.values()).count(reason)
        terminalreporter.write_line(f"{count} {'test was' if count == 1 else 'tests were'} left out: {reason}")
