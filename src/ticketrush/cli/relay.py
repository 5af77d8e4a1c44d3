"""`ticketrush relay`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated

import typer
import uvloop

from ticketrush import logs
from ticketrush._version import __version__
from ticketrush.cli import output
from ticketrush.cli.app import UsageError
from ticketrush.cli.flags import Config, flag, setting, settings_of
from ticketrush.cluster.plan import SHARED
from ticketrush.errors import SettingsError
from ticketrush.settings import Settings, without_password

if TYPE_CHECKING:
    from ticketrush.orders.relay import Relay

EPILOG = """Examples: `ticketrush relay --ledger redis://valkey:6379/0 --kafka kafka-1:9092,kafka-2:9092` publishes,
and `ticketrush work --kafka kafka-1:9092 --orders postgresql://shop@db/shop` makes orders of it. · `ticketrush relay
--kafka kafka:9092 --partitions 24 --replicas 3 --ledger redis+sentinel://s1:26379,s2:26379/tickets` makes a topic
that survives the loss of two brokers. · Exit codes: 0 stopped by SIGTERM or Ctrl-C · 2 wrong usage or settings."""

BY_THE_BROKERS = 0
"""As a flag: what the brokers give a topic by themselves."""


def relay(
    ctx: typer.Context,
    ledger: Annotated[str | None, setting("ledger", "--ledger", metavar="URL")] = None,
    kafka: Annotated[str | None, setting("kafka", "--kafka", metavar="HOST:PORT")] = None,
    kafka_topic: Annotated[str | None, setting("kafka_topic", "--topic", metavar="NAME")] = None,
    partitions: Annotated[
        int,
        flag(
            "RELAY_PARTITIONS",
            "Partitions of a topic that is made: at most as many order workers share it. 0: the brokers' default.",
            "--partitions",
            min=0,
            max=10_000,
        ),
    ] = BY_THE_BROKERS,
    replicas: Annotated[
        int,
        flag(
            "RELAY_REPLICAS",
            "Brokers that have a copy of a topic that is made. 0: the brokers' default.",
            "--replicas",
            min=0,
            max=100,
        ),
    ] = BY_THE_BROKERS,
    config: Config = None,
    as_json: Annotated[
        bool, flag("RELAY_JSON", "Announce as a line of JSON that it works, and at the end what it did.", "--json")
    ] = False,
) -> None:
    """Publish what happens to reservations to Apache Kafka, until SIGTERM or Ctrl-C.

    Reads the streams of a ledger in Redis or Valkey, and writes a message for each fact: the key is the order's
    id, the value is JSON like `{"order":"ID","kind":"paid","at_ms":1764000000000,"payment":"ID"}`, the header `id`
    is the same for the same fact. Every fact comes at least once, and rarely more often; facts of one order may
    come late or out of order, so readers go by their kind and time.

    Nothing counts as published before all in-sync replicas have it (set min.insync.replicas to 2 on the topic,
    and one broker may be lost). Any number of relays may run, and they share the work; what a dead one left is
    taken over after ten seconds. While Kafka or the ledger is away it waits, however long.
    """
    settings = settings_of(ctx)
    if not settings.ledger.startswith(SHARED):
        raise UsageError(
            f"{without_password(settings.ledger)} is no ledger of many nodes; name a Redis or Valkey, like --ledger "
            "redis://127.0.0.1:6379/0. `ticketrush work` reads the journal in a file by itself"
        )
    if not settings.kafka:
        raise SettingsError("kafka is empty, so there is nowhere to publish to: name a broker with --kafka HOST:PORT")
    logs.configure(settings.log_level, settings.log_format)
    made = _relay(settings, partitions, replicas)
    uvloop.run(made.until_signalled(lambda: _announce(settings, as_json=as_json)))
    if as_json:
        print(json.dumps({"event": "stopped", "published": made.published}))
    else:
        output.say(f"stopped: {made.published:,} messages published", aside=True)


def _relay(settings: Settings, partitions: int, replicas: int) -> Relay:
    try:
        from ticketrush.orders.publisher import BROKERS_DEFAULT, Publisher  # noqa: PLC0415 - extras
        from ticketrush.orders.relay import Relay  # noqa: PLC0415
        from ticketrush.orders.streams import Streams  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith(("confluent_kafka", "redis", "hiredis")):
            raise
        raise SettingsError("the relay needs more: pip install 'ticketrush[redis,kafka]'") from error
    publisher = Publisher(
        settings.kafka,
        settings.kafka_topic,
        partitions=partitions or BROKERS_DEFAULT,
        replicas=replicas or BROKERS_DEFAULT,
        options=settings.kafka_properties,
    )
    return Relay(Streams(settings.ledger, "relay"), publisher)


def _announce(settings: Settings, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"event": "relaying", "pid": os.getpid(), "topic": settings.kafka_topic}), flush=True)
        return
    output.say(f"ticketrush {__version__} relays (pid {os.getpid()})", "bold")
    output.say(f"  from        {without_password(settings.ledger)}")
    output.say(f"  to          topic {settings.kafka_topic} at {settings.kafka}")
    output.say("  stop with Ctrl-C")
