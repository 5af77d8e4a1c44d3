"""The shares without ip_vs, in a real kernel: exact, and nobody who is away gets a connection for long."""

from __future__ import annotations

import contextlib
import errno
import http.client
import select
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.front import Asking, ask, be_ready, eventually, serve
from ticketrush import processes
from ticketrush.edge import cluster_file, lvs, render
from ticketrush.lab.netns import Host, Network, inside, network

VIRTUAL = "192.0.2.10"
WEIGHTS = (1, 2, 3, 4)
AWAY_S = {"killed": 3.0, "unplugged": 3.0, "paused": 4.5}
"""Within which nobody who is away gets a new connection any more. One that accepts and is silent is missed last: 1 s at
most until the next question, 1 s to the second one, and 0.75 s until that is given up, which makes 2.8 s. The rest is
for a busy machine."""


@dataclass(frozen=True, slots=True)
class Door:
    """A client, a balancer with the virtual address, and proxies whose weights are WEIGHTS."""

    client: Host
    balancer: Host
    proxies: dict[str, Host]
    web: dict[str, processes.Child]
    files: Path

    def load(self) -> None:
        self.balancer.check(["nft", "-f", str(self.files / "lvs" / "nftables.conf")])

    def watch(self) -> processes.Child:
        """Its health script, once it has decided for the first time."""
        child = self.balancer.start("health", [str(self.files / "lvs" / "nftables-health.sh")])
        eventually(lambda: b"connections go to" in child.stdout.read_bytes())
        return child

    def said(self, child: processes.Child) -> str:
        return child.stdout.read_text()

    def connections_to(self, name: str) -> int:
        """How many the balancer has handed on to `name` so far."""
        words = self.balancer.check(["nft", "list", "chain", "ip", "ticketrush", f"to_{name}"]).split()
        return int(words[words.index("packets") + 1])


def build(net: Network, folder: Path, more: str = "") -> Door:
    lan = net.lan("lan", "10.89.1.0/24")
    entries = [
        f'[[proxies]]\nname = "p{weight}"\naddress = "10.89.1.{20 + weight}"\nweight = {weight}' for weight in WEIGHTS
    ]
    text = "\n".join(
        [
            f'[front]\nvirtual_address = "{VIRTUAL}"',
            '[[nodes]]\nname = "n"\naddress = "10.89.1.99"',
            '[[balancers]]\nname = "lvs"\naddress = "10.89.1.11"',
            *entries,
            more,
        ]
    )
    cluster = cluster_file.parse(text)
    render.write(folder / "edge", lvs.files(cluster))
    hosts = {}
    for name, number in [
        ("client", 50),
        ("lvs", 11),
        *((proxy.name, int(proxy.address) % 256) for proxy in cluster.proxies),
    ]:
        hosts[name] = net.host(name)
        hosts[name].join(lan, f"10.89.1.{number}")
    balancer, client = hosts["lvs"], hosts["client"]
    balancer.check(["sysctl", "-q", "-p", str(folder / "edge" / "lvs" / "sysctl.conf")])
    balancer.check(["ip", "address", "add", f"{VIRTUAL}/32", "dev", "lo"])
    client.route(VIRTUAL, "10.89.1.11")
    proxies = {proxy.name: hosts[proxy.name] for proxy in cluster.proxies}
    web = {name: serve(host, name) for name, host in proxies.items()}
    door = Door(client, balancer, proxies, web, folder / "edge")
    door.load()
    return door


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Network]:
    with network(tmp_path) as made:
        yield made


def exactly() -> dict[str, int]:
    """The shares of a hundred."""
    return {f"p{weight}": 10 * weight for weight in WEIGHTS}


def test_of_a_hundred_connections_each_gets_its_share_exactly(net: Network, tmp_path: Path) -> None:
    door = build(net, tmp_path)
    assert ask(door.client, VIRTUAL, 100) == exactly()
    door.watch()
    assert ask(door.client, VIRTUAL, 100) == exactly()


@pytest.mark.parametrize("how", AWAY_S)
def test_one_that_is_away_soon_gets_no_connection(net: Network, tmp_path: Path, how: str) -> None:
    door = build(net, tmp_path)
    health = door.watch()
    asking = Asking(door.client, VIRTUAL)
    eventually(lambda: door.connections_to("p4") > 0)
    away_at = _take_away(door, "p4", how)
    eventually(lambda: "connections go to" in door.said(health).partition("p4 is ill")[2])
    before = door.connections_to("p4")
    last_at = max(began for began, name in asking.until_well() if name.startswith("!"))
    assert last_at - away_at <= AWAY_S[how]
    print(f"{how}: the last connection went there after {last_at - away_at:.2f} s")
    assert door.connections_to("p4") == before
    assert ask(door.client, VIRTUAL, 60) == {"p1": 10, "p2": 20, "p3": 30}


def _take_away(door: Door, name: str, how: str) -> float:
    if how == "killed":
        door.web[name].kill()
    elif how == "paused":
        door.web[name].signal(signal.SIGSTOP)
    else:
        door.proxies[name].unplug()
    return time.monotonic()


def test_a_connection_that_is_led_to_one_that_is_gone_is_led_elsewhere_at_its_next_syn(
    net: Network, tmp_path: Path
) -> None:
    """Nobody has noticed yet, and the balancer forgets what was not answered."""
    door = build(net, tmp_path)
    door.proxies["p4"].unplug()
    began = time.monotonic()
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(_socket_of(door.client)) for _ in range(10)]
        for each in sockets:
            assert each.connect_ex((VIRTUAL, 80)) == errno.EINPROGRESS
        waiting = set(sockets)
        while waiting:
            assert time.monotonic() - began < 3.5, f"{len(waiting)} still wait"
            waiting -= set(select.select([], list(waiting), [], 0.1)[1])
        assert [each.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) for each in sockets] == [0] * 10
    assert time.monotonic() - began >= 0.9, "no SYN went to the one that is gone"
    assert door.connections_to("p4") == 4, "and none a second time"


def _socket_of(host: Host) -> socket.socket:
    with inside(host):
        made = socket.socket()
    made.setblocking(False)
    return made


def test_a_connection_that_there_is_stays_whoever_goes_and_comes(net: Network, tmp_path: Path) -> None:
    door = build(net, tmp_path)
    health = door.watch()
    connections = [http.client.HTTPConnection(VIRTUAL, 80, timeout=5) for _ in range(10)]
    with contextlib.ExitStack() as stack:
        with inside(door.client):
            for connection in connections:
                stack.callback(connection.close)
                connection.connect()
        _stay(door, health, connections)


def _stay(door: Door, health: processes.Child, connections: list[http.client.HTTPConnection]) -> None:
    names = [_answer(connection) for connection in connections]
    assert len(set(names)) == len(WEIGHTS)

    door.web["p4"].kill()
    eventually(lambda: door.said(health).count("connections go to") == 2)
    door.load()
    eventually(lambda: door.said(health).count("connections go to") == 3)
    assert "connections go to: 0 : goto to_p1, 1-2 : goto to_p2, 3-5 : goto to_p3\n" in door.said(health)
    for connection, name in zip(connections, names, strict=True):
        if name != "p4":
            assert _answer(connection) == name


def _answer(connection: http.client.HTTPConnection) -> str:
    connection.request("GET", "/")
    return connection.getresponse().read().decode()


def test_if_nobody_is_well_connections_are_refused_until_somebody_is(net: Network, tmp_path: Path) -> None:
    door = build(net, tmp_path)
    health = door.watch()
    for web in door.web.values():
        web.kill()
    eventually(lambda: "connections go to: nobody" in door.said(health))
    before = [door.connections_to(name) for name in door.web]
    assert ask(door.client, VIRTUAL, 20) == {"!ConnectionRefusedError": 20}
    assert [door.connections_to(name) for name in door.web] == before

    serve(door.proxies["p2"], "p2")
    eventually(lambda: "p2 is well" in door.said(health).rpartition("nobody")[2])
    eventually(lambda: ask(door.client, VIRTUAL, 20) == {"p2": 20})


def test_if_nobody_is_ready_all_that_answer_get_their_shares(net: Network, tmp_path: Path) -> None:
    door = build(net, tmp_path)
    door.web["p1"].kill()
    health = door.watch()
    for name in ("p2", "p3"):
        be_ready(door.proxies[name], ready=False)
    eventually(lambda: door.said(health).endswith("connections go to: 0-3 : goto to_p4\n"))
    be_ready(door.proxies["p4"], ready=False)
    eventually(
        lambda: (
            "0-1 : goto to_p2, 2-4 : goto to_p3, 5-8 : goto to_p4\n" in door.said(health).partition("p4 is unready")[2]
        )
    )
    assert ask(door.client, VIRTUAL, 90) == {"p2": 20, "p3": 30, "p4": 40}

    be_ready(door.proxies["p3"], ready=True)
    eventually(lambda: door.said(health).endswith("connections go to: 0-2 : goto to_p3\n"))
    assert ask(door.client, VIRTUAL, 20) == {"p3": 20}
    assert "nobody" not in door.said(health)


def test_the_sorry_server_answers_if_nobody_is_well_and_not_if_nobody_is_ready(net: Network, tmp_path: Path) -> None:
    door = build(net, tmp_path, '[lvs]\nsorry_server = "10.89.1.98"')
    sorry = net.host("sorry")
    sorry.join(net.lans["lan"], "10.89.1.98")
    serve(sorry, "sorry")
    for host in door.proxies.values():
        be_ready(host, ready=False)
    health = door.watch()
    assert ask(door.client, VIRTUAL, 100) == exactly(), "their own words are better than none"

    for web in door.web.values():
        web.kill()
    eventually(lambda: "connections go to: nobody" in door.said(health))
    assert ask(door.client, VIRTUAL, 20) == {"sorry": 20}


def test_its_health_script_ends_at_once_and_leaves_the_shares(net: Network, tmp_path: Path) -> None:
    door = build(net, tmp_path)
    health = door.watch()
    assert health.stop(within_s=5) == 0
    assert door.said(health).endswith("stopping, the shares stay\n")
    eventually(lambda: door.balancer.pids() == [])
    assert ask(door.client, VIRTUAL, 100) == exactly()


def test_rules_of_others_are_left_alone(net: Network, tmp_path: Path) -> None:
    door = build(net, tmp_path)
    door.balancer.check(["nft", 'add table ip theirs; add chain ip theirs own { comment "kept"; }'])
    door.load()
    door.load()
    tables = door.balancer.check(["nft", "list", "tables"]).split("\n")
    assert sorted(filter(None, tables)) == ["table ip theirs", "table ip ticketrush"]
    assert ask(door.client, VIRTUAL, 100) == exactly()
