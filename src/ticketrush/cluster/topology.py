"""Several Valkey servers that belong together: a primary with replicas, sentinels, a cluster of primaries."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ticketrush import processes
from ticketrush.cluster.errors import ClusterError
from ticketrush.cluster.ports import LOCALHOST, free_port
from ticketrush.cluster.server import running
from ticketrush.cluster.valkey import Persistence, Valkey, ask, find_program

SERVICE: Final = "tickets"
"""The name under which sentinels know the primary."""

SLOTS: Final = 16_384
TOGETHER_S: Final = 30.0


@contextlib.contextmanager
def replicas(primary: Valkey, count: int = 1) -> Iterator[list[Valkey]]:
    """Replicas of `primary`, in its folder, once they have all that it has."""
    at_once = "repl-diskless-sync-delay"  # whoever has what is copied would wait 5 s for more who want it
    primary.ask(f"CONFIG SET {at_once} 0")
    with contextlib.ExitStack() as stack:
        made: list[Valkey] = []
        for number in range(1, count + 1):
            more = ("--replicaof", f"{LOCALHOST} {primary.port}", f"--{at_once}", "0")
            replica = Valkey(
                primary.folder, persistence=primary.persistence, name=f"{primary.name}-replica-{number}", more=more
            )
            made.append(stack.enter_context(running(replica)))
        for replica in made:
            _until(replica.port, "INFO replication", {"master_link_status:up"}, f"{replica.name} to follow its primary")
        yield made


class Sentinels:
    """Sentinels that watch a primary and put a replica in its place when it is gone."""

    def __init__(self, children: list[processes.Child], ports: list[int]) -> None:
        self.children, self.ports = children, ports

    @property
    def url(self) -> str:
        """The ledger's URL."""
        hosts = ",".join(f"{LOCALHOST}:{port}" for port in self.ports)
        return f"redis+sentinel://{hosts}/{SERVICE}"

    def primary_port(self) -> int:
        """The port of the primary, as the first sentinel sees it."""
        found = re.findall(r"address=[0-9.]+:(\d+)", ask(self.ports[0], "INFO sentinel"))
        if not found:
            raise ClusterError(f"the sentinel at port {self.ports[0]} knows no primary")
        return int(found[0])


@contextlib.contextmanager
def sentinels(primary: Valkey, count: int = 3, *, down_after_ms: int = 1_000) -> Iterator[Sentinels]:
    """Sentinels for `primary`, once they know one another and its replicas."""
    with contextlib.ExitStack() as stack:
        children, ports = [], []
        for number in range(1, count + 1):
            port = free_port()
            file = primary.folder / f"sentinel-{number}.conf"
            file.write_text(_sentinel_conf(primary, port, count // 2 + 1, down_after_ms))
            command = [str(find_program()), str(file), "--sentinel"]
            child = processes.start(f"sentinel-{number}", command, primary.folder, processes.plain_environment())
            stack.callback(child.stop)
            children.append(child)
            ports.append(port)
        for port in ports:
            _until(port, "INFO sentinel", {f"sentinels={count}"}, "the sentinels to meet")
        yield Sentinels(children, ports)


def _sentinel_conf(primary: Valkey, port: int, quorum: int, down_after_ms: int) -> str:
    return (
        f"port {port}\nbind {LOCALHOST}\ndir {primary.folder}\n"
        f"sentinel monitor {SERVICE} {LOCALHOST} {primary.port} {quorum}\n"
        f"sentinel down-after-milliseconds {SERVICE} {down_after_ms}\n"
        f"sentinel failover-timeout {SERVICE} {5 * down_after_ms}\n"
    )


class Primaries:
    """A Valkey Cluster of primaries that share the slots."""

    def __init__(self, servers: list[Valkey]) -> None:
        self.servers = servers

    @property
    def url(self) -> str:
        """The ledger's URL."""
        return f"redis+cluster://{LOCALHOST}:{self.servers[0].port}"

    def owner_of(self, key: str) -> Valkey:
        """The server that has `key`."""
        slot = int(self.servers[0].ask(f"CLUSTER KEYSLOT {key}"))
        return self.servers[slot * len(self.servers) // SLOTS]


@contextlib.contextmanager
def primaries(folder: Path, count: int = 3, *, persistence: Persistence = "memory") -> Iterator[Primaries]:
    """A cluster of `count` primaries, once each of them knows all slots."""
    with contextlib.ExitStack() as stack:
        servers: list[Valkey] = []
        for number in range(1, count + 1):
            name, bus = f"primary-{number}", str(free_port())
            more = (
                *("--cluster-enabled", "yes", "--cluster-config-file", f"{name}.nodes", "--cluster-port", bus),
                *("--cluster-node-timeout", "2000"),
            )
            servers.append(stack.enter_context(running(Valkey(folder, persistence=persistence, name=name, more=more))))
            # The range of primary i; owner_of is its inverse.
            low, high = (-(-SLOTS * i // count) for i in (number - 1, number))
            servers[-1].ask(f"CLUSTER ADDSLOTSRANGE {low} {high - 1}")
            servers[0].ask(f"CLUSTER MEET {LOCALHOST} {servers[-1].port} {bus}")
        for server in servers:
            words = {"cluster_state:ok", f"cluster_known_nodes:{count}"}
            _until(server.port, "CLUSTER INFO", words, f"{server.name} to know the cluster")
        yield Primaries(servers)


def _until(port: int, command: str, words: set[str], what: str) -> None:
    """Wait until all `words` are in what the server at `port` answers to `command`."""
    give_up_s = time.monotonic() + TOGETHER_S
    while time.monotonic() < give_up_s:
        with contextlib.suppress(ClusterError):
            if words <= set(re.split(r"[\s,]+", ask(port, command))):
                return
        time.sleep(0.05)
    raise ClusterError(f"waited {TOGETHER_S:g} s in vain for {what}")
