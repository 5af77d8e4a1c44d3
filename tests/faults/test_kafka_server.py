"""Our own Kafka: what it acknowledged is there after a kill, and nothing of it is left when it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.kafka import SERVERS, NewKafka, fresh_topic, own_kafka
from ticketrush import processes
from ticketrush.cluster import kafka
from ticketrush.cluster.errors import ClusterError, NotInstalled
from ticketrush.cluster.kafka import Kafka

pytestmark = pytest.mark.timeout(240)

ANSWER_S: Final = 30.0
ROOT: Final = Path(__file__).parents[2]


def send(bootstrap: str, topic: str, *values: bytes) -> None:
    """Send `values`; returns when each is acknowledged."""
    producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 0})
    refused = []
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: refused.append(error) if error else None)
    assert producer.flush(ANSWER_S) == 0
    assert not refused


def all_of(bootstrap: str, topic: str) -> list[bytes | None]:
    """All that is in the topic's one partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "nobody", "enable.auto.commit": False})
    try:
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=ANSWER_S)
        consumer.assign([TopicPartition(topic, 0, 0)])
        messages = consumer.consume(end, timeout=ANSWER_S) if end else []
        return [message.value() for message in messages]
    finally:
        consumer.close()


def test_what_is_sent_is_read_in_its_order(kafka_bootstrap: str, kafka_topic: str) -> None:
    send(kafka_bootstrap, kafka_topic, b"one", b"two", b"three")

    assert all_of(kafka_bootstrap, kafka_topic) == [b"one", b"two", b"three"]


def test_a_group_is_given_its_partition(kafka_bootstrap: str, kafka_topic: str) -> None:
    send(kafka_bootstrap, kafka_topic, b"one")
    settings = {"bootstrap.servers": kafka_bootstrap, "group.id": kafka_topic, "auto.offset.reset": "earliest"}
    consumer = Consumer(settings)
    try:
        consumer.subscribe([kafka_topic])
        message = consumer.poll(ANSWER_S)
        assert message is not None
        assert message.value() == b"one"
    finally:
        consumer.close()


def test_what_was_acknowledged_is_there_after_a_kill(new_kafka: NewKafka) -> None:
    server = new_kafka()
    topic = fresh_topic(server.bootstrap)
    many = [b"%d" % number for number in range(1_000)]
    send(server.bootstrap, topic, *many)
    first = server.pid

    server.restart()

    assert all_of(server.bootstrap, topic) == many
    assert not processes.running_of([first])
    send(server.bootstrap, topic, b"one more")
    assert all_of(server.bootstrap, topic) == [*many, b"one more"]


def test_a_paused_broker_acknowledges_nothing_until_it_is_resumed(new_kafka: NewKafka) -> None:
    server = new_kafka()
    topic = fresh_topic(server.bootstrap)
    producer = Producer({"bootstrap.servers": server.bootstrap, "enable.idempotence": True, "linger.ms": 0})
    producer.produce(topic, b"before")
    assert producer.flush(ANSWER_S) == 0

    server.pause()
    producer.produce(topic, b"meanwhile")
    assert producer.flush(0.5) == 1
    server.resume()

    assert producer.flush(ANSWER_S) == 0
    assert all_of(server.bootstrap, topic) == [b"before", b"meanwhile"]


def test_two_brokers_know_nothing_of_each_other_and_a_taken_port_is_said(new_kafka: NewKafka, tmp_path: Path) -> None:
    one, other = new_kafka(), new_kafka()
    topic = fresh_topic(one.bootstrap)
    send(one.bootstrap, topic, b"one")
    send(other.bootstrap, topic, b"other")
    assert all_of(one.bootstrap, topic) == [b"one"]
    assert all_of(other.bootstrap, topic) == [b"other"]

    with pytest.raises(ClusterError, match=rf"kafka does not start at port {one.port}(.|\n)*in use"):
        Kafka(tmp_path, port=one.port).start()


def test_a_port_that_somebody_else_was_quicker_to_take_is_changed(
    new_kafka: NewKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = new_kafka()
    server = Kafka(tmp_path)
    server.port = first.port
    try:
        server.start()
        assert server.port != first.port
        assert all_of(server.bootstrap, fresh_topic(server.bootstrap)) == []
    finally:
        server.stop()


def test_nothing_is_left_of_it() -> None:
    with own_kafka() as server:
        pid = server.pid
        server.pause()
        began = time.monotonic()
    assert time.monotonic() - began < server.stop_s
    assert not processes.running_of([pid])
    assert not server.folder.exists()


@pytest.mark.parametrize("workers", ["0", "2"])
@pytest.mark.parametrize("ci", [False, True])
def test_a_run_without_kafka_says_what_it_leaves_out_and_in_ci_it_fails(tmp_path: Path, ci: bool, workers: str) -> None:
    env = {name: value for name, value in os.environ.items() if name not in {"CI", SERVERS}}
    env |= {"XDG_CACHE_HOME": str(tmp_path)} | ({"CI": "true"} if ci else {})
    command = [sys.executable, "-m", "pytest", "-q", "-n", workers, __file__, "-k", "its_order or the_script"]
    run = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)

    why = "there is no Kafka: install Java 17 and mvn, and run scripts/kafka"
    if ci:
        assert run.returncode == 1, run.stdout
        assert f"NotInstalled: {why}" in run.stdout
    else:
        assert run.returncode == 0, run.stdout
        assert f"\n1 test was left out: {why}" in run.stdout
        assert "1 passed" in run.stdout


def test_a_machine_without_kafka_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(NotInstalled, match=r"install Java 17 and mvn, and run scripts/kafka"):
        Kafka(tmp_path)


def test_the_script_fetches_the_version_that_is_looked_for() -> None:
    pom = ROOT / "scripts" / "kafka.pom.xml"
    assert f"<kafka.version>{kafka.VERSION}</kafka.version>" in pom.read_text()
    assert os.access(pom.with_name("kafka"), os.X_OK)
