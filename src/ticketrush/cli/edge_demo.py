"""`ticketrush edge demo`."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from ticketrush import stop
from ticketrush.cli import output
from ticketrush.cli.app import Exit, UsageError
from ticketrush.cli.flags import flag
from ticketrush.edge import demo as demonstration
from ticketrush.edge.cluster_file import Policy
from ticketrush.edge.demo import DemoPlan, FrontDoor

BAR: Final = 30
"""Characters of the longest bar."""

_LOOK_S: Final = 0.2


def demo(
    policy: Annotated[Policy, flag("EDGE_DEMO_POLICY", "How Nginx shares requests out.", "--policy")] = "weighted",
    weights: Annotated[
        str,
        flag("EDGE_DEMO_WEIGHTS", "The weight of each node; there are as many.", "--weights", metavar="N,N,..."),
    ] = ",".join(map(str, demonstration.WEIGHTS)),
    requests: Annotated[
        int, flag("EDGE_DEMO_REQUESTS", "How many requests are sent.", "--requests")
    ] = demonstration.REQUESTS,
    concurrency: Annotated[
        int, flag("EDGE_DEMO_CONCURRENCY", "How many at once, at most.", "--concurrency")
    ] = demonstration.CONCURRENCY,
    port: Annotated[int, flag("PORT", "Port of Nginx; 0 takes a free one.", "--port")] = 0,
    keep: Annotated[
        Path | None,
        flag(
            "EDGE_DEMO_KEEP",
            "Keep nginx.conf and the logs of Nginx in this folder, in the place of the last demonstration's.",
            "--keep",
            metavar="DIR",
        ),
    ] = None,
    stay: Annotated[
        bool, flag("EDGE_DEMO_STAY", "Go on until Ctrl-C, to try more by hand.", "--stay/--no-stay")
    ] = False,
    as_json: Annotated[bool, flag("EDGE_DEMO_JSON", "Print one line of JSON: counts, failed.", "--json")] = False,
) -> None:
    """Nodes behind Nginx, the articles' test, and how many requests each node was asked for.

    Starts a Valkey, a node for each weight and Nginx, all on this machine, and sends GET /buy/ticket.
    The counts are those of the nodes. The articles' host names are answered too:
    `curl -H 'Host: www.load_balance.com' http://127.0.0.1:PORT/buy/ticket`.

    Exit code 0 if all requests were answered, 1 if some failed or something did not start, 2 if a flag is wrong or
    something is not installed.
    """
    shares = demonstration.parse_weights(weights)
    with contextlib.ExitStack() as stack:
        try:
            with stop.by_signals():
                with stop.postponed():
                    plan = _plan(stack, keep, policy, shares, requests, concurrency, port)
                failed = _run(plan, stay=stay, as_json=as_json)
        except stop.Stop as stopped:
            output.say(f"stopped by {signal.Signals(stopped.signal).name} before the end", aside=True)
            raise typer.Exit(128 + stopped.signal) from None
    if failed:
        raise typer.Exit(Exit.NOT_WELL)


def _plan(
    stack: contextlib.ExitStack,
    keep: Path | None,
    policy: Policy,
    weights: tuple[int, ...],
    requests: int,
    concurrency: int,
    port: int,
) -> DemoPlan:
    """The plan, with its folders; a temporary one is removed with `stack`."""
    place = Path(tempfile.mkdtemp(prefix="ticketrush-edge-demo-"))
    stack.callback(shutil.rmtree, place, ignore_errors=True)
    front = (keep or place / "nginx").resolve()
    try:
        front.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--keep {front} cannot be made: {error.strerror}") from None
    return DemoPlan(
        folder=place,
        front=front,
        policy=policy,
        weights=weights,
        requests=requests,
        concurrency=concurrency,
        port=port,
    )


def _run(plan: DemoPlan, *, stay: bool, as_json: bool) -> int:
    """Run the demonstration; how many requests failed."""
    waiting = output.error_console()
    with contextlib.ExitStack() as stack:
        with waiting.status(f"starting {len(plan.weights)} nodes") if waiting.is_terminal else contextlib.nullcontext():
            door = stack.enter_context(demonstration.front_door(plan))
        before = door.counts()
        failed = demonstration.send(door.nginx.url, plan)
        counts = [after - first for after, first in zip(door.counts(), before, strict=True)]
        if as_json:
            print(msgspec.json.encode({"counts": counts, "failed": failed}).decode(), flush=True)
        else:
            _show(plan, door, counts, failed)
        if stay:
            output.say(f"try more at {door.nginx.url}{demonstration.PATH}; stop with Ctrl-C", aside=True)
            with contextlib.suppress(stop.Stop):
                while True:
                    time.sleep(_LOOK_S)
    return failed


def _show(plan: DemoPlan, door: FrontDoor, counts: list[int], failed: int) -> None:
    asked = f"{plan.requests} × GET {demonstration.PATH}, {plan.at_once} at once"
    output.say(f"{asked}, policy {plan.policy}: {failed} failed", "bold")
    most, whole = max(*counts, 1), max(sum(counts), 1)
    heeds = plan.policy != "round-robin"
    rows = [
        (node.name, *([str(node.weight)] if heeds else []), str(count), f"{count / whole:.1%}", _bar(count / most))
        for node, count in zip(door.nodes, counts, strict=True)
    ]
    right = ["weight", "requests", "share"] if heeds else ["requests", "share"]
    output.table(("node", *right, ""), rows, right=right)
    if plan.policy == "ip-hash":
        output.say("all requests came from one address, so to one node")
    if plan.folder not in door.nginx.folder.parents:
        output.say(f"  configuration and logs of Nginx   {door.nginx.folder}")


def _bar(part: float) -> str:
    return "█" * round(BAR * part)
