"""Valkey and its sentinels, each on a host of the lab."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Sequence
from typing import Final

from ticketrush.cluster.errors import ClusterError
from ticketrush.cluster.topology import SERVICE
from ticketrush.cluster.valkey import Persistence, Valkey, ask, find_program
from ticketrush.lab.errors import LabError
from ticketrush.lab.netns import Host, inside
from ticketrush.lab.plan import LEDGER_PORT, SENTINEL_PORT

DOWN_AFTER_MS: Final = 2_000
"""How long a server may be silent before a sentinel holds it for dead."""

TOGETHER_S: Final = 30.0


class HostValkey(Valkey):
    """A Valkey on a host: the primary, or a replica of the one at the address `of`."""

    def __init__(self, host: Host, persistence: Persistence, *, of: str = "") -> None:
        self.host = host
        more = ["--bind", "127.0.0.1", host.address, "--protected-mode", "no", "--repl-diskless-sync-delay", "0"]
        # A link that is cut is not told of it: the other end must notice it by itself.
        more += ["--repl-timeout", "5", "--repl-ping-replica-period", "1"]
        if of:
            more += ["--replicaof", f"{of} {LEDGER_PORT}"]
        super().__init__(host.folder, persistence=persistence, port=LEDGER_PORT, name=host.name, more=more)

    @property
    def url(self) -> str:
        """Its URL, for the nodes."""
        return f"redis://{self.host.address}:{self.port}/0"

    def command_line(self) -> list[str]:
        """How it is started, on its host."""
        return self.host.command(super().command_line())

    def ask(self, command: str) -> str:
        """The answer to one plain command; see `Valkey.ask`."""
        with inside(self.host):
            return super().ask(command)

    def follows(self) -> bool:
        """Whether it is a replica that has all that its primary has."""
        return "master_link_status:up" in self.ask("INFO replication")


def start_sentinels(hosts: list[Host], primary: str, replicas: int) -> None:
    """Sentinels on `hosts` for the server at the address `primary` with its `replicas`.

    Raises:
        LabError: they do not come to know one another.
    """
    quorum = len(hosts) // 2 + 1
    for host in hosts:
        file = host.folder / f"{host.name}-sentinel.conf"
        file.write_text(
            f"port {SENTINEL_PORT}\nbind 127.0.0.1 {host.address}\nprotected-mode no\ndir {host.folder}\n"
            f"sentinel monitor {SERVICE} {primary} {LEDGER_PORT} {quorum}\n"
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n"
            f"sentinel failover-timeout {SERVICE} {5 * DOWN_AFTER_MS}\n"
        )
        host.start("sentinel", [str(find_program()), str(file), "--sentinel"])
    words = {f"sentinels={len(hosts)}", f"slaves={replicas}", "status=ok"}
    until(lambda: all(words <= _words(host) for host in hosts), TOGETHER_S, "the sentinels to meet")


def sentinel_url(hosts: Sequence[Host]) -> str:
    """The ledger's URL for a node that asks the sentinels on `hosts`, the first one first."""
    return f"redis+sentinel://{','.join(f'{host.address}:{SENTINEL_PORT}' for host in hosts)}/{SERVICE}"


def _words(sentinel: Host) -> set[str]:
    with contextlib.suppress(ClusterError), inside(sentinel):
        return set(re.split(r"[\s,]+", ask(SENTINEL_PORT, "INFO sentinel")))
    return set()


def primary_of(sentinel: Host) -> str:
    """The address of the primary, as the sentinel on that host sees it; "" if it does not say."""
    with contextlib.suppress(ClusterError), inside(sentinel):
        found = re.findall(r"address=([0-9.]+):\d+", ask(SENTINEL_PORT, "INFO sentinel"))
        return found[0] if found else ""
    return ""


def until(is_so: Callable[[], bool], within_s: float, what: str, *, every_s: float = 0.02) -> float:
    """Wait until it is so; when that was (monotonic seconds). Raises LabError after `within_s`."""
    give_up_s = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > give_up_s:
            raise LabError(f"waited {within_s:g} s in vain for {what}")
        time.sleep(every_s)
    return time.monotonic()
