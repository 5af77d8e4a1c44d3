"""`ticketrush strategies`."""

from __future__ import annotations

from typing import Annotated

import typer

from ticketrush.cli import output
from ticketrush.cli.app import Exit
from ticketrush.cli.flags import flag
from ticketrush.strategies.options import Databases, StrategyOptions, bounds
from ticketrush.strategies.page import page
from ticketrush.strategies.run import run
from ticketrush.strategies.table import summary

EPILOG = """Examples: `ticketrush strategies` needs nothing but itself, and a minute. ·
`ticketrush strategies --database both --report strategies.html` with PostgreSQL beside SQLite, and pictures. ·
`ticketrush strategies --postgres postgresql://me@db/postgres --database postgres` on a server of yours, in databases
that are dropped at the end. · `ticketrush strategies --json - | jq '."pay-first".oversold'` is for machines."""

_DEFAULT = StrategyOptions()


def strategies(
    buyers: Annotated[
        int, flag("STRATEGIES_BUYERS", f"Who want a ticket; {bounds('buyers')}.", "--buyers")
    ] = _DEFAULT.buyers,
    tickets: Annotated[
        int, flag("STRATEGIES_TICKETS", f"What there is; {bounds('tickets')}.", "--tickets")
    ] = _DEFAULT.tickets,
    database: Annotated[
        Databases,
        flag(
            "STRATEGIES_DATABASE",
            "What keeps orders and stock; reserve-first has its journal for stock, and writes orders to PostgreSQL.",
            "--database",
        ),
    ] = _DEFAULT.database,
    postgres: Annotated[
        str | None,
        flag(
            "STRATEGIES_POSTGRES",
            "A running PostgreSQL; its role must be allowed to make databases.",
            "--postgres",
            metavar="URL",
            show_default="one is started",
        ),
    ] = None,
    abandon: Annotated[
        float, flag("STRATEGIES_ABANDON", "Share of the winners who never pay.", "--abandon", metavar="0..1")
    ] = _DEFAULT.abandon,
    hold: Annotated[
        float,
        flag(
            "STRATEGIES_HOLD",
            f"How long an unpaid hold of reserve-first lasts; {bounds('hold')}.",
            "--hold",
            metavar="SECONDS",
        ),
    ] = _DEFAULT.hold,
    patience: Annotated[
        float | None,
        flag(
            "STRATEGIES_PATIENCE",
            'How long buyers who are told "not now" come back after everybody has come.',
            "--patience",
            metavar="SECONDS",
            show_default="until abandoned holds have come back",
        ),
    ] = None,
    connections: Annotated[
        int,
        flag(
            "STRATEGIES_CONNECTIONS",
            f"Connections, and so requests at a time; {bounds('connections')}.",
            "--connections",
        ),
    ] = _DEFAULT.connections,
    seed: Annotated[
        int, flag("STRATEGIES_SEED", f"The same seed sends the same people; {bounds('seed')}.", "--seed")
    ] = _DEFAULT.seed,
    json_file: Annotated[
        str | None,
        flag(
            "STRATEGIES_JSON", "Write the figures as JSON to this file; - is standard output.", "--json", metavar="FILE"
        ),
    ] = None,
    report: Annotated[
        str | None,
        flag("STRATEGIES_REPORT", "Write the comparison as one HTML page to this file.", "--report", metavar="FILE"),
    ] = None,
) -> None:
    """Compare the three ways to deduct stock, by measurement: the same crowd buys from each over real HTTP.

    Order-first takes a unit when an order is made, in one transaction with it; an order that is never
    paid keeps its unit. Pay-first takes the unit at the payment; who was told success before may find
    none left. Reserve-first is ticketrush itself: a unit is held for a short while, and comes back
    unpaid. Each runs in a process of its own, with its stock in a real database, and is told of: requests
    per second, p99, oversold, undersold, and what each sale costs the database. Exit code 0 when all
    were measured and reserve-first was exact, 1 when it was not.
    """
    output.check_writable(json_file, report)
    comparison = run(
        StrategyOptions(
            buyers=buyers,
            tickets=tickets,
            database=database,
            postgres=postgres,
            abandon=abandon,
            hold=hold,
            patience=patience,
            connections=connections,
            seed=seed,
        )
    )
    (output.error_console() if json_file == output.STDOUT else output.console()).print(summary(comparison))
    if json_file is not None:
        output.write(comparison.to_json(), json_file)
    if report is not None:
        output.write(page(comparison).encode(), report)
    if not comparison.ok:
        raise typer.Exit(Exit.NOT_WELL)
