"""The relay, and who reads behind it: whoever is killed at whatever moment, each notice arrives; some arrive twice."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.books import Books
from tests.in_loop import in_loop
from tests.kafka import NewKafka, fresh_topic
from tests.valkey import own_valkey, valkey, valkey_url
from ticketrush import processes
from ticketrush.cluster.program import Program
from ticketrush.orders.errors import BrokerUnavailable, SourceUnavailable
from ticketrush.orders.kafka import KafkaSource
from ticketrush.orders.protocol import Message
from ticketrush.orders.publisher import Publisher
from ticketrush.orders.relay import Relay
from ticketrush.orders.streams import CLAIM_S, Streams

__all__ = ["valkey", "valkey_url"]

pytestmark = pytest.mark.timeout(240)

SOON_S: Final = 60.0
PARTITIONS: Final = 3

NewRelay = Callable[..., Program]
"""Starts `ticketrush relay` from a ledger's URL to a topic at a broker."""


@pytest.fixture
def new_relay(tmp_path: Path) -> Iterator[NewRelay]:
    with contextlib.ExitStack() as stack:

        def new(url: str, bootstrap: str, topic: str, name: str = "relay") -> Program:
            flags = ("--ledger", url, "--kafka", bootstrap, "--topic", topic, "--partitions", f"{PARTITIONS}", "--json")
            command = [sys.executable, "-m", "ticketrush", "relay", *flags]
            program = Program(name, tmp_path, command, processes.plain_environment())
            program.launch()
            stack.callback(program.stop)
            assert program.wait_until_ready()["event"] == "relaying"
            return program

        yield new


def group_of(topic: str) -> str:
    return f"{topic}-readers"


async def arrived(bootstrap: str, topic: str, wanted: Sequence[str], within_s: float = SOON_S) -> Counter[str]:
    """How often each order is in the topic, once all that are wanted are, or after `within_s`."""
    source = KafkaSource(bootstrap, topic, group_of(f"{topic}-{time.monotonic()}"))
    found: Counter[str] = Counter()
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await source.open()
                while len(found) < len(set(wanted)):
                    with contextlib.suppress(SourceUnavailable):
                        found += orders(await source.next(5_000, 0.5))
                found += orders(await source.next(5_000, 0.5))
    finally:
        await source.close()
    return found


def orders(messages: Sequence[Message]) -> Counter[str]:
    return Counter(message.notice.order for message in messages if message.notice is not None)


@contextlib.contextmanager
def selling(books: Books, every_s: float = 0.02) -> Iterator[list[str]]:
    """Ten reservations again and again, in a thread, as long as the block lasts; their ids."""
    ids: list[str] = []
    over = threading.Event()

    def sell() -> None:
        while not over.wait(every_s):
            ids.extend(books.sell(10))

    thread = threading.Thread(target=sell)
    thread.start()
    try:
        yield ids
    finally:
        over.set()
        thread.join()


async def nothing_waits(url: str) -> None:
    """Wait until the relays' group has nothing left."""
    streams = Streams(url, "relay")
    await streams.open()
    try:
        async with asyncio.timeout(SOON_S):
            while await streams.lag():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.1)
    finally:
        await streams.close()


@in_loop
async def test_each_notice_arrives_and_a_graceful_stop_leaves_nothing_half(
    valkey_url: str, kafka_bootstrap: str, new_relay: NewRelay
) -> None:
    topic = f"stops-{time.monotonic_ns()}"  # the relay makes it
    with selling(Books(valkey_url, "s", 2).create()) as ids:
        for number in range(3):
            program = new_relay(valkey_url, kafka_bootstrap, topic, f"relay-{number}")
            await asyncio.sleep(1)
            assert program.stop() == 0
    program = new_relay(valkey_url, kafka_bootstrap, topic, "last")
    await nothing_waits(valkey_url)
    assert await arrived(kafka_bootstrap, topic, ids) == Counter(ids)
    assert program.stop() == 0


@in_loop
async def test_relays_that_are_killed_lose_nothing(valkey_url: str, kafka_bootstrap: str, new_relay: NewRelay) -> None:
    topic = fresh_topic(kafka_bootstrap, PARTITIONS)
    with selling(Books(valkey_url, "s", 2).create(), 0.005) as ids:
        for number in range(4):
            victim = new_relay(valkey_url, kafka_bootstrap, topic, f"victim-{number}")
            beside = new_relay(valkey_url, kafka_bootstrap, topic, f"beside-{number}")
            await asyncio.sleep(0.3)
            victim.kill()
            await asyncio.sleep(0.3)
            beside.kill()
    new_relay(valkey_url, kafka_bootstrap, topic, "heir")
    found = await arrived(kafka_bootstrap, topic, ids, SOON_S + CLAIM_S)
    assert set(found) == set(ids)
    await nothing_waits(valkey_url)


class _DiesBeforeDone(Streams):
    async def done(self) -> None:
        raise asyncio.CancelledError


@in_loop
async def test_a_relay_that_dies_between_publishing_and_telling_so_causes_repetitions_only(
    valkey_url: str, kafka_bootstrap: str
) -> None:
    topic = fresh_topic(kafka_bootstrap)
    ids = Books(valkey_url, "s").create().sell(1_000)
    with pytest.raises(asyncio.CancelledError):
        await Relay(_DiesBeforeDone(valkey_url, "relay"), Publisher(kafka_bootstrap, topic), batch_max=300).run()
    heir = Relay(Streams(valkey_url, "relay", claim_s=0.5), Publisher(kafka_bootstrap, topic))
    running = asyncio.ensure_future(heir.run())
    await nothing_waits(valkey_url)
    heir.stop()
    await running
    found = await arrived(kafka_bootstrap, topic, ids)
    assert set(found) == set(ids)
    assert set(found.values()) == {1, 2}
    assert heir.published == 1_000


@in_loop
async def test_a_broker_that_is_killed_is_waited_for(valkey_url: str, new_kafka: NewKafka, new_relay: NewRelay) -> None:
    broker = new_kafka()
    topic = "notices"
    program = new_relay(valkey_url, broker.bootstrap, topic)
    with selling(Books(valkey_url, "s").create()) as ids:
        for _ in range(2):
            await asyncio.sleep(1)
            broker.kill()
            await asyncio.sleep(2)
            broker.start()
    assert set(await arrived(broker.bootstrap, topic, ids)) == set(ids)
    await nothing_waits(valkey_url)
    assert program.log.read_text().count("away") <= 2  # once for each time


@in_loop
async def test_a_relay_stops_in_time_while_the_broker_is_away(
    valkey_url: str, new_kafka: NewKafka, new_relay: NewRelay
) -> None:
    broker = new_kafka()
    program = new_relay(valkey_url, broker.bootstrap, "notices")
    broker.kill()
    Books(valkey_url, "s").create().sell(100)
    await asyncio.sleep(0.5)
    began_s = time.monotonic()
    program.ask_to_stop()
    assert await asyncio.to_thread(program.child.process.wait, 15) == 0
    assert time.monotonic() - began_s < 10
    streams = Streams(valkey_url, "relay")
    await streams.open()
    assert await streams.lag() > 0
    await streams.close()


@in_loop
async def test_a_ledger_that_is_killed_is_waited_for(kafka_bootstrap: str, new_relay: NewRelay) -> None:
    topic = fresh_topic(kafka_bootstrap)
    with own_valkey("fsync") as server:
        books = Books(server.url, "s").create()
        program = new_relay(server.url, kafka_bootstrap, topic)
        ids = books.sell(2_000, each=10)
        for _ in range(3):
            server.restart()
            ids += books.sell(500, each=10)
        found = await arrived(kafka_bootstrap, topic, ids, SOON_S + CLAIM_S)
        assert set(found) == set(ids)
        assert program.is_running


@in_loop
async def test_what_is_no_notice_goes_through_with_what_is_wrong_with_it(
    valkey_url: str, kafka_bootstrap: str, new_relay: NewRelay
) -> None:
    topic = fresh_topic(kafka_bootstrap)
    books = Books(valkey_url, "s").create()
    junk = books.write(b"\xc1junk" + bytes(2_000_000))  # more than brokers take
    ids = books.sell(10)
    new_relay(valkey_url, kafka_bootstrap, topic)
    await nothing_waits(valkey_url)
    source = KafkaSource(kafka_bootstrap, topic, group_of(topic))
    await source.open()
    messages: list[Message] = []
    async with asyncio.timeout(SOON_S):
        while len(messages) < len(ids) + 1:
            messages += await source.next(100, 0.5)
    await source.close()
    (wrong,) = (message for message in messages if message.notice is None)
    assert "no list of events" in wrong.error
    assert b"junk" in wrong.payload
    assert junk


_READER: Final = """
import asyncio, sys
from ticketrush.orders.kafka import KafkaSource
async def main():
    source = KafkaSource(*sys.argv[1:])
    await source.open()
    while not await source.next(100, 1):
        pass
    print("{}", flush=True)
    await asyncio.sleep(1_000)
asyncio.run(main())
"""


@in_loop
async def test_what_a_killed_reader_of_the_topic_had_comes_to_another(
    valkey_url: str, kafka_bootstrap: str, tmp_path: Path
) -> None:
    topic = fresh_topic(kafka_bootstrap, PARTITIONS)
    ids = Books(valkey_url, "s").create().sell(300)
    relay = Relay(Streams(valkey_url, "relay"), Publisher(kafka_bootstrap, topic))
    running = asyncio.ensure_future(relay.run())
    await nothing_waits(valkey_url)
    relay.stop()
    await running
    command = [sys.executable, "-c", _READER, kafka_bootstrap, topic, group_of(topic)]
    with processes.child("reader", command, tmp_path) as reader:
        assert await asyncio.to_thread(reader.first_line, SOON_S)
        reader.kill()
    source = KafkaSource(kafka_bootstrap, topic, group_of(topic))
    await source.open()
    found: Counter[str] = Counter()
    try:
        async with asyncio.timeout(SOON_S):
            while len(found) < len(ids):
                found += orders(await source.next(100, 0.5))
                await source.done()
    finally:
        await source.close()
    assert found == Counter(ids)


@in_loop
async def test_nothing_counts_as_published_while_no_broker_answers(valkey_url: str) -> None:
    Books(valkey_url, "s").create().sell(10)
    publisher = Publisher("127.0.0.1:1", "notices")
    with pytest.raises(BrokerUnavailable):
        await asyncio.wait_for(publisher.open(), 10)
    streams = Streams(valkey_url, "relay")
    await streams.open()
    messages = await streams.next(100, 1)
    publisher.stop()  # do not wait for long
    with pytest.raises(BrokerUnavailable):
        await asyncio.wait_for(publisher.publish(messages), 10)
    await publisher.close()
    assert await streams.lag() >= 1
    await streams.close()
