"""The command line: it parses, calls the rooms below, and prints. What it does is in the rooms."""

from __future__ import annotations

import platform
from typing import Annotated

import apsw
import typer

from ticketrush import logs
from ticketrush._version import __version__
from ticketrush.cli import (
    audit,
    bench,
    config,
    edge,
    gateway,
    help_page,
    migrate,
    orders,
    reconcile,
    relay,
    rush,
    sale,
    serve,
    strategies,
    token,
    up,
    work,
)
from ticketrush.cli.app import EXIT_CODES_HELP, Commands

__all__ = ["app", "main"]

app = typer.Typer(
    cls=Commands,
    name="ticketrush",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=EXIT_CODES_HELP + " Every flag has an environment variable, named in its help.",
)
app.command(epilog=serve.EPILOG)(serve.serve)
app.command(epilog=work.EPILOG)(work.work)
app.command(epilog=relay.EPILOG)(relay.relay)
app.command(epilog=migrate.EPILOG)(migrate.migrate)
app.command(epilog=up.EPILOG)(up.up)
app.command(epilog=rush.EPILOG)(rush.rush)
app.command(epilog=audit.EPILOG)(audit.audit)
app.command(epilog=reconcile.EPILOG)(reconcile.reconcile)
app.command(epilog=bench.EPILOG)(bench.bench)
app.command(epilog=strategies.EPILOG)(strategies.strategies)
app.command("test-gateway", epilog=gateway.EPILOG)(gateway.serve)
app.add_typer(sale.app, name="sale")
app.add_typer(orders.app, name="orders")
app.add_typer(token.app, name="token")
app.add_typer(edge.app, name="edge")
app.add_typer(config.app, name="config")
help_page.install(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        sqlite = apsw.sqlite_lib_version()
        print(f"ticketrush {__version__} (Python {platform.python_version()}, SQLite {sqlite})")
        raise typer.Exit


@app.callback()
def ticketrush(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Sell a scarce stock to a crowd: never one too many, never one too few.

    Begin with `ticketrush rush`: it sells 10,000 tickets to a million simulated buyers, on this
    machine, over real HTTP, and audits every promise afterwards. Or with
    `ticketrush serve --demo 10000`, and a browser at http://127.0.0.1:8000/docs.
    """
    logs.configure("warning", "console")


def main() -> None:
    """Run the command line; the exit codes are in `ticketrush --help`."""
    app()
