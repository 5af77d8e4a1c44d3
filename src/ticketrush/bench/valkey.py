"""ticketrush as one node of many: the same server, with its ledger in a Valkey of its own beside it."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from ticketrush.bench.buyers import Issuer
from ticketrush.bench.server import Server, serve
from ticketrush.cluster.errors import ClusterError
from ticketrush.cluster.server import running
from ticketrush.cluster.valkey import Valkey, find_program

CLIENT = ("redis", "hiredis")
"""The packages of the extra `redis`."""


def missing() -> str:
    """What is not here that a ledger in Valkey needs, and how to get it; empty if nothing is."""
    try:
        find_program()
    except ClusterError as error:
        return str(error)
    if all(importlib.util.find_spec(name) for name in CLIENT):
        return ""
    return "the packages of the ledger in Redis are not here: run `pip install 'ticketrush[cluster]'`"


def version() -> str:
    """What the server's program calls itself."""
    done = subprocess.run([find_program(), "--version"], capture_output=True, text=True, timeout=10, check=False)
    name, _, rest = done.stdout.strip().partition(" server v=")
    return f"{name} {rest.split(' ', 1)[0]}"


@contextlib.contextmanager
def serve_with_valkey(
    folder: Path,
    issuer: Issuer,
    *,
    durability: Literal["memory", "fsync"] = "memory",
    sold_out: bool = False,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """One node and one Valkey on free ports, all files in `folder`; the sale as in `serve`.

    Valkey appends to its file at least every second, with durability "fsync" before every answer.

    Raises:
        BenchError: the node does not start, or the sale cannot be set up.
        ClusterError: Valkey does not start.
    """
    with (
        running(Valkey(folder, persistence=durability)) as valkey,
        serve(
            folder, issuer, sold_out=sold_out, ledger=valkey.url, durability=durability, settings=settings or {}
        ) as server,
    ):
        yield dataclasses.replace(server, target=dataclasses.replace(server.target, store_pid=valkey.pid))
