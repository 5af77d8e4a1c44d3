"""`ticketrush bench`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from ticketrush.bench import BenchError, BenchOptions, report, run
from ticketrush.cli import output
from ticketrush.cli.app import Exit, RefusedError, UsageError
from ticketrush.cli.flags import flag

EPILOG = """Examples: `ticketrush bench` · `ticketrush bench --quick` sees whether all works ·
`ticketrush bench --rounds 5 --json bench.json`. It needs wrk and nginx; `make bench` installs them."""

_DEFAULT = BenchOptions()


def bench(
    rounds: Annotated[int, flag("BENCH_ROUNDS", "Rounds; every figure is their median.", "--rounds")] = _DEFAULT.rounds,
    seconds: Annotated[int, flag("BENCH_SECONDS", "Length of one measurement.", "--seconds")] = _DEFAULT.seconds,
    connections: Annotated[
        int, flag("BENCH_CONNECTIONS", "Keep-alive connections of the load.", "--connections")
    ] = _DEFAULT.connections,
    folder: Annotated[
        Path | None,
        flag(
            "BENCH_FOLDER",
            "Where journals are written: a folder on a real disk.",
            "--folder",
            show_default="one is found",
        ),
    ] = None,
    quick: Annotated[
        bool, flag("BENCH_QUICK", "One round of two seconds: shows that all works, too short to quote.", "--quick")
    ] = False,
    redis_details: Annotated[
        bool,
        flag(
            "BENCH_REDIS_DETAILS", "Measure Redis also without local stock, and with 2 and 4 shards.", "--redis-details"
        ),
    ] = False,
    json_file: Annotated[
        str | None, flag("BENCH_JSON", "Write everything to this file; - is standard output.", "--json", metavar="FILE")
    ] = None,
) -> None:
    """Measure the speed beside nginx answering the same requests, in one run.

    Sold-out answers, durable reservations with and without the fast lane, the same with the ledger in a
    Valkey (left out where there is none), a lone request, and the replay of a journal: requests/s,
    latency, CPU, and the ratios to nginx. Exit code 0 only if every target is met.
    """
    output.check_writable(json_file)
    try:
        options = BenchOptions.quick(folder) if quick else BenchOptions(folder=folder)
        if not quick:
            options = dataclasses.replace(options, rounds=rounds, seconds=seconds, connections=connections)
        options = dataclasses.replace(options, redis_details=redis_details)
    except ValueError as error:
        raise UsageError(str(error)) from None
    try:
        result = run(options, output.error_console())
    except BenchError as error:
        raise RefusedError(str(error)) from None
    if json_file != output.STDOUT:
        output.console().print(report(result))
    if json_file is not None:
        output.write(result.to_json(), json_file)
    if not result.all_met:
        raise typer.Exit(Exit.NOT_WELL)
