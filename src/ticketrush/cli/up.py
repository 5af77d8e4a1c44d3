"""`ticketrush up`."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
import typer

from ticketrush import stop
from ticketrush.admission.tokens import new_secret
from ticketrush.cli import output
from ticketrush.cli.app import Exit, UsageError
from ticketrush.cli.flags import Config, flag, setting, settings_of
from ticketrush.cluster.backoffice import BackOffice
from ticketrush.cluster.errors import NotInstalled
from ticketrush.cluster.plan import NODES_MAX, SHARED, WORKERS_MAX, ClusterPlan, parse_weights
from ticketrush.cluster.up import Cluster, cluster
from ticketrush.cluster.valkey import find_program
from ticketrush.settings import without_password

EPILOG = """Examples: `ticketrush up --demo 10000` sells 10,000 tickets at two nodes, without tokens. ·
`ticketrush up --nodes 4 --weights 1,2,3,4 --folder cluster` keeps logs, data and the token secret in ./cluster,
and goes on from there the next time. ·
`ticketrush up --nodes 3 --redis redis://10.0.0.7:6379/0 --durability fsync` sells from a Valkey that is there. ·
`ticketrush up --demo 10000 --orders postgres --kafka kafka` also writes orders, through Kafka into PostgreSQL. ·
`ticketrush up --json | jq .nodes` is for machines."""

LOOK_S: Final = 0.2
"""How often it is seen whether everything is alive."""

SECRET_FILE: Final = "token-secret"  # noqa: S105 - the name of a file


def up(
    ctx: typer.Context,
    nodes: Annotated[int, flag("UP_NODES", f"Processes that sell; 1 to {NODES_MAX}.", "--nodes")] = 2,
    weights: Annotated[
        str | None,
        flag(
            "UP_WEIGHTS",
            "The share of the load that each node is to get, like 1,2,3,4; printed for a load balancer.",
            "--weights",
            metavar="N,N,...",
            show_default="equal shares",
        ),
    ] = None,
    redis: Annotated[
        str | None,
        flag(
            "UP_REDIS",
            "Sell from this Redis or Valkey: redis://, rediss://, redis+sentinel://, redis+cluster://.",
            "--redis",
            metavar="URL",
            show_default="one is started",
        ),
    ] = None,
    durability: Annotated[
        Literal["memory", "fsync", "replica"] | None,
        flag(
            "DURABILITY",
            "What a success survives besides the loss of any node. memory: a crash of Valkey; fsync: a power cut too; "
            "replica: the loss of the machine (two replicas are started).",
            "--durability",
            show_default="fsync",
        ),
    ] = None,
    store: Annotated[
        str,
        flag(
            "UP_ORDERS",
            "Keep orders: postgres starts one, or the URL of a store that is there.",
            "--orders",
            metavar="STORE",
            show_default="none are kept",
        ),
    ] = "",
    brokers: Annotated[
        str,
        flag(
            "UP_KAFKA",
            "Lead orders through Apache Kafka: kafka starts one, or the addresses of brokers.",
            "--kafka",
            metavar="BROKERS",
            show_default="workers read the ledger's own events",
        ),
    ] = "",
    workers: Annotated[int, flag("UP_WORKERS", f"Processes that write orders; 1 to {WORKERS_MAX}.", "--workers")] = 1,
    port: Annotated[
        int, flag("PORT", "Port of the first node, the next ones count up; 0 takes free ones.", "--port")
    ] = 8000,
    folder: Annotated[
        Path | None,
        flag("UP_FOLDER", "Where logs, data and the token secret go.", "--folder", show_default="a temporary one"),
    ] = None,
    open: Annotated[bool | None, setting("open", "--open")] = None,
    demo: Annotated[int | None, setting("demo", "--demo", metavar="UNITS")] = None,
    config: Config = None,
    as_json: Annotated[
        bool, flag("UP_JSON", "Print everything as one line of JSON, once all is ready.", "--json")
    ] = False,
) -> None:
    """Run a whole cluster on this machine: a Valkey, and nodes that sell from it, until Ctrl-C or SIGTERM.

    Every node serves every call, so a client may use any of them, and another when one is gone. A
    node that dies, or a Valkey, is told on standard error with the end of its log, and the others go
    on: nothing that a buyer was told is lost, and what the dead node had not sold is sold by others.
    At the end the nodes answer what they have accepted, and stop; then Valkey does.

    Without --open and --demo buyers show tokens. The secret that signs them is the one of
    TICKETRUSH_TOKEN_SECRETS, else one that is made and put into a file of the folder. Other settings
    reach the nodes by the environment or the TOML file, as for `ticketrush serve`.

    Exit code 0 if nothing died, 1 if something did, or did not stop when asked to; a temporary folder
    is left there then.
    """
    with contextlib.ExitStack() as stack:
        try:
            with stop.by_signals():
                with stop.postponed():
                    place = _place(folder, stack)
                plan = _plan(ctx, place, nodes=nodes, weights=weights, redis=redis)
                plan = dataclasses.replace(plan, orders=store, kafka=brokers, workers=workers)
                well = _run(plan, as_json=as_json)
        except stop.Stop as stopped:  # while it started
            output.say(f"stopped by {signal.Signals(stopped.signal).name} before all was ready", aside=True)
            raise typer.Exit(128 + stopped.signal) from None
        if not well and folder is None:
            stack.pop_all()
            output.say(f"logs and data are left in {place}", aside=True)
    if not well:
        raise typer.Exit(Exit.NOT_WELL)


def _place(folder: Path | None, stack: contextlib.ExitStack) -> Path:
    """The folder for logs and data; a temporary one is removed with `stack`."""
    if folder is None:
        made = Path(tempfile.mkdtemp(prefix="ticketrush-up-"))
        stack.callback(shutil.rmtree, made, ignore_errors=True)
        return made
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--folder {folder} cannot be made: {error.strerror}") from None
    return folder.resolve()


def _plan(
    ctx: typer.Context,
    place: Path,
    *,
    nodes: int,
    weights: str | None,
    redis: str | None,
) -> ClusterPlan:
    if redis is not None and not redis.startswith(SHARED):
        raise UsageError(
            f"--redis {redis!r} is not the URL of a Redis or Valkey; write it like redis://127.0.0.1:6379/0"
        )
    if redis is None:
        try:
            find_program()
        except NotInstalled as error:
            raise NotInstalled(f"{error}, or name a running one with --redis URL") from None
    settings = settings_of(ctx)
    flags: list[str] = []
    if settings.demo is not None:
        flags += ["--demo", str(settings.demo)]
    elif settings.open:
        flags.append("--open")
    config = ctx.params.get("config") or Path("ticketrush.toml")
    secret = ""
    if not settings.open:
        given = ",".join(key.decode() for key in settings.token_keys)
        secret = given or _secret_in(place)
    return ClusterPlan(
        nodes=nodes,
        weights=parse_weights(weights, nodes),
        folder=place,
        ledger=redis,
        durability=settings.durability,
        port=settings.port,
        secret=secret,
        config=config if config.is_file() else None,
        flags=tuple(flags),
        env=dict(os.environ),
    )


def _secret_in(place: Path) -> str:
    """The secret of the file in the folder, made if it is not there; nobody else may read it."""
    file = place / SECRET_FILE
    if not file.is_file():
        file.touch(0o600)
        file.write_text(new_secret() + "\n", encoding="ascii")
    return file.read_text(encoding="ascii").strip()


def _run(plan: ClusterPlan, *, as_json: bool) -> bool:
    """Run the cluster until a signal comes; whether nothing went wrong."""
    waiting = output.error_console()
    with contextlib.ExitStack() as stack:
        with waiting.status(f"starting {plan.nodes} nodes") if waiting.is_terminal else contextlib.nullcontext():
            running = stack.enter_context(cluster(plan))
        _announce(running, as_json=as_json)
        failures = 0
        try:
            while True:
                time.sleep(LOOK_S)
                for told in running.newly_ended():
                    failures += 1
                    _tell_of_end(told, running)
        except stop.Stop:
            if waiting.is_terminal:
                output.say("stopping: nodes first, then Valkey", aside=True)
    for name in running.stubborn:
        output.say(f"{name} did not stop when asked to, and was killed", "red", aside=True)
    return not (failures or running.stubborn)


def _tell_of_end(told: str, running: Cluster) -> None:
    output.say(told, "red", aside=True)
    left = running.living
    if left:
        output.say(f"{', '.join(node.name for node in left)} of {len(running.nodes)} nodes go on", aside=True)
    else:
        output.say("no node is left; stop with Ctrl-C and start again", aside=True)


def _announce(running: Cluster, *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(_facts(running)).decode(), flush=True)
        return
    plan = running.plan
    output.say(
        f"{len(running.nodes)} nodes sell from {without_password(running.ledger)}, durability {plan.durability}", "bold"
    )
    rows = [(node.name, node.url, str(node.weight), str(node.pid), str(node.log)) for node in running.nodes]
    rows += [(each.name, each.url, "", str(each.pid), str(each.log)) for each in running.valkeys]
    if (office := running.office) is not None:
        for server, url in ((office.postgres, office.orders), (office.broker, office.kafka)):
            if server is not None:
                rows.append((server.name, url, "", str(server.pid), str(server.log)))
        rows += [(program.name, "", "", str(program.pid), str(program.log)) for program in office.programs]
    columns = ("node", "url", "weight", "pid", "log")
    output.table(columns, rows, right=("weight", "pid"), spare=("weight",))
    if (plan.folder / SECRET_FILE).is_file() and plan.secret:
        output.say(f"  tokens      export TICKETRUSH_TOKEN_SECRETS=$(cat {plan.folder / SECRET_FILE})")
    if "--demo" in plan.flags:
        output.say(f"  try         ab -n 10000 -c 100 {running.nodes[0].url}/buy/ticket")
    output.say(f"  read        {running.nodes[0].url}/docs    stop with Ctrl-C")


def _shown_orders(office: BackOffice) -> str:
    """The store's URL; of one of our own with its role, which has no password."""
    return office.orders if office.postgres is not None else without_password(office.orders)


def _facts(running: Cluster) -> dict[str, Any]:
    secret = running.plan.folder / SECRET_FILE
    return {
        "event": "up",
        "pid": os.getpid(),
        "folder": str(running.plan.folder),
        "ledger": without_password(running.ledger),
        "durability": running.plan.durability,
        "token_secret_file": str(secret) if running.plan.secret and secret.is_file() else None,
        "nodes": [
            {"name": node.name, "url": node.url, "weight": node.weight, "pid": node.pid, "log": str(node.log)}
            for node in running.nodes
        ],
        "valkey": [
            {"name": valkey.name, "url": valkey.url, "pid": valkey.pid, "log": str(valkey.log)}
            for valkey in running.valkeys
        ],
        "orders": _shown_orders(running.office) if running.office is not None else None,
        "kafka": (running.office.kafka or None) if running.office is not None else None,
        "back_office": [
            {"name": part.name, "pid": part.pid, "log": str(part.log)}
            for part in (running.office.everything if running.office is not None else ())
        ],
    }
