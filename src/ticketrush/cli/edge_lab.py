"""`ticketrush edge lab`: the front door on one machine, failed on purpose in the middle of a sale."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from ticketrush import stop
from ticketrush.cli import output
from ticketrush.cli.app import Exit, UsageError
from ticketrush.cli.flags import flag
from ticketrush.crowd.errors import Stopped
from ticketrush.lab.errors import NoLab
from ticketrush.lab.netns import require
from ticketrush.lab.outcome import Outcome
from ticketrush.lab.report import page
from ticketrush.lab.sale import Crowd
from ticketrush.lab.scenarios import SCENARIOS, Scenario, play
from ticketrush.lab.tools import check_all

_DEFAULT: Final = Crowd()
_LIST: Final = ", ".join(SCENARIOS)


def lab(
    scenario: Annotated[
        list[str] | None,
        flag(
            "EDGE_LAB_SCENARIO",
            f"What happens in the middle of the sale: {_LIST}. Repeat it for several.",
            "--scenario",
            metavar="NAME",
            show_default="all, one after the other",
        ),
    ] = None,
    buyers: Annotated[
        int, flag("EDGE_LAB_BUYERS", "Who want a ticket.", "--buyers", min=2, max=100_000)
    ] = _DEFAULT.buyers,
    tickets: Annotated[
        int, flag("EDGE_LAB_TICKETS", "What there is; fewer than buyers.", "--tickets", min=1, max=99_999)
    ] = _DEFAULT.tickets,
    arrivals: Annotated[
        float,
        flag("EDGE_LAB_ARRIVALS", "Buyers per second.", "--arrivals", min=1.0, max=2_000.0, metavar="PER_SECOND"),
    ] = _DEFAULT.per_second,
    report: Annotated[
        str | None,
        flag("EDGE_LAB_REPORT", "Write the report as one HTML page to this file.", "--report", metavar="FILE"),
    ] = None,
    as_json: Annotated[bool, flag("EDGE_LAB_JSON", "Print what came out as JSON.", "--json")] = False,
    keep: Annotated[
        Path | None,
        flag("EDGE_LAB_KEEP", "Copy what was rendered, and all logs, into this folder.", "--keep", metavar="DIR"),
    ] = None,
) -> None:
    """Run the whole front door in network namespaces, fail it in the middle of a sale, and have the sale audited.

    Clients, a router (FRR), two balancers (FRR, nftables in the place of ip_vs, Nginx), four nodes and a Valkey are
    hosts of their own, with real programs, by what `ticketrush edge` renders from one cluster file. It needs Linux and
    root. Exit code 0 only if in every scenario all that is promised was so.
    """
    output.check_writable(report)
    if keep is not None and keep.exists() and not keep.is_dir():
        raise UsageError(f"--keep {keep} is a file; name a folder")
    wanted = _chosen(scenario or [])
    if tickets >= buyers:
        raise UsageError(f"tickets is {tickets} and buyers is {buyers}: let more come than there are tickets")
    _check_machine()
    crowd = Crowd(buyers, tickets, arrivals)
    outcomes = _play(wanted, crowd, keep)
    if report is not None:
        output.write(page(outcomes).encode(), report)
    if as_json:
        output.as_json(_plain(outcomes))
    else:
        _show(outcomes)
        if report is not None:
            output.say(f"page: {report}")
    if not all(found.ok for found in outcomes):
        raise typer.Exit(Exit.NOT_WELL)


def _chosen(names: list[str]) -> list[Scenario]:
    for name in names:
        if name not in SCENARIOS:
            raise UsageError(f"there is no scenario {name!r}; there are {_LIST}")
    return [SCENARIOS[name] for name in names or SCENARIOS]


def _check_machine() -> None:
    try:
        require()
        check_all()
    except NoLab as error:
        raise UsageError(str(error)) from None


def _play(wanted: list[Scenario], crowd: Crowd, keep: Path | None) -> list[Outcome]:
    """Play each.

    Raises:
        Stopped: Ctrl-C, SIGTERM or SIGHUP came; no host and no process is left.
    """
    is_watched = sys.stderr.isatty()

    def say(text: str) -> None:
        if is_watched:
            output.say(text, aside=True)

    try:
        with stop.by_signals():
            return [play(each, crowd, say, keep=keep and keep / each.name) for each in wanted]
    except stop.Stop as stopped:
        raise Stopped("stopped; nothing of the lab is left", stopped.signal) from None


def _plain(outcomes: list[Outcome]) -> dict[str, Any]:
    """For machines."""
    scenarios = [{"ok": found.ok, **msgspec.to_builtins(found)} for found in outcomes]
    return {"ok": all(found.ok for found in outcomes), "scenarios": scenarios}


def _show(outcomes: list[Outcome]) -> None:
    output.say(f"in the place of LVS: {outcomes[0].handed_on_by}")
    rows = []
    for found in outcomes:
        figures = ", ".join(f"{name} {value:g}" for name, value in found.figures.items())
        verdict = "well" if found.ok else "NOT WELL"
        rows.append((found.name, verdict, f"{found.sold:,} of {found.tickets:,}", f"{found.lost:,}", figures))
    output.table(("scenario", "", "sold", "lost", "figures"), rows, right=("sold", "lost"), prose=("figures",))
    for found in outcomes:
        for promise in found.promises:
            if not promise.holds:
                output.say(f"{found.name}: it is not so that {promise.text}", "red")
        for text in (*found.violations, *found.odd):
            output.say(f"{found.name}: {text}", "red")
