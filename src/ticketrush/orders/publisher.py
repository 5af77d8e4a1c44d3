"""Notices as messages in a topic of Apache Kafka, written so that what was acknowledged is kept.

A message a notice: the key is the order's id, so that all of an order are in one partition; the value
is the notice as JSON; the header ``id`` is the notice's id, by which a reader knows a repetition.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from ticketrush import logs
from ticketrush.errors import SettingsError
from ticketrush.ledger.worker import Worker
from ticketrush.orders.errors import BrokerUnavailable
from ticketrush.orders.model import PAYLOAD_MAX
from ticketrush.orders.protocol import Message

ID: Final = "id"
"""Header: which notice it is."""

ERROR: Final = "error"
"""Header of a message that is no notice: what is wrong with it."""

BROKERS_DEFAULT: Final = -1
"""As a number of partitions or replicas: what the brokers are configured to give."""

CONNECT_S: Final = 5.0

DELIVERY_S: Final = 10.0
"""How long a message may take until enough brokers have it; then it counts as not delivered."""

STOP_S: Final = 2.0

QUEUE_MAX: Final = 20_000
"""Messages in the producer at most."""

_LINGER_MS: Final = 5
_LOOK_S: Final = 0.1

_SECRET: Final = ("password", "secret", "pem", "config")
"""What is in the names of properties whose values nobody is to see."""

_Client = TypeVar("_Client")

log = logs.get("ticketrush.orders.kafka")


def client_of(kind: Callable[[dict[str, Any]], _Client], options: Mapping[str, str], about: dict[str, Any]) -> _Client:
    """A client of the library, told `about`, and `options` in the places of ours.

    Raises:
        SettingsError: the library does not take them; says which one, and no secret.
    """
    try:
        return kind({**about, **options})
    except KafkaException as error:
        if not options:
            raise
        words = words_of(error).partition(": ")[2]
        for name, value in options.items():
            if any(each in name for each in _SECRET):
                words = words.replace(value, "(hidden)")
        raise SettingsError(f"kafka_options are refused by the Kafka library: {words.strip()}") from None


def on_brokers(brokers: str, name: str, complain: Any, **more: Any) -> dict[str, Any]:
    """What every client is told; `complain` hears what the library would print."""
    return {
        "bootstrap.servers": brokers,
        "client.id": name,
        "error_cb": complain,
        "log_level": 0,  # it says the same on standard error, again and again
        "reconnect.backoff.max.ms": 1_000,
        "socket.keepalive.enable": True,
        **{key.replace("_", "."): value for key, value in more.items()},
    }


class _Reports:
    """What the brokers said of the messages of one batch."""

    def __init__(self) -> None:
        self.delivered = 0
        self.failed: KafkaError | None = None

    def hear(self, error: KafkaError | None, _: object) -> None:
        if error is None:
            self.delivered += 1
        elif self.failed is None or error.fatal():
            self.failed = error


class Publisher:
    """Writes to one topic. One task calls it; it belongs to one event loop.

    Args:
        brokers: ``host:port``, or several with commas between them.
        topic: where to; made when it is missing.
        partitions: of a topic that is made.
        replicas: of a topic that is made.
        options: more properties of the library, for each client.
    """

    def __init__(
        self,
        brokers: str,
        topic: str,
        *,
        partitions: int = BROKERS_DEFAULT,
        replicas: int = BROKERS_DEFAULT,
        options: Mapping[str, str] | None = None,
    ) -> None:
        self.topic = topic
        self._options = options or {}
        self._brokers, self._partitions, self._replicas = brokers, partitions, replicas
        self._thread = Worker("kafka-publisher")
        self._producer: Producer | None = None
        self._stop_by_s = math.inf

    async def open(self) -> None:
        """Make the topic, if it is missing.

        Raises:
            BrokerUnavailable: no broker answers, or they refuse to make it.
            SettingsError: the library does not take the options.
        """
        await self._thread.call(self._make_topic)

    def stop(self) -> None:
        """Do not wait for long any more: a `publish` under way ends within `STOP_S`, delivered or not."""
        self._stop_by_s = min(self._stop_by_s, time.monotonic() + STOP_S)

    async def close(self) -> None:
        """Let it go; what was not delivered is not sent any more. May be called twice."""
        self.stop()
        await self._thread.call(self._drop)
        self._thread.stop()

    async def publish(self, messages: Sequence[Message]) -> None:
        """Write all of them; when this returns, all in-sync replicas have all of them.

        Raises:
            BrokerUnavailable: not all were delivered within `DELIVERY_S`. Publish all again; some may be there twice.
        """
        await self._thread.call(self._publish, messages)

    # --- in the thread ----------------------------------------------------------------------

    def _make_topic(self) -> None:
        try:
            about = on_brokers(self._brokers, "ticketrush-relay", _complain)
            admin = client_of(AdminClient, self._options, about)
            if self.topic in admin.list_topics(timeout=CONNECT_S).topics:
                return
            wanted = NewTopic(self.topic, num_partitions=self._partitions, replication_factor=self._replicas)
            admin.create_topics([wanted], operation_timeout=CONNECT_S)[self.topic].result(2 * CONNECT_S)
            log.info("topic_made", topic=self.topic)
        except (KafkaException, TimeoutError) as error:
            if _code_of(error) != KafkaError.TOPIC_ALREADY_EXISTS:
                raise BrokerUnavailable(f"Kafka at {self._brokers}, topic {self.topic}: {words_of(error)}") from error

    def _publish(self, messages: Sequence[Message]) -> None:
        producer = self._producer = self._producer or self._make()
        reports = _Reports()
        give_up_s = time.monotonic() + DELIVERY_S + CONNECT_S
        try:
            for message in messages:
                self._hand_over(producer, message, reports, give_up_s)
            while producer.flush(_LOOK_S) and not self._is_over(give_up_s):
                pass
        except KafkaException as error:
            reports.failed = error.args[0]
        if reports.delivered == len(messages):
            return
        self._drop()  # whatever state it is in, a new one begins without it
        failed = words_of(reports.failed) if reports.failed is not None else "no answer in time"
        raise BrokerUnavailable(f"Kafka at {self._brokers}, topic {self.topic}: {failed}")

    def _hand_over(self, producer: Producer, message: Message, reports: _Reports, give_up_s: float) -> None:
        notice = message.notice
        if notice is None:
            key, about = message.where, {ID: message.where, ERROR: message.error}
        else:
            key, about = notice.order, {ID: notice.id}
        payload = message.payload[:PAYLOAD_MAX]  # a notice is far smaller; brokers would never take more than 1 MB
        headers: dict[str, str | bytes | None] = {**about}
        send = partial(producer.produce, self.topic, payload, key, on_delivery=reports.hear, headers=headers)
        while True:
            try:
                return send()
            except BufferError:  # it is full: let it work
                if self._is_over(give_up_s):
                    return None
                producer.poll(_LOOK_S)

    def _is_over(self, give_up_s: float) -> bool:
        return time.monotonic() > min(give_up_s, self._stop_by_s)

    def _make(self) -> Producer:
        about = on_brokers(
            self._brokers,
            "ticketrush-relay",
            _complain,
            acks="all",
            enable_idempotence=True,
            linger_ms=_LINGER_MS,
            compression_type="lz4",
            delivery_timeout_ms=round(DELIVERY_S * 1_000),
            queue_buffering_max_messages=QUEUE_MAX,
        )
        return client_of(Producer, self._options, about)

    def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.flush(_LOOK_S)


def _complain(error: KafkaError) -> None:
    log.debug("kafka", error=words_of(error))


def _code_of(error: BaseException) -> int | None:
    first = error.args[0] if error.args else None
    return first.code() if isinstance(first, KafkaError) else None


def words_of(error: BaseException | KafkaError) -> str:
    """What the library says went wrong."""
    if isinstance(error, KafkaError):
        return f"{error.name()}: {error.str()}"
    first = error.args[0] if error.args else None
    return words_of(first) if isinstance(first, KafkaError) else (str(error) or "no answer in time")
