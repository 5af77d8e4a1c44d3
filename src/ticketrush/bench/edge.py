"""Nginx as it is rendered, before a node: it answers for it when everything is sold."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from ticketrush.bench.buyers import Issuer
from ticketrush.bench.server import Server, serve
from ticketrush.cluster.server import running
from ticketrush.edge.cluster_file import ClusterFile, Front, NodeEntry
from ticketrush.edge.nginx_server import NginxServer

FRONT: Final = Front(workers=1, rate=None)
"""One worker, as the limit has; no rate limit, since the crowd has one address."""


def missing() -> str:
    """What is not here that rendering needs, and how to get it; empty if nothing is."""
    return (
        "" if importlib.util.find_spec("jinja2") else "it is rendered by Jinja2: run `pip install 'ticketrush[edge]'`"
    )


@contextlib.contextmanager
def serve_behind_nginx(folder: Path, issuer: Issuer, *, sold_out: bool = False) -> Iterator[Server]:
    """One node and one Nginx on free ports, all files in `folder`; the sale as in `serve`.

    The target is Nginx; its "store" is the node, so that the CPU of each is known.

    Raises:
        BenchError: the node does not start, or the sale cannot be set up.
        ClusterError: Nginx does not start.
    """
    with serve(folder, issuer, sold_out=sold_out) as node:
        port = urlsplit(node.target.url).port or 0
        cluster = ClusterFile(front=FRONT, nodes=(NodeEntry(name="node", address=IPv4Address("127.0.0.1"), port=port),))
        with running(NginxServer(folder, cluster)) as nginx:
            target = dataclasses.replace(node.target, url=nginx.url, pid=nginx.pid, store_pid=node.target.pid)
            yield dataclasses.replace(node, target=target, node_url=node.target.url)
