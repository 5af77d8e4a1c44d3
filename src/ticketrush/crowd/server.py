"""The rush's own servers: one process with a fresh journal, or a cluster of nodes; and what they cost."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ticketrush import processes, stop
from ticketrush.cluster.errors import ClusterError, NotInstalled
from ticketrush.cluster.nodes import Node
from ticketrush.cluster.plan import ClusterPlan
from ticketrush.cluster.up import Cluster, cluster
from ticketrush.crowd.errors import CrowdError
from ticketrush.crowd.options import RushOptions

OWN_SQLITE: Final = "sqlite"
"""What to write instead of a URL to have orders in a file of our own."""


class OwnServers:
    """Running servers of ours; `folder` has their data and their logs, and is left there if `keep` is set."""

    def __init__(self, running: Cluster, secret: bytes, folder: Path) -> None:
        self._running = running
        self.secret = secret
        self.folder = folder
        self.keep = False
        self._cpu_s: dict[int, float] = {}
        self._rss_mb: dict[int, float] = {}

    @property
    def nodes(self) -> list[Node]:
        """All of them, those that were killed too."""
        return self._running.nodes

    @property
    def orders(self) -> str:
        """The URL of the order store; "" if there is none."""
        return self._running.office.orders if self._running.office is not None else ""

    def kill(self, number: int) -> None:
        """Kill a node as a power cut would; what it has cost is remembered."""
        self._look()
        self.nodes[number].kill()

    def died(self) -> list[str]:
        """What ended though nobody killed it, since this was last asked: which, how, and the end of its log."""
        return [f"the rush's own {told}" for told in self._running.newly_ended()]

    def cost(self) -> tuple[float, float] | None:
        """(CPU seconds so far, most megabytes) of all nodes and Valkey together; None where that cannot be known."""
        self._look()
        return (sum(self._cpu_s.values()), sum(self._rss_mb.values())) if self._cpu_s and self._rss_mb else None

    def _look(self) -> None:
        self._cpu_s |= self._running.cpu_s()
        self._rss_mb |= self._running.rss_mb()


@contextlib.contextmanager
def own_servers(options: RushOptions) -> Iterator[OwnServers]:
    """Start what `options` want on free ports; stop it gracefully and remove its folder, unless `keep` is set.

    Raises:
        CrowdError: something does not start, or is not installed.
    """
    secret = secrets.token_urlsafe(48)
    with contextlib.ExitStack() as stack:
        with stop.postponed():
            folder = Path(tempfile.mkdtemp(prefix="ticketrush-rush-"))
            unwanted = stack.enter_context(contextlib.ExitStack())
            unwanted.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            running = stack.enter_context(cluster(_plan(options, folder, secret)))
        except NotInstalled:
            raise
        except ClusterError as error:
            raise CrowdError(f"the rush's own servers did not start: {error}") from None
        own = OwnServers(running, secret.encode(), folder)
        try:
            yield own
        finally:
            if own.keep:
                unwanted.pop_all()


def _plan(options: RushOptions, folder: Path, secret: str) -> ClusterPlan:
    """One process with a journal, or as many nodes as are wanted; no setting reaches them but the secret."""
    env = processes.plain_environment()
    orders = f"sqlite:///{folder / 'orders.db'}" if options.orders == OWN_SQLITE else options.orders
    if options.nodes is None:
        ledger = f"sqlite:///{folder / 'rush.db'}"
        return ClusterPlan(nodes=1, folder=folder, ledger=ledger, secret=secret, orders=orders, env=env)
    return ClusterPlan(
        nodes=options.nodes,
        weights=options.weights,
        folder=folder,
        durability=options.durability,
        secret=secret,
        orders=orders,
        kafka=options.kafka,
        env=env,
    )
