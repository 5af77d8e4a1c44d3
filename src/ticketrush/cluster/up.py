"""A whole cluster on one machine: a Valkey, or one that is there, and the nodes that sell from it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ticketrush import processes, stop
from ticketrush.cluster.backoffice import BackOffice, backoffice, working
from ticketrush.cluster.errors import FolderInUse
from ticketrush.cluster.nodes import Node, ended
from ticketrush.cluster.plan import ClusterPlan
from ticketrush.cluster.program import Program
from ticketrush.cluster.server import LocalServer, running
from ticketrush.cluster.topology import replicas
from ticketrush.cluster.valkey import Persistence, Valkey

REPLICAS = 2
"""With durability replica: when one has taken the place of the primary, the other acknowledges."""

LOCK_FILE: Final = "cluster.lock"

_PERSISTENCE: dict[str, Persistence] = {"memory": "memory", "fsync": "fsync", "replica": "memory"}


@dataclass(frozen=True, slots=True)
class Part:
    """A process of the cluster, for those who look after it."""

    name: str
    child: processes.Child


class Cluster:
    """A running cluster. `valkeys` are ours: the primary first, none if the ledger was there before."""

    def __init__(
        self, plan: ClusterPlan, ledger: str, nodes: list[Node], valkeys: list[Valkey], office: BackOffice | None
    ) -> None:
        self.plan, self.ledger, self.nodes, self.valkeys, self.office = plan, ledger, nodes, valkeys, office
        self.stubborn: list[str] = []
        """Names of nodes that did not stop when asked to, and were killed; filled at the end."""
        self._told: set[int] = set()

    @property
    def living(self) -> list[Node]:
        """The nodes that run."""
        return [node for node in self.nodes if node.is_running]

    @property
    def parts(self) -> list[Part]:
        """Every process, nodes first."""
        everything: list[Program | LocalServer | Valkey] = [*self.nodes, *self.valkeys]
        if self.office is not None:
            everything += self.office.everything
        return [Part(each.name, each.child) for each in everything]

    def newly_ended(self) -> list[str]:
        """What ended by itself since this was last asked: which, how, and the end of its log."""
        programs: list[Program] = [*self.nodes, *(self.office.programs if self.office is not None else ())]
        wanted = {program.pid for program in programs if program.killed}
        told = []
        for part in self.parts:
            code = part.child.exit_code
            if code is not None and part.child.pid not in self._told | wanted:
                self._told.add(part.child.pid)
                told.append(f"{part.name} (pid {part.child.pid}) {ended(code)}:\n{part.child.words()}")
        return told

    def cpu_s(self) -> dict[int, float]:
        """CPU seconds so far of each process that runs, by its process id."""
        spent = {part.child.pid: processes.cpu_of(part.child.pid) for part in self.parts if not part.child.ended}
        return {pid: seconds for pid, seconds in spent.items() if seconds is not None}

    def rss_mb(self) -> dict[int, float]:
        """The most memory that each process that runs ever had, in megabytes, by its process id."""
        had = {part.child.pid: processes.rss_mb_max(part.child.pid) for part in self.parts if not part.child.ended}
        return {pid: megabytes for pid, megabytes in had.items() if megabytes is not None}


@contextlib.contextmanager
def cluster(plan: ClusterPlan) -> Iterator[Cluster]:
    """The cluster of `plan`, ready; at the end its nodes stop gracefully, then its Valkey.

    Raises:
        NotInstalled: it needs a Valkey, and there is none.
        FolderInUse: another cluster runs in its folder.
        ClusterError: something does not start; has its last words.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(alone_in(plan.folder))
        valkeys = _valkeys(plan, stack) if plan.ledger is None else []
        ledger = plan.ledger or valkeys[0].url
        office = stack.enter_context(backoffice(plan, ledger)) if plan.orders else None
        nodes = [_node(plan, number, ledger, office) for number in range(plan.nodes)]
        made = Cluster(plan, ledger, nodes, valkeys, office)
        with stop.postponed():
            stack.callback(_stop, made)
            for node in nodes:
                node.launch()
        for node in nodes:
            node.wait_until_ready()
        if office is not None:
            stack.enter_context(working(office))  # its journal is there now
        yield made


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """No other cluster runs in `folder` meanwhile: two servers on the same files would sell everything twice.

    The operating system ends this with the process, however it ends.

    Raises:
        FolderInUse: another one does; names its process.
    """
    file = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            owner = os.read(file, 32).decode("ascii", "replace").strip() or "unknown"
            raise FolderInUse(
                f"the folder {folder} is in use by process {owner}: stop that one, or name another folder"
            ) from None
        os.ftruncate(file, 0)
        os.write(file, str(os.getpid()).encode())
        yield
    finally:
        os.close(file)


def _valkeys(plan: ClusterPlan, stack: contextlib.ExitStack) -> list[Valkey]:
    with stop.postponed():
        primary = Valkey(plan.folder, persistence=_PERSISTENCE[plan.durability])
        stack.enter_context(running(primary))
        copies = stack.enter_context(replicas(primary, REPLICAS)) if plan.durability == "replica" else []
    return [primary, *copies]


def _node(plan: ClusterPlan, number: int, ledger: str, office: BackOffice | None) -> Node:
    name = f"node-{number + 1}" if plan.is_shared else "server"
    flags, env = plan.settings_of(ledger, office.orders if office is not None else "")
    if plan.is_shared:
        flags += ["--node", name, "--durability", plan.durability]
    if office is not None:
        flags.append("--no-order-worker")
    secret = {"TICKETRUSH_TOKEN_SECRETS": plan.secret} if plan.secret else {}
    port, weight = plan.port_of(number), plan.weight_of(number)
    return Node(name, plan.folder, [*flags, *plan.flags], env | secret, port=port, weight=weight)


def _stop(made: Cluster) -> None:
    """Ask all nodes at once, then wait for each."""
    with stop.postponed():
        running_still = made.living
        for node in running_still:
            node.ask_to_stop()
        made.stubborn += [node.name for node in running_still if node.stop() == -signal.SIGKILL]
