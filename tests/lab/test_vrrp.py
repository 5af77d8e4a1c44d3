"""VRRP by keepalived, in a real kernel: one balancer has the virtual address; the next one when it is gone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.lab.front import Asking, ask, eventually, serve
from ticketrush import processes
from ticketrush.edge import cluster_file, lvs, render
from ticketrush.lab.netns import Host, Network, network

VIRTUAL = "10.88.1.100"
ADDRESSES = {"lvs-1": "10.88.1.11", "lvs-2": "10.88.1.12"}
MOVED_S = 5.0
"""Within which the other balancer has the address."""
STAYS_S = 4.0
"""For how long it is seen to stay; a balancer that hears no other would take it after 3.2 s."""

CLUSTER = f"""
[front]
virtual_address = "{VIRTUAL}"
[[nodes]]
name = "n"
address = "10.88.1.21"
port = 80
[[balancers]]
name = "lvs-1"
address = "10.88.1.11"
[[balancers]]
name = "lvs-2"
address = "10.88.1.12"
"""


@dataclass(slots=True)
class Balancer:
    """A host with keepalived, and a web server that says its name; so one sees who has the virtual address."""

    host: Host
    configuration: Path
    keepalived: processes.Child | None = None

    @property
    def name(self) -> str:
        return self.host.name

    def start(self) -> None:
        serve(self.host, self.name)
        self.start_keepalived()

    def start_keepalived(self) -> None:
        """Only VRRP: whether the kernel has ip_vs does not matter here."""
        files = [f"--{what}={self.host.folder / self.name}-{what}" for what in ("pid", "vrrp_pid")]
        command = ["keepalived", "--vrrp", "--dont-fork", "--log-console", "--log-detail", "--no-syslog", *files]
        self.keepalived = self.host.start("keepalived", [*command, f"--use-file={self.configuration}"])

    def log(self) -> str:
        assert self.keepalived is not None
        return self.keepalived.stdout.read_text() + self.keepalived.stderr.read_text()

    def has_it(self) -> bool:
        return VIRTUAL in self.host.check(["ip", "-4", "address", "show", "dev", "eth0"])


@dataclass(frozen=True, slots=True)
class Pair:
    """Two balancers on one network, and a client."""

    client: Host
    first: Balancer
    second: Balancer

    def holders(self) -> list[str]:
        return [balancer.name for balancer in (self.first, self.second) if balancer.has_it()]


CHANGED: Final = {
    "test_the_canary_a_master_that_preempts_is_seen": lambda text: text.replace("  nopreempt\n", ""),
}
"""What is changed in the configuration, by the test that is for it."""


def build(net: Network, folder: Path, change: Callable[[str], str] = str) -> Pair:
    """A pair that starts: who of them is the master is not decided yet."""
    lan = net.lan("lan", "10.88.1.0/24")
    files = lvs.files(cluster_file.parse(CLUSTER))
    render.write(folder / "edge", {name: change(text) for name, text in files.items()})
    made = []
    for name, address in ADDRESSES.items():
        host = net.host(name)
        host.join(lan, address)
        host.check(["sysctl", "-q", "-p", str(folder / "edge" / name / "sysctl.conf")])
        made.append(Balancer(host, folder / "edge" / name / "keepalived.conf"))
    node, client = net.host("node"), net.host("client")
    node.join(lan, "10.88.1.21")
    client.join(lan, "10.88.1.50")
    serve(node, "node")
    for balancer in made:
        balancer.start()
    return Pair(client, *made)


@pytest.fixture(scope="module")
def pairs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Pair]]:
    """A pair of its own for each test, all started together: it takes seconds until they have a master."""
    with contextlib.ExitStack() as stack:
        made = {}
        for name in [item.name for item in request.session.items if item.path == request.path]:
            folder = tmp_path_factory.mktemp("pair")
            made[name] = build(stack.enter_context(network(folder)), folder, CHANGED.get(name, str))
        yield made


@pytest.fixture
def pair(pairs: dict[str, Pair], request: pytest.FixtureRequest) -> Pair:
    """The first is the master, and answers; the second is its backup."""
    made = pairs[request.node.name]
    eventually(lambda: made.holders() == ["lvs-1"] and "Entering BACKUP STATE" in made.second.log(), 20)
    eventually(lambda: ask(made.client, VIRTUAL, 1) == {"lvs-1": 1})
    return made


def test_the_backup_has_the_address_within_5_s_and_keeps_it_when_the_master_returns(pair: Pair) -> None:
    asking = Asking(pair.client, VIRTUAL)
    eventually(lambda: asking.was_answered_by("lvs-1"))
    killed_at = time.monotonic()
    pair.first.host.kill()
    moved_s = eventually(pair.second.has_it, MOVED_S)
    eventually(lambda: asking.was_answered_by("lvs-2"), MOVED_S)
    served_at = min(began for began, name in asking.answers() if name == "lvs-2")
    print(
        f"master killed: the backup has the address after {moved_s:.2f} s, answers after {served_at - killed_at:.2f} s"
    )
    assert served_at - killed_at <= MOVED_S

    returns(pair)
    stays_with_the_second(pair)


def returns(pair: Pair) -> None:
    """The first is switched on again. (Its address is taken from it, as a restart would.)"""
    pair.first.host.run(["ip", "address", "delete", f"{VIRTUAL}/32", "dev", "eth0"])
    pair.first.host.plug_in()
    pair.first.start()
    eventually(lambda: "Entering BACKUP STATE" in pair.first.log(), 20)


def stays_with_the_second(pair: Pair) -> None:
    until = time.monotonic() + STAYS_S
    while time.monotonic() < until:
        assert pair.holders() == ["lvs-2"]
        assert ask(pair.client, VIRTUAL, 5) == {"lvs-2": 5}


def test_a_master_whose_keepalived_alone_is_killed_is_followed_and_comes_back_as_a_backup(pair: Pair) -> None:
    """It cannot take the address away from itself any more: the network is told who has it now."""
    assert pair.first.keepalived is not None
    pair.first.keepalived.kill()
    killed_at = time.monotonic()
    eventually(lambda: ask(pair.client, VIRTUAL, 1) == {"lvs-2": 1}, MOVED_S)
    print(f"keepalived killed: the backup answers after {time.monotonic() - killed_at:.2f} s")

    pair.first.start_keepalived()
    eventually(lambda: "Entering BACKUP STATE" in pair.first.log(), 20)
    eventually(lambda: pair.holders() == ["lvs-2"])
    stays_with_the_second(pair)


def test_a_master_that_reaches_nobody_lets_go(pair: Pair) -> None:
    cut_at = time.monotonic()
    pair.first.host.check(["ip", "route", "add", "blackhole", "10.88.1.21/32"])
    eventually(lambda: pair.holders() == ["lvs-2"], 10)
    print(f"node out of reach: the backup has the address after {time.monotonic() - cut_at:.2f} s")
    assert "Entering FAULT STATE" in pair.first.log()

    pair.first.host.check(["ip", "route", "delete", "blackhole", "10.88.1.21/32"])
    eventually(lambda: pair.first.log().rpartition("FAULT STATE")[2].count("Entering BACKUP STATE") == 1, 20)
    stays_with_the_second(pair)


def test_the_canary_a_master_that_preempts_is_seen(pair: Pair) -> None:
    pair.first.host.kill()
    eventually(pair.second.has_it, MOVED_S)
    returns(pair)
    with pytest.raises(AssertionError):
        stays_with_the_second(pair)
    eventually(pair.first.has_it)
