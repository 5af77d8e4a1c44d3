"""The topic as an event log: whatever happens to readers, each notice comes to somebody."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Sequence

import pytest
from confluent_kafka import Producer

from tests.books import AT_MS
from tests.in_loop import in_loop
from tests.kafka import fresh_topic
from tests.order_sources import SOON_S, orders, read, reading, settles
from ticketrush.errors import SettingsError
from ticketrush.orders.errors import SourceUnavailable
from ticketrush.orders.kafka import KafkaSource
from ticketrush.orders.model import Kind, Notice
from ticketrush.orders.notices import encode
from ticketrush.orders.protocol import Message, Source


def publish(bootstrap: str, topic: str, payloads: Sequence[bytes | None], partitions: int = 1) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all"})
    for number, payload in enumerate(payloads):
        producer.produce(topic, payload, f"{number}", number % partitions)
    assert producer.flush(SOON_S) == 0


def notices(count: int, first: int = 0) -> list[bytes]:
    return [encode(Notice(f"order-{n}", Kind.EXPIRED, AT_MS)) for n in range(first, first + count)]


def expired(messages: Sequence[Message]) -> Counter[str]:
    return orders(messages, Kind.EXPIRED)


@in_loop
async def test_a_topic_is_read_from_its_beginning(kafka_bootstrap: str, kafka_topic: str) -> None:
    publish(kafka_bootstrap, kafka_topic, notices(500))
    for group in ("a", "b"):
        source = KafkaSource(kafka_bootstrap, kafka_topic, kafka_topic + group)
        async with reading(source):
            messages = await read(source, 500)
            assert await settles(source) == 0
        assert expired(messages) == Counter(f"order-{n}" for n in range(500))
        assert messages[0].where == f"{kafka_topic}/0/0"
        assert messages[-1].where == f"{kafka_topic}/0/499"


class _CommitsTooEarly(KafkaSource):
    """A planted bug: what was read counts as done."""

    async def next(self, most: int, wait_s: float) -> Sequence[Message]:
        messages = await super().next(most, wait_s)
        await self.done()
        return messages


@pytest.mark.parametrize("kind", [KafkaSource, _CommitsTooEarly])
@in_loop
async def test_what_was_not_done_is_sent_again(kafka_bootstrap: str, kafka_topic: str, kind: type[KafkaSource]) -> None:
    publish(kafka_bootstrap, kafka_topic, notices(300))
    first = kind(kafka_bootstrap, kafka_topic, kafka_topic)
    async with reading(first):
        done = await read(first, 100)
        undone = await first.next(50, SOON_S)
        assert undone
    second = KafkaSource(kafka_bootstrap, kafka_topic, kafka_topic)
    skipped = 0 if kind is KafkaSource else len(undone)
    async with reading(second):
        again = await read(second, 300 - len(done) - skipped)
        assert await settles(second) == 0
    places = {message.where for message in (*done, *again)}
    assert places == {f"{kafka_topic}/0/{n}" for n in range(300)} - {each.where for each in undone[:skipped]}
    assert len(done) + len(again) == len(places)


@in_loop
async def test_a_message_that_is_no_notice_is_told_as_such(kafka_bootstrap: str, kafka_topic: str) -> None:
    junk = (b"", None, b"\xff", b"[]", b'{"order":"x"}', b"[" * 100_000)
    publish(kafka_bootstrap, kafka_topic, [*notices(5), *junk, *notices(5, 5)])
    source = KafkaSource(kafka_bootstrap, kafka_topic, kafka_topic)
    async with reading(source):
        messages = await read(source, 10 + len(junk))
        assert await settles(source) == 0
    wrong = [message for message in messages if message.notice is None]
    assert [message.where for message in wrong] == [f"{kafka_topic}/0/{n}" for n in range(5, 5 + len(junk))]
    assert all(message.error for message in wrong)
    assert [message.error for message in wrong[:2]] == ["no notice: empty message"] * 2
    assert len(expired(messages)) == 10


@in_loop
async def test_a_second_reader_takes_partitions_over_and_nothing_is_lost(kafka_bootstrap: str) -> None:
    topic = fresh_topic(kafka_bootstrap, 4)
    publish(kafka_bootstrap, topic, notices(400), 4)
    one, other = (KafkaSource(kafka_bootstrap, topic, topic) for _ in range(2))
    found: list[Message] = []
    shares = [0, 0]
    async with reading(one):
        undone = await one.next(200, SOON_S)  # read, and never stored before the other one comes
        async with reading(other), asyncio.timeout(60):
            published = 400
            while len(expired(found)) < published or min(shares) == 0 or await settles(one):
                for number, source in enumerate((one, other)):
                    messages = await source.next(100, 0.1)
                    if number == 0 and undone:
                        found, undone = [*undone], []  # now it is
                    found += messages
                    shares[number] += len(messages)
                    with contextlib.suppress(SourceUnavailable):  # shares are dealt anew: the next one says it
                        await source.done()
                if min(shares) == 0:  # the other one has not come yet
                    publish(kafka_bootstrap, topic, notices(100, published), 4)
                    published += 100
    assert set(expired(found)) == {f"order-{n}" for n in range(published)}


async def work_for_ever(source: Source) -> None:
    """As a worker does."""
    while True:
        with contextlib.suppress(SourceUnavailable):
            await source.done()
            await source.next(5, 0.2)


@in_loop
async def test_two_readers_of_one_name_take_turns_until_one_ends_and_says_why(
    kafka_bootstrap: str, kafka_topic: str
) -> None:
    publish(kafka_bootstrap, kafka_topic, notices(10))
    one, other = (KafkaSource(kafka_bootstrap, kafka_topic, kafka_topic, member="same") for _ in range(2))
    async with reading(one):
        assert await one.next(5, SOON_S)
        async with reading(other), asyncio.timeout(60):
            both = [asyncio.ensure_future(work_for_ever(each)) for each in (one, other)]
            with pytest.raises(SettingsError, match="--name same"):
                await asyncio.gather(*both)
            for task in both:
                task.cancel()
            await asyncio.wait(both)


@in_loop
async def test_a_topic_that_is_not_there_is_waited_for(kafka_bootstrap: str, kafka_topic: str) -> None:
    source = KafkaSource(kafka_bootstrap, kafka_topic + "-none", kafka_topic)
    with pytest.raises(SourceUnavailable, match="UNKNOWN_TOPIC"):
        await source.open()
    await source.close()


@in_loop
async def test_no_broker_is_an_error_in_time() -> None:
    source = KafkaSource("127.0.0.1:1", "t")
    with pytest.raises(SourceUnavailable):
        await asyncio.wait_for(source.open(), 10)
    await source.close()
