"""`ticketrush rush`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ticketrush.cli import output
from ticketrush.cli.app import Exit
from ticketrush.cli.client import Client
from ticketrush.cli.flags import flag
from ticketrush.cluster.plan import parse_weights
from ticketrush.crowd.options import RushOptions, bounds_of
from ticketrush.crowd.rush import run

EPILOG = """Examples: `ticketrush rush` is the full story. ·
`ticketrush rush --buyers 50000 --tickets 500 --report rush.html` is a short one, with pictures. ·
`ticketrush rush --arrivals 5000 --buyers 60000` lets 5,000 come each second, however slow the server is. ·
`ticketrush rush --nodes 4 --kill 2` sells from four processes, of which two are killed in the middle. ·
`ticketrush rush --nodes 4 --orders postgres --kafka kafka` writes every order through Kafka into PostgreSQL. ·
`ticketrush rush --json - | jq .audit` is for machines."""

_DEFAULT = RushOptions()


def _within(help_: str, option: str) -> str:
    """The help of a number, with its bounds."""
    return f"{help_}; {bounds_of(option)}."


def rush(
    buyers: Annotated[int, flag("RUSH_BUYERS", _within("Who want a ticket", "buyers"), "--buyers")] = _DEFAULT.buyers,
    tickets: Annotated[int, flag("RUSH_TICKETS", _within("What there is", "tickets"), "--tickets")] = _DEFAULT.tickets,
    connections: Annotated[
        int, flag("RUSH_CONNECTIONS", _within("Connections, and so requests at a time", "connections"), "--connections")
    ] = _DEFAULT.connections,
    arrivals: Annotated[
        float,
        flag(
            "RUSH_ARRIVALS",
            _within(
                "Buyers per second, whatever the server does; 0 sends the next one as soon as a connection is free",
                "arrivals",
            ),
            "--arrivals",
            metavar="PER_SECOND",
        ),
    ] = _DEFAULT.arrivals,
    abandon: Annotated[
        float, flag("RUSH_ABANDON", "Share of the winners who never pay.", "--abandon", metavar="0..1")
    ] = _DEFAULT.abandon,
    duplicates: Annotated[
        float,
        flag("RUSH_DUPLICATES", "Share of the buyers who send their request twice.", "--duplicates", metavar="0..1"),
    ] = _DEFAULT.duplicates,
    cuts: Annotated[
        float,
        flag("RUSH_CUTS", "Share who break off before the answer, and ask again.", "--cuts", metavar="0..1"),
    ] = _DEFAULT.cuts,
    breakers: Annotated[
        float,
        flag("RUSH_BREAKERS", "Share of the winners who try to exceed the limit.", "--breakers", metavar="0..1"),
    ] = _DEFAULT.breakers,
    limit: Annotated[
        int, flag("RUSH_LIMIT", _within("Tickets one buyer may have", "limit"), "--limit")
    ] = _DEFAULT.limit,
    hold: Annotated[
        float, flag("RUSH_HOLD", _within("How long an unpaid hold lasts", "hold"), "--hold", metavar="SECONDS")
    ] = _DEFAULT.hold,
    seed: Annotated[
        int, flag("RUSH_SEED", _within("The same seed sends the same people", "seed"), "--seed")
    ] = _DEFAULT.seed,
    nodes: Annotated[
        int | None,
        flag(
            "RUSH_NODES",
            _within("Start a cluster of so many nodes on one Valkey", "nodes"),
            "--nodes",
            show_default="a single server",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        flag(
            "RUSH_WEIGHTS",
            "The share of the connections that each node gets, like 1,2,3,4.",
            "--weights",
            metavar="N,N,...",
            show_default="equal shares",
        ),
    ] = None,
    kill: Annotated[
        int,
        flag(
            "RUSH_KILL",
            "Nodes to kill (SIGKILL) in mid-sale, at moments that the seed decides; one lives on.",
            "--kill",
        ),
    ] = _DEFAULT.kill,
    cluster_durability: Annotated[
        Literal["memory", "fsync", "replica"],
        flag("RUSH_DURABILITY", "What a success survives in the cluster, as for `ticketrush up`.", "--durability"),
    ] = _DEFAULT.durability,
    store: Annotated[
        str,
        flag(
            "RUSH_ORDERS",
            "Keep orders and audit them too: sqlite or postgres (started for it), or the URL of an empty store.",
            "--orders",
            metavar="STORE",
            show_default="none are kept",
        ),
    ] = "",
    brokers: Annotated[
        str,
        flag(
            "RUSH_KAFKA",
            "Lead orders through Apache Kafka: kafka (started for it), or the addresses of brokers.",
            "--kafka",
            metavar="BROKERS",
            show_default="the worker reads the ledger's own events",
        ),
    ] = "",
    url: Annotated[
        str | None,
        flag(
            "RUSH_URL",
            "A running server to use: an --open one, or one with its secrets in TICKETRUSH_TOKEN_SECRETS.",
            "--url",
            metavar="URL",
            show_default="one is started",
        ),
    ] = None,
    time_limit: Annotated[
        float | None,
        flag(
            "RUSH_TIME_LIMIT",
            _within("When the crowd goes home, ready or not", "time_limit"),
            "--time-limit",
            metavar="SECONDS",
            show_default="plenty",
        ),
    ] = None,
    keep: Annotated[bool, flag("RUSH_KEEP", "Keep the journal of the server that was started.", "--keep")] = False,
    json_file: Annotated[
        str | None,
        flag("RUSH_JSON", "Write the report as JSON to this file; - is standard output.", "--json", metavar="FILE"),
    ] = None,
    report: Annotated[
        str | None, flag("RUSH_REPORT", "Write the report as one HTML page to this file.", "--report", metavar="FILE")
    ] = None,
) -> None:
    """Send a crowd to buy, over real HTTP, then audit every promise and report.

    It starts a server of its own (with --nodes a cluster: a Valkey and so many nodes), opens a sale,
    lets buyers pay, abandon, repeat themselves, break off and cheat, lets abandoned holds expire and
    be sold again, and ends when every ticket is paid or nobody wants one any more. Who is cut off by
    a node that is killed asks another one with the same key: what a cut connection has left is
    unknown, not failed. Exit code 0 only if none was sold twice or lost, no invariant is violated,
    nothing died that was not to be killed, and every ticket is paid; where there were no more buyers
    than tickets, some may be left. Exit code 1 too if there were more buyers, nothing was broken, and
    not all who got a ticket paid.
    """
    to_stdout = json_file == output.STDOUT
    output.check_writable(json_file, report)
    options = RushOptions(
        buyers=buyers,
        tickets=tickets,
        connections=connections,
        arrivals=arrivals,
        abandon=abandon,
        duplicates=duplicates,
        cuts=cuts,
        breakers=breakers,
        limit=limit,
        hold=hold,
        seed=seed,
        nodes=nodes,
        weights=parse_weights(weights, nodes or 1),
        kill=kill,
        durability=cluster_durability,
        orders=store,
        kafka=brokers,
        url=url,
        time_limit=time_limit,
        keep=keep,
        json=Path(json_file) if json_file is not None and not to_stdout else None,
        report=Path(report) if report is not None else None,
    )
    if url is not None:
        Client(url, None).reach()
    result = run(options, output.error_console() if to_stdout else output.console())
    if to_stdout:
        output.write(result.to_json(), output.STDOUT)
    if not result.ok:
        raise typer.Exit(Exit.NOT_WELL)
