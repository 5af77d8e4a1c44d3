"""`kafka_options`: what an operator sets reaches every client of Kafka, and what the library does not take is named."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from pydantic import SecretStr

from tests.in_loop import in_loop
from tests.order_sources import SOON_S
from ticketrush import processes
from ticketrush.errors import SettingsError
from ticketrush.orders.errors import BrokerUnavailable
from ticketrush.orders.kafka import KafkaSource
from ticketrush.orders.model import Kind, Notice
from ticketrush.orders.notices import encode
from ticketrush.orders.protocol import Message
from ticketrush.orders.publisher import Publisher
from ticketrush.settings import Settings
from ticketrush.wiring import source_of, store_of

NOBODY = "127.0.0.1:1"
NOTICE = Notice("order-1", Kind.EXPIRED, 1)


@in_loop
async def test_an_option_reaches_the_reader(kafka_bootstrap: str, kafka_topic: str, tmp_path: Path) -> None:
    options = (SecretStr("client.id=named-by-the-operator"),)
    settings = Settings(kafka=kafka_bootstrap, kafka_topic=kafka_topic, kafka_options=options)
    source = source_of(settings, store_of(f"sqlite:///{tmp_path / 'orders.db'}"))
    await source.open()
    admin = AdminClient({"bootstrap.servers": kafka_bootstrap})
    names: set[str] = set()
    try:
        async with asyncio.timeout(SOON_S):
            while "named-by-the-operator" not in names:
                await source.next(1, 0.5)
                group = admin.describe_consumer_groups(["ticketrush-orders"])["ticketrush-orders"].result(10)
                names = {member.client_id for member in group.members}
    finally:
        await source.close()


@in_loop
async def test_an_option_reaches_the_writer(kafka_bootstrap: str, kafka_topic: str) -> None:
    messages = [Message("here", encode(NOTICE) + b" " * 2_000, NOTICE)]
    publisher = Publisher(kafka_bootstrap, kafka_topic, options={"message.max.bytes": "1000"})
    with pytest.raises(BrokerUnavailable, match="MSG_SIZE_TOO_LARGE"):
        await publisher.publish(messages)
    await publisher.close()
    plain = Publisher(kafka_bootstrap, kafka_topic, options={"socket.timeout.ms": "9000"})
    await plain.publish(messages)
    await plain.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"socket.timeout.mss": "1"}, 'No such configuration property: "socket.timeout.mss"'),
        ({"socket.timeout.ms": "1"}, "socket.timeout.ms"),
        ({"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN"}, "sasl.username"),
        ({"sasl.password": "WHO", "security.protocol": "SASL_SSL", "sasl.mechanism": "WHO"}, "hidden"),
    ],
)
@in_loop
async def test_what_the_library_does_not_take_is_named(options: dict[str, str], words: str) -> None:
    publisher, source = Publisher(NOBODY, "t", options=options), KafkaSource(NOBODY, "t", options=options)
    for client in (publisher, source):
        with pytest.raises(SettingsError, match="kafka_options are refused") as refused:
            await client.open()
        assert words in str(refused.value)
        assert "WHO" not in str(refused.value)
        await client.close()


@pytest.mark.parametrize("command", ["relay", "work"])
def test_a_command_with_a_wrong_option_ends_and_says_which(command: str, tmp_path: Path) -> None:
    env = processes.plain_environment() | {
        "TICKETRUSH_KAFKA_OPTIONS": "sasl.password=sesame,linger.mss=5",
        "TICKETRUSH_KAFKA": NOBODY,
        "TICKETRUSH_LEDGER": "redis://127.0.0.1:1/0",
        "TICKETRUSH_ORDERS": f"sqlite:///{tmp_path / 'orders.db'}",
    }
    line = [sys.executable, "-m", "ticketrush", command]
    done = subprocess.run(line, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert "linger.mss" in done.stderr
    assert "sesame" not in done.stdout + done.stderr
