"""A front door for tests: real nodes on a Valkey, and before them a real Nginx by a rendered configuration."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from tests.wire import Answer, Wire, request
from ticketrush.cluster.nodes import Node
from ticketrush.cluster.plan import ClusterPlan
from ticketrush.cluster.ports import LOCALHOST
from ticketrush.cluster.server import running
from ticketrush.cluster.up import Cluster, cluster
from ticketrush.edge.cluster_file import ClusterFile, Front, NodeEntry
from ticketrush.edge.nginx_server import NginxServer

LOG_S: Final = 5.0
"""How late a line of the access log may be; Nginx writes it within a second."""


class Door:
    """Running nodes, and Nginx before them."""

    def __init__(self, cluster: Cluster, nginx: NginxServer) -> None:
        self.cluster, self.nginx = cluster, nginx

    @property
    def nodes(self) -> list[Node]:
        return self.cluster.nodes

    @property
    def port(self) -> int:
        return self.nginx.port

    def lines(self, path: str = "", count: int = 0) -> list[dict[str, Any]]:
        """The lines of the access log for requests at `path`, or for all; waits until there are `count`."""
        until_s = time.monotonic() + LOG_S
        while True:
            text = self.nginx.access_log.read_text("utf-8")
            whole = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
            found = [line for line in whole if path in {"", line["path"]}]
            if len(found) >= count:
                return found
            assert time.monotonic() < until_s, f"only {len(found)} of {count} lines in the log: {found}"
            time.sleep(0.02)

    def complaints(self) -> str:
        """What Nginx has logged as wrong."""
        return (self.nginx.folder / "error.log").read_text("utf-8")


def address_of(node: Node) -> str:
    """Where a node is, as Nginx logs it."""
    return node.url.removeprefix("http://")


def entry_of(node: Node, site: str = "a") -> NodeEntry:
    """A node in the cluster file."""
    port = int(node.url.rpartition(":")[2])
    return NodeEntry(name=node.name, address=IPv4Address(LOCALHOST), port=port, weight=node.weight, site=site)


@contextlib.contextmanager
def front_door(
    folder: Path,
    weights: tuple[int, ...] = (1, 1),
    *,
    sites: str = "",
    flags: tuple[str, ...] = ("--demo", "100000"),
    secret: str = "",
    **front: Any,
) -> Iterator[Door]:
    """Nodes of these weights, open unless there is a `secret`, and Nginx; `sites` has a letter for each node."""
    plan = ClusterPlan(
        nodes=len(weights), weights=weights, folder=folder, durability="memory", flags=flags, secret=secret
    )
    place = folder / "nginx"
    place.mkdir()
    values = {"address": IPv4Address(LOCALHOST), "rate": None, "sold_out_at_edge": False} | front
    with cluster(plan) as started:
        entries = tuple(
            entry_of(node, site) for node, site in zip(started.nodes, sites or "a" * len(weights), strict=True)
        )
        with running(NginxServer(place, ClusterFile(front=Front(**values), nodes=entries))) as nginx:
            yield Door(started, nginx)


def call(door: Door, method: str, path: str, body: bytes = b"", timeout_s: float = 10.0, **headers: str) -> Answer:
    """One request through Nginx, on a connection of its own."""
    with Wire(door.port, timeout_s=timeout_s) as wire:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        wire.send(request(method, path, body, {"Connection": "close"} | named))
        return wire.answer(has_body=method != "HEAD")
