"""Which backend a URL names: the one place below the command line that knows them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ticketrush.addresses import FILE, REDIS_SCHEMES, check_orders
from ticketrush.errors import SettingsError
from ticketrush.ledger.embedded import EmbeddedLedger
from ticketrush.ledger.protocol import Ledger
from ticketrush.orders.journal_records import JournalRecords
from ticketrush.orders.journal_source import JournalSource
from ticketrush.orders.protocol import OrderStore, Source
from ticketrush.orders.reconciler import Records
from ticketrush.orders.sqlite import SqliteOrders
from ticketrush.settings import Settings, without_password

if TYPE_CHECKING:
    from ticketrush.ledger.redis import RedisLedger
    from ticketrush.orders.postgres import PostgresOrders


def ledger_of(url: str, *, durability: str = "fsync", node: str = "", shards: int = 1, ahead: int = 4) -> Ledger:
    """The ledger at `url`.

    - ``sqlite:///FILE``, or ``sqlite:////FILE`` for a path from the root: the ledger of one process;
    - ``redis://…``, ``redis+sentinel://…``, ``redis+cluster://…`` (``rediss`` for TLS): the ledger of
      many nodes, of which this one is `node`; a sale created here is spread over `shards` books. When it is
      busy it leases units for `ahead` batches in advance.

    Raises:
        SettingsError: no backend has such URLs, or it has no such durability.
    """
    if url.startswith(REDIS_SCHEMES):
        if durability not in {"fsync", "memory", "replica"}:
            raise SettingsError(f"durability {durability!r}: write fsync, memory or replica")
        return _redis_ledger()(url, durability=durability, node=node, shards=shards, ahead=ahead)
    path = url.removeprefix(FILE)
    if path == url or not path.strip("/"):
        raise SettingsError(f"ledger {url!r}: write sqlite:///FILE, or sqlite:////FILE for a path from the root")
    if durability not in {"fsync", "memory"}:
        raise SettingsError(f"durability {durability!r}: write fsync or memory")
    return EmbeddedLedger(path, durability=durability)


def store_of(url: str) -> OrderStore:
    """The order store at `url`, not yet open.

    - ``sqlite:///FILE``, or ``sqlite:////FILE`` for a path from the root: a file, for one machine;
    - ``postgresql://USER:PASSWORD@HOST:PORT/DATABASE``: PostgreSQL, for many.

    Raises:
        SettingsError: no store has such URLs, or it is not installed.
    """
    try:
        check_orders(url)
    except ValueError as error:
        raise SettingsError(f"orders {without_password(url)!r}: {error}") from None
    return SqliteOrders(url.removeprefix(FILE)) if url.startswith(FILE) else _postgres_orders()(url)


async def make_tables(url: str) -> list[str]:
    """Bring the tables of the order store at `url` to this program's version; the migrations that were applied.

    Raises:
        StoreUnavailable: it did not answer.
        StoreOutdated: they are newer than this program, or the store is something else.
    """
    store = store_of(url)
    try:
        return await store.migrate()
    finally:
        await store.close()


def source_of(settings: Settings, store: OrderStore, *, name: str = "") -> Source:
    """The event log that `settings` name: Kafka, if there are brokers, else the ledger's own events.

    `name` is the worker's own, see `KafkaSource`; "" if it has none.

    Raises:
        SettingsError: what it needs is not installed, or the URL is of no ledger.
    """
    ledger = settings.ledger
    if settings.kafka:
        kafka = _extra("kafka", "confluent_kafka", "ticketrush.orders.kafka")
        return cast(
            "Source",
            kafka.KafkaSource(settings.kafka, settings.kafka_topic, member=name, options=settings.kafka_properties),
        )
    if ledger.startswith(REDIS_SCHEMES):
        return cast("Source", _extra("redis", "redis", "ticketrush.orders.streams").Streams(ledger))
    return JournalSource(Path(ledger.removeprefix(FILE)), store)


def records_of(ledger: str, name: str) -> Records:
    """The reservations of the ledger at a URL, for comparison; `name` is that of the reader.

    Raises:
        SettingsError: what it needs is not installed.
    """
    if ledger.startswith(REDIS_SCHEMES):
        return cast("Records", _extra("redis", "redis", "ticketrush.orders.redis_records").RedisRecords(ledger, name))
    return JournalRecords(Path(ledger.removeprefix(FILE)))


def _extra(extra: str, needs: str, module: str) -> Any:
    """A module that needs more than the core does."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith((needs, "hiredis")):
            raise
        raise SettingsError(f"this needs more: pip install 'ticketrush[{extra}]'") from error


def _redis_ledger() -> type[RedisLedger]:
    """The backend that needs more than the core does."""
    try:
        from ticketrush.ledger.redis import RedisLedger  # noqa: PLC0415 - an extra, not always installed
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith(("redis", "hiredis")):
            raise
        raise SettingsError("a ledger in Redis needs more: pip install 'ticketrush[redis]'") from error
    return RedisLedger


def _postgres_orders() -> type[PostgresOrders]:
    """The store that needs more than the core does."""
    try:
        from ticketrush.orders.postgres import PostgresOrders  # noqa: PLC0415 - an extra, not always installed
    except ModuleNotFoundError as error:
        if error.name != "asyncpg":
            raise
        raise SettingsError("orders in PostgreSQL need more: pip install 'ticketrush[postgres]'") from error
    return PostgresOrders
