"""The order worker's source in Apache Kafka: the topic that the relay writes, read by a consumer group.

What was returned and is not `done` is sent again: after a crash, and when the brokers give a partition
to another worker of the group. Offsets are committed by `done` alone.

The library's calls block, so they are made in one thread; its own asyncio consumer is experimental,
and hands each call to a pool of threads as well.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Record

from ticketrush import logs
from ticketrush.errors import SettingsError
from ticketrush.ledger.worker import Worker
from ticketrush.orders.errors import SourceLost, SourceUnavailable
from ticketrush.orders.notices import decode
from ticketrush.orders.protocol import Message
from ticketrush.orders.publisher import CONNECT_S, ERROR, client_of, on_brokers, words_of

GROUP: Final = "ticketrush-orders"

POLL_S_MAX: Final = 60.0
"""How long a reader may be busy with what it has read; one that died while it joined is waited for that long."""

ENDS_MAX: Final = 3
ENDS_S: Final = 30.0
"""How often in this time the library's consumer may come to its end before the reader does, too."""

SESSION_S: Final = 10.0
"""How long a worker may be silent before its partitions go to others; also how long a commit may wait for an answer."""

ANSWER_S: Final = 2.0
"""How long brokers that may be away are waited for."""

_REBALANCED: Final = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        KafkaError._ASSIGNMENT_LOST,
    }
)
"""What a commit is refused with when the partitions are, or are about to be, somebody else's."""

_P = ParamSpec("_P")
_R = TypeVar("_R")

log = logs.get("ticketrush.orders.kafka")


class KafkaSource:
    """A `Source`. It belongs to one event loop.

    Raises from every call:
        SettingsError: another reader has come under the same name.
        SourceLost: the library's consumer has ended for another reason.

    Args:
        brokers: ``host:port``, or several with commas between them.
        topic: what the relay writes.
        group: who reads: each group is told everything, each of its members a part.
        member: a name of its own in the group: a process that is started again under it goes on at once, instead
            of when the brokers have given the dead one up. Two that run must not have the same. "" has none.
        options: more properties of the library.
    """

    def __init__(
        self,
        brokers: str,
        topic: str,
        group: str = GROUP,
        *,
        member: str = "",
        options: Mapping[str, str] | None = None,
    ) -> None:
        self._options = options or {}
        self.name = f"kafka/{topic}"
        self._brokers, self._topic, self._group = brokers, topic, group
        self._name = member
        self._member = {"group_instance_id": member} if member else {}
        self._thread = Worker("kafka-source")
        self._consumer: Consumer | None = None
        self._waiting: deque[Record] = deque()
        """Read, and not returned yet."""
        self._returned: dict[int, int] = {}
        """Partition -> the offset behind what was returned of it, and is not done."""
        self._done: dict[int, int] = {}
        """The same of what is done, and is not committed."""
        self._may_be_away = False
        self._fatal: KafkaError | None = None
        """What has ended the library's consumer for good."""
        self._ends: deque[float] = deque()
        """When that happened lately, monotonic."""
        self._is_left = False
        """The next call makes another consumer."""

    async def open(self) -> None:
        """See `Source.open`. Raises SourceUnavailable also while the topic is missing.

        Raises:
            SettingsError: the library does not take the options.
        """
        await self._call(self._open)

    async def close(self) -> None:
        """See `Source.close`."""
        await self._thread.call(self._close)
        self._thread.stop()

    def position(self) -> None:
        """See `Source.position`: the brokers keep it."""

    async def next(self, most: int, wait_s: float) -> Sequence[Message]:
        """See `Source.next`."""
        if not self._waiting:
            await self._call(self._read, most, wait_s)
        messages: list[Message] = []
        while self._waiting and len(messages) < most:  # nothing is awaited here: who is cancelled has not got them
            record = self._waiting.popleft()
            self._returned[_place(record)[0]] = _place(record)[1] + 1
            messages.append(_message(self._topic, record))
        return messages

    async def done(self) -> None:
        """See `Source.done`. Of partitions that others have by now, nothing is committed: they read that again."""
        self._done |= self._returned
        self._returned.clear()
        await self._call(self._commit)

    async def lag(self) -> int:
        """See `Source.lag`: of the whole group, over all partitions."""
        return await self._call(self._lag)

    # --- in the thread ----------------------------------------------------------------------

    async def _call(self, function: Callable[_P, _R], *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return await self._thread.call(function, *args, **kwargs)
        except KafkaException as error:
            await self._join_again(error.args[0])
            raise SourceUnavailable(f"Kafka at {self._brokers}, topic {self._topic}: {words_of(error)}") from error

    async def _join_again(self, error: object) -> None:
        """Let a consumer that is at its end be followed by another; unless that has been tried again and again.

        Brokers that were killed may come back with a group in which this reader still has its last place, and
        refuse the one that it has now. That ends with the next try; a second reader of the same name does not.
        """
        fatal = self._fatal or (error if isinstance(error, KafkaError) and _ends(error) else None)
        if fatal is None:
            return
        now_s = time.monotonic()
        while self._ends and self._ends[0] < now_s - ENDS_S:
            self._ends.popleft()
        self._ends.append(now_s)
        if len(self._ends) > ENDS_MAX:
            self._lost(fatal)
        log.warning("joins_again", error=words_of(fatal))
        await self._thread.call(self._close)
        self._is_left = True

    def _lost(self, fatal: KafkaError) -> NoReturn:
        """Raise what ends this reader; asking again would help nobody."""
        if fatal.code() == KafkaError.FENCED_INSTANCE_ID or "fenced" in words_of(fatal):
            raise SettingsError(
                f"another worker of Kafka at {self._brokers}, topic {self._topic}, has been started with --name "
                f"{self._name}: give each a name of its own, or none"
            )
        raise SourceLost(
            f"Kafka at {self._brokers}, topic {self._topic} has no place for this worker any more: {words_of(fatal)}; "
            "start it again"
        )

    def _open(self) -> None:
        self._close()
        self._fatal, self._is_left = None, False
        about = on_brokers(
            self._brokers,
            "ticketrush-work",
            self._complain,
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=round(SESSION_S * 1_000),
            heartbeat_interval_ms=1_000,
            max_poll_interval_ms=round(POLL_S_MAX * 1_000),
            socket_timeout_ms=round(SESSION_S * 1_000),
            partition_assignment_strategy="cooperative-sticky",
            fetch_error_backoff_ms=100,
            queued_max_messages_kbytes=16 * 1_024,
            **self._member,
        )
        consumer = client_of(Consumer, self._options, about)
        try:
            self._partitions(consumer, CONNECT_S)
            consumer.subscribe([self._topic], on_revoke=self._revoked, on_lost=self._revoked)
        except BaseException:
            consumer.close()
            raise
        self._consumer = consumer

    def _close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close()
        for kept in (self._waiting, self._returned, self._done):
            kept.clear()

    @property
    def _open_consumer(self) -> Consumer:
        if self._is_left:
            self._open()
        if self._consumer is None:
            raise KafkaException(KafkaError(KafkaError._STATE, "it is not open"))
        return self._consumer

    def _partitions(self, consumer: Consumer, within_s: float) -> list[TopicPartition]:
        about = consumer.list_topics(self._topic, timeout=within_s).topics[self._topic]
        if about.error is not None:
            raise KafkaException(about.error)
        return [TopicPartition(self._topic, number) for number in about.partitions]

    def _read(self, most: int, wait_s: float) -> None:
        """Wait for one, then take what else is there."""
        consumer = self._open_consumer
        found = consumer.consume(1, wait_s)
        if found and most > 1:
            found += consumer.consume(most - 1, 0.0)
        good = [record for record in found if record.error() is None]
        self._waiting += good
        if good:
            return
        if found:
            raise KafkaException(found[0].error())
        if self._fatal is not None:
            raise KafkaException(self._fatal)
        self._commit()
        if self._may_be_away:
            self._partitions(consumer, ANSWER_S)
            self._may_be_away = False

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        """Others have these partitions from now on; called by the library from within `consume` and `close`."""
        gone = {each.partition for each in partitions}
        kept = [record for record in self._waiting if _place(record)[0] not in gone]
        self._waiting.clear()
        self._waiting += kept
        for number in gone:
            self._returned.pop(number, None)
            self._done.pop(number, None)

    def _commit(self) -> None:
        """Commit what is done. During a rebalance that is refused: then it is tried again when nothing else is new."""
        if not self._done:
            return
        offsets = [TopicPartition(self._topic, number, end) for number, end in self._done.items()]
        try:
            answers: Sequence[TopicPartition] = self._open_consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            refusals = [error.args[0]]
        else:
            refusals = [each.error for each in answers if each.error is not None]
        if not refusals:
            self._done.clear()
        elif all(each.code() in _REBALANCED for each in refusals):
            log.info("partitions_move", error=words_of(refusals[0]))
        else:
            raise KafkaException(refusals[0])

    def _lag(self) -> int:
        consumer, until_s = self._open_consumer, time.monotonic() + CONNECT_S
        lag = 0
        for each in consumer.committed(self._partitions(consumer, ANSWER_S), ANSWER_S):
            marks = consumer.get_watermark_offsets(each, timeout=max(0.1, until_s - time.monotonic()))
            lag += marks[1] - max(marks[0], each.offset)
        return lag

    def _complain(self, error: KafkaError) -> None:
        log.debug("kafka", error=words_of(error))
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._may_be_away = True
        if _ends(error):
            self._fatal = error


def _ends(error: KafkaError) -> bool:
    """Whether the library's consumer can do nothing more after this."""
    return error.fatal() or error.code() in {KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID}


def _place(record: Record) -> tuple[int, int]:
    """Partition and offset."""
    partition, offset = record.partition(), record.offset()
    assert partition is not None
    assert offset is not None
    return partition, offset


def _message(topic: str, record: Record) -> Message:
    where = "/".join((topic, *map(str, _place(record))))
    payload = record.value() or b""
    try:
        return Message(where, payload, decode(payload))
    except (ValueError, RecursionError) as error:
        return Message(where, payload, None, _told_error(record) or f"no notice: {error}")


def _told_error(record: Record) -> str:
    """What the relay has found wrong with it, if it did."""
    headers: Any = record.headers() or ()
    return next((value.decode(errors="replace") for name, value in headers if name == ERROR and value), "")
