"""Real Kafka brokers for tests: one for all tests of a run, and others that a test may kill.

`tests/conftest.py` makes the fixtures known, and leaves out the tests that ask for them where no Kafka can be
had, which it says; with ``CI=true`` these fail instead. ``KAFKA_BOOTSTRAP_SERVERS`` names a running broker to
use as the one for all tests.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from ticketrush.cluster.errors import NotInstalled
from ticketrush.cluster.kafka import Kafka, find_jars
from ticketrush.cluster.server import running

SERVERS: Final = "KAFKA_BOOTSTRAP_SERVERS"
ANSWER_S: Final = 30.0

NewKafka = Callable[[], Kafka]
"""Starts a broker of the test's own."""


@pytest.fixture(scope="session")
def kafka_bootstrap() -> Iterator[str]:
    """The address of a broker for all tests; a test must not kill it."""
    named = os.environ.get(SERVERS)
    if named:
        yield named
    else:
        with own_kafka() as server:
            yield server.bootstrap


@pytest.fixture
def kafka_topic(kafka_bootstrap: str) -> str:
    """An empty topic of one partition that nobody has used before."""
    return fresh_topic(kafka_bootstrap)


@pytest.fixture
def new_kafka() -> Iterator[NewKafka]:
    """Starts brokers that the test may kill and restart; they are gone after it."""
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(own_kafka())


def fresh_topic(bootstrap: str, partitions: int = 1) -> str:
    """An empty topic that nobody has used before."""
    topic = f"test-{uuid.uuid4()}"
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(ANSWER_S)
    return topic


@contextlib.contextmanager
def own_kafka() -> Iterator[Kafka]:
    """A broker in a temporary folder, to be killed and restarted; both are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ticketrush-kafka-") as folder, running(Kafka(Path(folder))) as server:
        yield server


def why_left_out(fixtures: frozenset[str]) -> str | None:
    """Why a test that uses these fixtures cannot run on this machine; None if it can, or must all the same."""
    asked = fixtures & {"new_kafka", "kafka_bootstrap"}
    if not asked or os.environ.get("CI") == "true" or (os.environ.get(SERVERS) and "new_kafka" not in asked):
        return None
    try:
        find_jars()
    except NotInstalled as error:
        return str(error)
    return None
