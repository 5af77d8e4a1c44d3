"""`ticketrush work`."""

from __future__ import annotations

import json
import os
import socket
from typing import Annotated, Final

import typer
import uvloop

from ticketrush import logs
from ticketrush._version import __version__
from ticketrush.cli import output
from ticketrush.cli.flags import Config, flag, setting, settings_of
from ticketrush.clock import SystemClock
from ticketrush.errors import SettingsError
from ticketrush.orders.protocol import OrderStore
from ticketrush.orders.reconciler import Reconciler
from ticketrush.orders.service import COMPARE_EVERY_S
from ticketrush.orders.service import work as run
from ticketrush.orders.worker import OrderWorker
from ticketrush.settings import Settings, without_password
from ticketrush.wiring import make_tables, records_of, source_of, store_of

EPILOG = """Examples: `ticketrush work --ledger sqlite:///tickets.db --orders sqlite:///orders.db` beside `ticketrush
serve`. · `ticketrush work --ledger redis://valkey:6379/0 --orders postgresql://shop@db/shop` reads the ledger's
streams. · `ticketrush work --kafka kafka:9092 --orders postgresql://shop@db/shop` reads what `ticketrush relay`
publishes. · Exit codes: 0 stopped by SIGTERM or Ctrl-C · 2 wrong usage or settings, or tables that want
`ticketrush migrate` · 4 a store in a file that cannot be written at the start, or Kafka that has no place for this
worker any more."""

TURN: Final = 0.9
"""How much of the time between two comparisons another worker leaves to the one that compares."""


def work(
    ctx: typer.Context,
    ledger: Annotated[str | None, setting("ledger", "--ledger", metavar="URL")] = None,
    kafka: Annotated[str | None, setting("kafka", "--kafka", metavar="HOST:PORT")] = None,
    orders: Annotated[str | None, setting("orders", "--orders", metavar="URL")] = None,
    name: Annotated[
        str,
        flag(
            "WORK_NAME",
            "A name that no other worker has. One that is started again under its name goes on at once, where Kafka "
            "would wait some seconds for the one that died.",
            "--name",
            show_default="none",
        ),
    ] = "",
    metrics_port: Annotated[
        int | None,
        flag("WORK_METRICS_PORT", "Serve /metrics at this port of 127.0.0.1; 0 takes a free one.", "--metrics-port"),
    ] = None,
    compare_every: Annotated[
        float,
        flag(
            "WORK_COMPARE_EVERY",
            "How often to hold the store against the ledger and put right what it lacks, which reads all of both: one "
            "worker does it, when nothing waits in the log. 0 never does.",
            "--compare-every",
            metavar="SECONDS",
            min=0,
        ),
    ] = COMPARE_EVERY_S,
    config: Config = None,
    as_json: Annotated[
        bool, flag("WORK_JSON", "Announce as a line of JSON that it works, and at the end what it did.", "--json")
    ] = False,
) -> None:
    """Make orders of what happens to reservations, until SIGTERM or Ctrl-C.

    Reads the event log (the ledger's own, or Kafka) at least once, and writes each order exactly once in effect.
    Any number may run; one that dies is replaced by the others, or by its next start. A log or a store that is
    away is waited for, however long; nothing is dropped. What the store refuses is kept as a dead letter:
    `ticketrush orders dead-letters` shows them.
    """
    settings = settings_of(ctx)
    if not settings.orders:
        raise SettingsError(
            "orders is empty, so there is nowhere to write to: name the store with --orders sqlite:///orders.db or "
            "--orders postgresql://user@host/database"
        )
    logs.configure(settings.log_level, settings.log_format)
    worker = uvloop.run(_run(settings, name, metrics_port, compare_every, as_json=as_json))
    if as_json:
        did = (worker.stored, worker.dead, worker.lag) if worker is not None else (0, 0, None)
        print(json.dumps({"event": "stopped", **dict(zip(("stored", "dead", "lag"), did, strict=True))}))
    elif worker is None:
        output.say("stopped before it began: nothing was written", aside=True)
    else:
        output.say(f"stopped: {worker.stored:,} notices written, {worker.dead:,} dead letters", aside=True)


async def _run(
    settings: Settings, name: str, metrics_port: int | None, compare_every: float, *, as_json: bool
) -> OrderWorker | None:
    if settings.orders.startswith("sqlite:"):  # a file of our own; a database for many is its operator's to change
        await make_tables(settings.orders)
    store = store_of(settings.orders)
    knows_ledger = not settings.kafka or settings.origin("ledger") != "default"
    return await run(
        lambda: source_of(settings, store, name=name),
        store,
        started=lambda url: _announce(settings, url, as_json=as_json),
        metrics_port=metrics_port,
        compare=(lambda: _compare(settings, store, compare_every)) if compare_every and knows_ledger else None,
        compare_every_s=compare_every,
    )


async def _compare(settings: Settings, store: OrderStore, every_s: float) -> None:
    """Compare, unless another worker did lately."""
    records = records_of(settings.ledger, f"work-{socket.gethostname()}-{os.getpid()}")
    try:
        await records.open()
        if await records.turn(TURN * every_s):
            await Reconciler(records, store).run(SystemClock().now_ms())
    finally:
        await records.close()


def _announce(settings: Settings, url: str, *, as_json: bool) -> None:
    source = f"kafka {settings.kafka}" if settings.kafka else without_password(settings.ledger)
    if as_json:
        print(json.dumps({"event": "working", "pid": os.getpid(), "metrics": url}), flush=True)
        return
    output.say(f"ticketrush {__version__} makes orders (pid {os.getpid()})", "bold")
    output.say(f"  from        {source}")
    output.say(f"  into        {without_password(settings.orders)}")
    if url:
        output.say(f"  metrics     {url}")
    output.say("  stop with Ctrl-C")
