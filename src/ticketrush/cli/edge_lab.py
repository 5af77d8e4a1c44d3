"""`ticketrush edge lab`: the front door on one machine, failed on purpose in the middle of a sale."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer

from ticketrush import stop
from ticketrush.cli import output
from ticketrush.cli.app import Exit, UsageError
from ticketrush.cli.flags import flag
from ticketrush.cluster.errors import ClusterError
from ticketrush.crowd.errors import Stopped
from ticketrush.lab.errors import LabError, NoLab
from ticketrush.lab.netns import require
from ticketrush.lab.outcome import Outcome, measured
from ticketrush.lab.report import page
from ticketrush.lab.sale import Crowd
from ticketrush.lab.scenarios import FAULT_AT, MOVES_S, SCENARIOS, Scenario, play
from ticketrush.lab.tools import check_all

_DEFAULT: Final = Crowd()
_LIST: Final = ", ".join(SCENARIOS)


def lab(
    scenario: Annotated[
        list[str] | None,
        flag(
            "EDGE_LAB_SCENARIO",
            "What fails in the middle of the sale (see above). Repeat it for several.",
            "--scenario",
            metavar="NAME",
            show_default="all, one after the other, in about three minutes",
        ),
    ] = None,
    buyers: Annotated[
        int, flag("EDGE_LAB_BUYERS", "How many people want a ticket.", "--buyers", min=2, max=100_000)
    ] = _DEFAULT.buyers,
    tickets: Annotated[
        int, flag("EDGE_LAB_TICKETS", "How many there are; fewer than buyers.", "--tickets", min=1, max=99_999)
    ] = _DEFAULT.tickets,
    arrivals: Annotated[
        float,
        flag(
            "EDGE_LAB_ARRIVALS",
            "How many buyers come in a second.",
            "--arrivals",
            min=1.0,
            max=2_000.0,
            metavar="PER_SECOND",
        ),
    ] = _DEFAULT.per_second,
    report: Annotated[
        str | None,
        flag("EDGE_LAB_REPORT", "Write the report as one HTML page to this file.", "--report", metavar="FILE"),
    ] = None,
    as_json: Annotated[bool, flag("EDGE_LAB_JSON", "Print what came out as JSON.", "--json")] = False,
    keep: Annotated[
        Path | None,
        flag(
            "EDGE_LAB_KEEP",
            "Copy what was rendered, and all logs, into this folder, by scenario.",
            "--keep",
            metavar="DIR",
        ),
    ] = None,
) -> None:
    """Run the whole front door in network namespaces, fail it in the middle of a sale, and have the sale audited.

    Clients, a router (FRR), two balancers (FRR, nftables in the place of ip_vs, Nginx), four nodes and a Valkey are
    hosts of their own, with real programs, by what `ticketrush edge` renders from one cluster file. It needs Linux and
    root, changes nothing in the network of the machine, and removes what it made.

    Scenarios: calm (nothing fails), balancer or node (one is cut off and killed), nginx (that of a balancer is killed,
    and started again later), site-replica, site-memory, site-fsync (a whole data centre is lost, with that durability).

    Exit code 0: in every scenario all that is promised was so. 1: something was not. 2: a flag is wrong, there can be
    no lab here, or it did not come to its end and judged nothing.
    """
    output.check_writable(report)
    wanted = _chosen(scenario or [])
    if tickets >= buyers:
        raise UsageError(f"tickets is {tickets} and buyers is {buyers}: let more come than there are tickets")
    crowd = Crowd(buyers, tickets, arrivals)
    _check_length(wanted, crowd)
    _check_machine()
    if keep is not None:
        _make(keep)
    outcomes = _play(wanted, crowd, keep)
    if report is not None:
        output.write(page(outcomes, datetime.now(UTC)).encode(), report)
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


def _make(keep: Path) -> None:
    """Make the folder now, and not find out at the end that it cannot be."""
    try:
        keep.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UsageError(f"--keep {keep} is a file; name a folder") from None
    except OSError as error:
        raise UsageError(f"--keep {keep} cannot be made: {error.strerror}") from None


def _check_length(wanted: list[Scenario], crowd: Crowd) -> None:
    """What comes after the fault shows what it does."""
    left_s = (crowd.buyers - FAULT_AT * crowd.tickets) / crowd.per_second
    if left_s <= MOVES_S and not all(each.is_calm for each in wanted):
        raise UsageError(
            f"{crowd.buyers} buyers at {crowd.per_second:g} a second come for {left_s:.1f} s after the fault, and it "
            f"takes more than {MOVES_S:g} s to see what that does: raise --buyers, or lower --arrivals or --tickets"
        )


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
        UsageError: one did not come to its end, so nothing was judged: that is not a sale that was not well.
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
    except (LabError, ClusterError) as error:
        raise UsageError(f"the lab did not come to its end, and judged nothing: {error}") from error


def _plain(outcomes: list[Outcome]) -> dict[str, Any]:
    """For machines."""
    scenarios = [{"ok": found.ok, **msgspec.to_builtins(found)} for found in outcomes]
    return {"ok": all(found.ok for found in outcomes), "scenarios": scenarios}


def _show(outcomes: list[Outcome]) -> None:
    output.say(f"in the place of LVS: {outcomes[0].handed_on_by}")
    rows = [
        (found.name, "well" if found.ok else "NOT WELL", f"{found.sold:,} of {found.tickets:,}", f"{found.lost:,}")
        for found in outcomes
    ]
    output.table(("scenario", "", "sold", "lost"), rows, right=("sold", "lost"))
    for found in outcomes:
        if lines := measured(found.figures):
            output.say(f"{found.name}, from the fault on:")
            for how_long, what in lines:
                output.say(f"{how_long:>8}  {what}")
    for found in outcomes:
        for promise in found.promises:
            if not promise.holds:
                output.say(f"{found.name}: it is not so that {promise.text}", "red")
        for text in (*found.violations, *found.odd):
            output.say(f"{found.name}: {text}", "red")
