"""Servers that tests of several kinds share, and the tests that are left out where there is no Kafka."""

from __future__ import annotations

from typing import Any

import pytest

from tests import left_out
from tests.kafka import kafka_bootstrap, kafka_topic, new_kafka, why_left_out
from tests.postgres import new_postgres, postgres, postgres_url

__all__ = ["kafka_bootstrap", "kafka_topic", "new_kafka", "new_postgres", "postgres", "postgres_url"]


@pytest.hookimpl(trylast=True)  # count only what -k and -m have left
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what needs a Kafka, if none can be had on this machine and it is no CI's."""
    reasons = {item: why for item in items if (why := why_left_out(frozenset(getattr(item, "fixturenames", ()))))}
    left_out.leave_out(config, items, reasons)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Of tests that run side by side, one process speaks at the end."""
    left_out.tell_controller(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hear what a process has left out."""
    left_out.hear_worker(node.config, getattr(node, "workeroutput", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say at the end what was left out, and why."""
    for line in left_out.lines(config):
        terminalreporter.write_line(line)
