"""`ticketrush serve`."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from ticketrush import logs, processes
from ticketrush._version import __version__
from ticketrush.addresses import FILE, absolute
from ticketrush.cli import output
from ticketrush.cli.flags import Config, flag, setting, settings_of
from ticketrush.cluster.keeper import Keeper
from ticketrush.cluster.plan import SHARED
from ticketrush.cluster.program import Program
from ticketrush.errors import JournalError, SettingsError
from ticketrush.http import server
from ticketrush.settings import Settings, variable_of, without_password
from ticketrush.wiring import make_tables

EPILOG: Final = """Examples: `ticketrush serve --demo 10000 --port 3005` sells 10,000 tickets at /buy/ticket. ·
`ticketrush serve --open` tries the API without tokens. ·
`TICKETRUSH_TOKEN_SECRETS=$(ticketrush token secret) ticketrush serve --ledger sqlite:///tickets.db` is for real."""


def serve(
    ctx: typer.Context,
    host: Annotated[str | None, setting("host", "--host")] = None,
    port: Annotated[int | None, setting("port", "--port")] = None,
    ledger: Annotated[str | None, setting("ledger", "--ledger", metavar="URL")] = None,
    durability: Annotated[Literal["fsync", "memory", "replica"] | None, setting("durability", "--durability")] = None,
    node: Annotated[str | None, setting("node", "--node", metavar="NAME")] = None,
    shards: Annotated[int | None, setting("shards", "--shards")] = None,
    orders: Annotated[str | None, setting("orders", "--orders", metavar="URL")] = None,
    order_worker: Annotated[
        bool,
        flag(
            "SERVE_ORDER_WORKER",
            "Keep a process running beside a ledger in a file that writes its orders, as `ticketrush work` does.",
            "--order-worker/--no-order-worker",
        ),
    ] = True,
    open: Annotated[bool | None, setting("open", "--open")] = None,
    demo: Annotated[int | None, setting("demo", "--demo", metavar="UNITS")] = None,
    stat_log: Annotated[Path | None, setting("stat_log", "--stat-log", metavar="FILE")] = None,
    fast_lane: Annotated[bool | None, setting("fast_lane", "--fast-lane/--no-fast-lane")] = None,
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"] | None, setting("log_level", "--log-level", metavar="LEVEL")
    ] = None,
    log_format: Annotated[
        Literal["console", "json"] | None, setting("log_format", "--log-format", metavar="FORM")
    ] = None,
    config: Config = None,
    as_json: Annotated[
        bool, flag("SERVE_JSON", "Announce the address as a line of JSON, once connections are accepted.", "--json")
    ] = False,
) -> None:
    """Sell tickets over HTTP until SIGTERM or Ctrl-C, then stop gracefully.

    Buyers show bearer tokens, unless --open or --demo serves this machine only. All other settings
    come from the environment or ticketrush.toml: `ticketrush config show` lists them.
    """
    settings = settings_of(ctx)
    settings.check_servable()
    if settings.stat_log is not None and settings.demo is None:
        raise SettingsError(
            f"stat_log = {settings.stat_log} (from {settings.origin('stat_log')}): only a demo writes it, one line a "
            "request to /buy/ticket; add --demo UNITS, or leave it out."
        )
    _check_folder(settings)
    logs.configure(settings.log_level, settings.log_format)
    if settings.orders.startswith(FILE):  # a file of our own; a database for many is its operator's to change
        asyncio.run(make_tables(settings.orders))
    with _place_for_demo(settings) as placed, contextlib.ExitStack() as beside:

        def started(url: str) -> None:
            if order_worker and placed.orders and not placed.ledger.startswith(SHARED):
                beside.enter_context(_worker(placed))
            _announce(placed, url, as_json=as_json)

        server.serve(placed, announce=started)


def _check_folder(settings: Settings) -> None:
    """Raises JournalError if not even a place for the ledger's file is there."""
    if settings.ledger.startswith(FILE) and not settings.ledger_path.parent.is_dir():
        raise JournalError(
            f"the ledger {settings.ledger}: the folder {settings.ledger_path.parent} does not exist: make it, or name "
            "another file with --ledger"
        )


@contextlib.contextmanager
def _place_for_demo(settings: Settings) -> Iterator[Settings]:
    """A demo sells from a journal in a temporary folder, unless the ledger was named."""
    if settings.demo is None or settings.origin("ledger") != "default":
        yield settings
        return
    with tempfile.TemporaryDirectory(prefix="ticketrush-demo-") as folder:
        yield settings.model_copy(update={"ledger": f"sqlite:///{folder}/demo.db"})


@contextlib.contextmanager
def _worker(settings: Settings) -> Iterator[None]:
    """The process that writes orders while this one sells; its words are on our standard error."""
    with tempfile.TemporaryDirectory(prefix="ticketrush-worker-") as folder:
        # What it needs of our settings; it neither listens nor checks tokens, and no relay publishes a file's events.
        flags = {"ledger": absolute(settings.ledger), "orders": absolute(settings.orders)}
        env = processes.plain_environment() | {variable_of(name): value for name, value in flags.items()}
        env |= {variable_of(name): getattr(settings, name) for name in ("log_level", "log_format")}
        command = [sys.executable, "-m", "ticketrush", "work", "--json"]
        with Keeper(Program("order-worker", Path(folder), command, env)):
            yield


def _announce(settings: Settings, url: str, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"event": "serving", "url": url, "pid": os.getpid()}), flush=True)
        return
    output.say(f"ticketrush {__version__} serves at {url} (pid {os.getpid()})", "bold")
    output.say(f"  ledger      {without_password(settings.ledger)}, durability {settings.durability}")
    if settings.orders:
        output.say(f"  orders      {without_password(settings.orders)}")
    if settings.demo is not None:
        output.say(f"  demo        {settings.demo:,} tickets at {url}/buy/ticket")
        output.say(f"  try         ab -n 10000 -c 100 {url}/buy/ticket")
    elif settings.open:
        output.say("  open        no tokens are asked for: the header X-Buyer names the buyer")
    output.say(f"  read        {url}/docs    stop with Ctrl-C")
