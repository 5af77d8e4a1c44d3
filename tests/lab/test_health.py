"""When a balancer withdraws the virtual address, and when not: two with a real Nginx each, before four nodes."""

from __future__ import annotations

import contextlib
import itertools
import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.lab.front import be_ready, eventually, serve
from ticketrush import processes
from ticketrush.edge import cluster_file, nginx, ospf, render
from ticketrush.lab.netns import Host, network
from ticketrush.lab.programs import start_nginx

VIRTUAL = "192.0.2.10"
BALANCERS = {"lvs-1": "10.91.1.11", "lvs-2": "10.91.1.12"}
NODES = {f"node-{number}": f"10.91.1.{20 + number}" for number in range(1, 5)}
STAYS_S = 4.5
"""For how long it is seen to stay; it would be withdrawn after 3 s."""
MOVES_S = 5.0

CLUSTER = "\n".join(
    [
        f'[front]\nvirtual_address = "{VIRTUAL}"',
        '[ospf]\nnetworks = ["10.91.1.0/24"]',
        *(f'[[nodes]]\nname = "{name}"\naddress = "{address}"\nport = 80' for name, address in NODES.items()),
        *(f'[[proxies]]\nname = "{name}"\naddress = "{address}"' for name, address in BALANCERS.items()),
        *(f'[[balancers]]\nname = "{name}"\naddress = "{address}"' for name, address in BALANCERS.items()),
    ]
)


@dataclass(slots=True)
class Door:
    """The hosts, and what runs in the balancers. The health scripts put the address on lo; nobody hears of it here."""

    balancers: dict[str, Host] = field(default_factory=dict)
    nodes: dict[str, Host] = field(default_factory=dict)
    proxies: dict[str, processes.Child] = field(default_factory=dict)
    health: dict[str, processes.Child] = field(default_factory=dict)

    def holders(self) -> set[str]:
        """The balancers that have the address now."""
        show = ["ip", "-4", "address", "show", "dev", "lo"]
        return {name for name, host in self.balancers.items() if VIRTUAL in host.check(show)}

    def said(self, name: str) -> list[str]:
        """What its health script has said, without times."""
        return re.sub(r"(?m)^\S+ \S+: ", "", self.health[name].stdout.read_text()).splitlines()

    def status(self, name: str, path: str) -> str:
        """What its own proxy answers to a balancer: a status, 000 if nothing in time."""
        return self.balancers[name].run(_ask(name, path)).stdout

    def is_unready(self) -> bool:
        """Whether both proxies say so."""
        return {self.status(name, "/readyz") for name in BALANCERS} == {"503"}

    def watch(self) -> list[processes.Child]:
        """Ask both proxies for /readyz over and over; each writes down a status a line."""
        return [
            host.start("watch", ["sh", "-c", f"while :; do {shlex.join(_ask(name, '/readyz'))}; echo; sleep 0.1; done"])
            for name, host in self.balancers.items()
        ]

    def withdraws_nothing(self) -> None:
        assert [self.said(name) for name in BALANCERS] == [ANNOUNCED, ANNOUNCED], "one withdraws"
        assert self.holders() == set(BALANCERS), "one withdraws"


def _ask(name: str, path: str) -> list[str]:
    return ["curl", "-s", "-o", "/dev/null", "-m", "0.75", "-w", "%{http_code}", f"http://{BALANCERS[name]}{path}"]


def stay(doors: Sequence[Door], status: str) -> None:
    """Nobody withdraws for a while, in which no proxy's /readyz has said anything but this twice in a row."""
    watchers = [watcher for door in doors for watcher in door.watch()]
    until = time.monotonic() + STAYS_S
    while time.monotonic() < until:
        for door in doors:
            door.withdraws_nothing()
        time.sleep(0.1)
    for watcher in watchers:
        watcher.kill()
        statuses = watcher.stdout.read_text().split()
        print(f"{watcher.name}: {len(statuses)} answers, other than {status}: {[s for s in statuses if s != status]}")
        assert len(statuses) > 2
        assert all(status in pair for pair in itertools.pairwise(statuses)), statuses


ANNOUNCED = [f"started, {VIRTUAL} is not announced", f"well, {VIRTUAL} is announced"]
WITHDRAWN = [*ANNOUNCED, f"ill, {VIRTUAL} is withdrawn"]


@contextlib.contextmanager
def starting(folder: Path, change: Callable[[str], str] = str) -> Iterator[Door]:
    """A door whose balancers have not announced anything yet. `change` is done to what is rendered."""
    with network(folder) as net:
        cluster = cluster_file.parse(CLUSTER)
        files = ospf.files(cluster) | nginx.files(cluster)
        render.write(folder, {name: change(text) for name, text in files.items()})
        lan = net.lan("lan", "10.91.1.0/24")
        made = Door()
        for name, address in NODES.items():
            made.nodes[name] = net.host(name)
            made.nodes[name].join(lan, address)
            serve(made.nodes[name], name)
        for name, address in BALANCERS.items():
            host = made.balancers[name] = net.host(name)
            host.join(lan, address)
            made.proxies[name] = start_nginx(host, folder / nginx.NAME)
            made.health[name] = host.start("health", [str(folder / name / "health.sh")])
        yield made


def is_up(door: Door) -> bool:
    return door.holders() == set(BALANCERS)


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with starting(tmp_path) as made:
        eventually(lambda: is_up(made))
        yield made


WAYS = ("unplugged", "silent")
"""How nodes are lost so that nobody is told."""


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[dict[str, Door]]:
    """One for each way to lose nodes, side by side: the tests wait once for both."""
    with contextlib.ExitStack() as stack:
        made = {}
        for how in WAYS:
            (tmp_path / how).mkdir()
            made[how] = stack.enter_context(starting(tmp_path / how))
        eventually(lambda: all(map(is_up, made.values())))
        yield made


def test_half_of_the_nodes_lost_silently_withdraw_nothing(doors: dict[str, Door]) -> None:
    for how, door in doors.items():
        for name in ("node-1", "node-2"):
            _lose(door.nodes[name], how)
    stay([*doors.values()], "200")


def _lose(host: Host, how: str) -> None:
    if how == "unplugged":
        host.unplug()
    else:  # it is found on the network, and its answers come to nobody
        for address in BALANCERS.values():
            host.check(["ip", "route", "add", "blackhole", f"{address}/32"])


def test_a_ledger_that_is_away_withdraws_nothing(door: Door) -> None:
    for host in door.nodes.values():
        be_ready(host, ready=False)
    eventually(door.is_unready)
    stay([door], "503")
    for host in door.nodes.values():
        be_ready(host, ready=True)
    back_s = eventually(lambda: {door.status(name, "/readyz") for name in BALANCERS} == {"200"})
    print(f"ready again after {back_s:.2f} s")
    assert back_s < 1, "nobody is left out for what was"
    stay([door], "200")


def test_the_canary_balancers_that_withdraw_when_nobody_is_ready_are_seen(tmp_path: Path) -> None:
    rule = '{ [ "$is_ready" = 0 ] || [ "$is_ready_elsewhere" != 0 ]; }'
    changed: list[str] = []

    def forget(text: str) -> str:
        changed.extend([rule] * text.count(rule))
        return text.replace(rule, '[ "$is_ready" = 0 ]')

    with starting(tmp_path, forget) as door:
        assert len(changed) == len(BALANCERS)
        eventually(lambda: is_up(door))
        for host in door.nodes.values():
            be_ready(host, ready=False)
        eventually(door.is_unready)
        with pytest.raises(AssertionError, match="one withdraws"):
            stay([door], "503")


def test_all_nodes_lost_silently_withdraw_nothing_and_proxies_say_so_in_time(doors: dict[str, Door]) -> None:
    for how, door in doors.items():
        for host in door.nodes.values():
            _lose(host, how)
    for door in doors.values():
        eventually(door.is_unready)
    stay([*doors.values()], "503")


@pytest.mark.parametrize("how", ["killed", "paused", "killed while nobody is ready"])
def test_a_balancer_whose_own_proxy_is_dead_withdraws(door: Door, how: str) -> None:
    host = door.balancers["lvs-1"]
    for node in door.nodes.values() if "nobody" in how else ():
        be_ready(node, ready=False)
    with contextlib.ExitStack() as stack:
        if how.startswith("killed"):
            _signal_nginx(host, "KILL")
        else:
            _signal_nginx(host, "STOP")
            stack.callback(_signal_nginx, host, "CONT")
        took_s = eventually(lambda: door.holders() == {"lvs-2"}, MOVES_S)
    print(f"proxy {how}: withdrawn after {took_s:.2f} s")
    assert door.said("lvs-1") == WITHDRAWN
    assert door.said("lvs-2") == ANNOUNCED


def _signal_nginx(host: Host, signal: str) -> None:
    """Its master and its workers get that signal."""
    nginx_pids = [pid for pid in host.pids() if b"nginx" in Path(f"/proc/{pid}/comm").read_bytes()]
    host.check(["kill", "-s", signal, *map(str, nginx_pids)])


def test_one_that_reaches_no_node_withdraws_while_another_does_and_comes_back(door: Door) -> None:
    host = door.balancers["lvs-1"]
    for address in NODES.values():
        host.check(["ip", "route", "add", "blackhole", f"{address}/32"])
    took_s = eventually(lambda: door.holders() == {"lvs-2"}, MOVES_S)
    print(f"nodes out of reach: withdrawn after {took_s:.2f} s")
    assert door.said("lvs-2") == ANNOUNCED
    for address in NODES.values():
        host.check(["ip", "route", "delete", "blackhole", f"{address}/32"])
    eventually(lambda: door.holders() == set(BALANCERS))


def test_the_last_one_that_reaches_a_node_keeps_it_and_then_both_have_it_again(door: Door) -> None:
    """The other one is cut off from nodes first, and then nobody is ready at all: no difference is left."""
    cut = door.balancers["lvs-1"]
    for address in NODES.values():
        cut.check(["ip", "route", "add", "blackhole", f"{address}/32"])
    eventually(lambda: door.holders() == {"lvs-2"}, MOVES_S)
    for host in door.nodes.values():
        be_ready(host, ready=False)
    eventually(lambda: door.holders() == set(BALANCERS), 10)
    assert door.said("lvs-2") == ANNOUNCED


def test_an_address_that_cannot_be_taken_away_is_not_called_withdrawn(door: Door, tmp_path: Path) -> None:
    """The program `ip` fails: the script says so, and tries again."""
    script = tmp_path / "lvs-1" / "health.sh"
    door.health["lvs-1"].kill()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "ip").write_text("#!/bin/sh\nexit 1\n")
    (broken / "ip").chmod(0o755)
    host = door.balancers["lvs-1"]
    environment = processes.plain_environment()
    environment |= {"PATH": f"{broken}:{environment['PATH']}"}
    again = host.start("again", [str(script)], environment)
    _signal_nginx(host, "KILL")
    eventually(lambda: f"ill, but {VIRTUAL} cannot be taken from lo; trying again" in again.stdout.read_text())
    assert "is withdrawn" not in again.stdout.read_text()
    (broken / "ip").unlink()
    eventually(lambda: f"ill, {VIRTUAL} is withdrawn" in again.stdout.read_text())
    assert door.holders() == {"lvs-2"}
