"""A small server's own process: ``python -m ticketrush.strategies order-first sqlite --tickets 100 --json``.

Where its database is comes in the environment (it may have a password in it). It announces its URL
as a line of JSON, as ``ticketrush serve --json`` does, and after SIGTERM says in another what is in
its books.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from ticketrush.strategies.server import serve
from ticketrush.strategies.shop import STRATEGIES
from ticketrush.strategies.sqlite import SqliteStore
from ticketrush.strategies.store import DATABASE_AT, Store


def store_of(kind: str, at: str) -> Store:
    """The store of a kind, at a file or a URL."""
    if kind == "sqlite":
        return SqliteStore(Path(at))
    from ticketrush.strategies.postgres import PostgresStore  # noqa: PLC0415 - an extra, not always installed

    return PostgresStore(at)


def main() -> int:
    """Serve until SIGTERM. Exit code 0 if the books were closed."""
    parser = argparse.ArgumentParser(prog="python -m ticketrush.strategies", description=__doc__)
    parser.add_argument("strategy", choices=sorted(STRATEGIES))
    parser.add_argument("database", choices=("sqlite", "postgres"))
    parser.add_argument("--tickets", type=int, required=True)
    parser.add_argument("--host", choices=("127.0.0.1",))
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="announce as JSON, which it always does")
    arguments = parser.parse_args()
    store = store_of(arguments.database, os.environ[DATABASE_AT])
    strategy = STRATEGIES[arguments.strategy](store)
    books = serve(strategy, store, arguments.tickets, arguments.port, _announce)
    _say({"event": "stopped", **books._asdict()})
    return 0


def _announce(url: str) -> None:
    _say({"event": "serving", "url": url, "pid": os.getpid()})


def _say(facts: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
