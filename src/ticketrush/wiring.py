"""Which backend a URL names: the one place below the command line that knows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ticketrush.errors import SettingsError
from ticketrush.ledger.embedded import EmbeddedLedger
from ticketrush.ledger.protocol import Ledger
from ticketrush.orders.protocol import OrderStore
from ticketrush.orders.sqlite import SqliteOrders
from ticketrush.settings import without_password

_SQLITE = "sqlite:///"


if TYPE_CHECKING:
    from ticketrush.ledger.redis import RedisLedger

_REDIS = ("redis", "rediss")


def ledger_of(url: str, *, durability: str = "fsync", node: str = "", shards: int = 1, ahead: int = 4) -> Ledger:
    """The ledger at `url`.

    - ``sqlite:///FILE``, or ``sqlite:////FILE`` for a path from the root: the ledger of one process;
    - ``redis://…``, ``redis+sentinel://…``, ``redis+cluster://…`` (``rediss`` for TLS): the ledger of
      many nodes, of which this one is `node`; a sale created here is spread over `shards` books. When it is
      busy it leases units for `ahead` batches in advance.

    Raises:
        SettingsError: no backend has such URLs, or it has no such durability.
    """
    if url.partition(":")[0].partition("+")[0] in _REDIS:
        if durability not in {"fsync", "memory", "replica"}:
            raise SettingsError(f"durability {durability!r}: write fsync, memory or replica")
        return _redis_ledger()(url, durability=durability, node=node, shards=shards, ahead=ahead)
    path = url.removeprefix(_SQLITE)
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
        SettingsError: no store has such URLs.
    """
    path = url.removeprefix(_SQLITE)
    if path == url or not path.strip("/"):
        raise SettingsError(
            f"orders {without_password(url)!r}: write sqlite:///FILE, or sqlite:////FILE for a path from the root"
        )
    return SqliteOrders(path)


def _redis_ledger() -> type[RedisLedger]:
    """The backend that needs more than the core does."""
    try:
        from ticketrush.ledger.redis import RedisLedger  # noqa: PLC0415 - an extra, not always installed
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith(("redis", "hiredis")):
            raise
        raise SettingsError("a ledger in Redis needs more: pip install 'ticketrush[redis]'") from error
    return RedisLedger
