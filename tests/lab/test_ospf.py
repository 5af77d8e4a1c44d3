"""FRR and the health script in a real kernel: every balancer that is well is used, and one that is not is left."""

from __future__ import annotations

import contextlib
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.lab.front import Asking, ask, eventually, serve
from ticketrush import processes
from ticketrush.edge import cluster_file, ospf, render
from ticketrush.lab.netns import Host, network
from ticketrush.lab.programs import start_router

VIRTUAL = "192.0.2.10"
BALANCERS = {"lvs-1": "10.90.1.11", "lvs-2": "10.90.1.12"}
MOVED_S = 5.0
"""Within which connections go to the other balancer only."""

CLUSTER = "\n".join(
    [
        f'[front]\nvirtual_address = "{VIRTUAL}"',
        '[[nodes]]\nname = "n"\naddress = "10.90.1.99"',
        '[[routers]]\nname = "router"\naddress = "10.90.1.1"\ninterface = "inside"',
        '[ospf]\nnetworks = ["10.90.1.0/24"]\nkey = "a!#|?b"',
        *(f'[[proxies]]\nname = "{name}"\naddress = "{address}"' for name, address in BALANCERS.items()),
        *(f'[[balancers]]\nname = "{name}"\naddress = "{address}"' for name, address in BALANCERS.items()),
    ]
)


@dataclass(slots=True)
class Door:
    """A client, a router, and two balancers with a web server each, which says its name."""

    client: Host
    router: Host
    balancers: dict[str, Host] = field(default_factory=dict)
    web: dict[str, processes.Child] = field(default_factory=dict)
    health: dict[str, processes.Child] = field(default_factory=dict)

    def ways(self) -> set[str]:
        """The balancers that the router leads to."""
        found = re.findall(r"via (\S+)", self.router.check(["ip", "route", "show", VIRTUAL]))
        return {name for name, address in BALANCERS.items() if address in found}

    def start_health(self, name: str) -> None:
        host = self.balancers[name]
        self.health[name] = host.start("health", [str(host.folder / name / "health.sh")])

    def said(self, name: str) -> list[str]:
        """What its health script has said, without times."""
        return re.sub(r"(?m)^\S+ ", "", self.health[name].stdout.read_text()).splitlines()

    def mend(self) -> None:
        """Whatever a test did to it, both balancers are well and led to again."""
        load_settings(self.router)
        for name, host in self.balancers.items():
            if not host.pids():  # it was lost: it is switched on again
                host.run(["ip", "address", "delete", f"{VIRTUAL}/32", "dev", "lo"])
                host.plug_in()
                restart_frr(host)
            if self.web[name].ended:
                self.web[name] = serve(host, name)
            if self.health[name].ended:
                self.start_health(name)
        eventually(lambda: self.ways() == set(BALANCERS), 30)

    def has_it(self, name: str) -> bool:
        return VIRTUAL in self.balancers[name].check(["ip", "-4", "address", "show", "dev", "lo"])


def load_settings(host: Host) -> None:
    """The rendered ones, and none of the test's own: what is missing there is not there."""
    host.set("net.ipv4.fib_multipath_hash_policy", 0)
    host.check(["sysctl", "--quiet", "--load", str(host.folder / host.name / "sysctl.conf")])


def restart_frr(host: Host) -> None:
    with contextlib.suppress(FileNotFoundError):
        for name in ("zebra.vty", "ospfd.vty"):
            (host.folder / host.name / name).unlink()
    start_router(host)


@pytest.fixture(scope="module")
def shared_door() -> Iterator[Door]:
    with tempfile.TemporaryDirectory() as temporary, network(folder := Path(temporary)) as net:
        folder.chmod(0o711)  # FRR is a user of its own, and pytest's folders are for us alone
        render.write(folder, ospf.files(cluster_file.parse(CLUSTER)))
        outside, between = net.lan("outside", "10.90.0.0/24"), net.lan("between", "10.90.1.0/24")
        made = Door(net.host("client"), net.host("router"))
        made.client.join(outside, "10.90.0.50")
        made.client.route("default", "10.90.0.1")
        made.router.join(outside, "10.90.0.1", "outside")
        made.router.join(between, "10.90.1.1", "inside")
        start_router(made.router)
        for name, address in BALANCERS.items():
            host = made.balancers[name] = net.host(name)
            host.join(between, address)
            host.route("default", "10.90.1.1")
            start_router(host)
            made.web[name] = serve(host, name)
            made.start_health(name)
        yield made


@pytest.fixture
def door(shared_door: Door) -> Door:
    """One for all tests, mended before each: routers take seconds to come to know one another."""
    shared_door.mend()
    return shared_door


def test_both_are_used_for_the_connections_of_one_client(door: Door) -> None:
    answers = ask(door.client, VIRTUAL, 200)
    assert set(answers) == set(BALANCERS)
    assert min(answers.values()) >= 50

    door.router.set("net.ipv4.fib_multipath_hash_policy", 0)
    assert len(ask(door.client, VIRTUAL, 200)) == 1, "without the rendered setting, a client has one balancer"


def test_one_whose_proxy_is_gone_is_withdrawn_and_comes_back(door: Door) -> None:
    asking = Asking(door.client, VIRTUAL)
    eventually(lambda: asking.was_answered_by("lvs-1"))
    killed_at = time.monotonic()
    before = len(door.said("lvs-1"))
    door.web["lvs-1"].kill()
    eventually(lambda: door.ways() == {"lvs-2"}, MOVED_S)
    last_s = max(began for began, name in asking.until_well() if name.startswith("!")) - killed_at
    assert last_s <= MOVED_S
    print(f"proxy killed: the last connection was lost after {last_s:.2f} s")

    door.web["lvs-1"] = serve(door.balancers["lvs-1"], "lvs-1")
    eventually(lambda: door.ways() == set(BALANCERS))
    assert door.said("lvs-1")[before:] == [
        f"lvs-1: ill, {VIRTUAL} is withdrawn",
        f"lvs-1: well, {VIRTUAL} is announced",
    ]


def test_one_that_is_lost_is_left(door: Door) -> None:
    asking = Asking(door.client, VIRTUAL)
    eventually(lambda: asking.was_answered_by("lvs-2"))
    killed_at = time.monotonic()
    door.balancers["lvs-2"].kill()
    eventually(lambda: door.ways() == {"lvs-1"}, MOVED_S)
    last_s = max(began for began, name in asking.until_well() if name.startswith("!")) - killed_at
    assert last_s <= MOVED_S
    print(f"balancer lost: the last connection was lost after {last_s:.2f} s")


def test_a_planned_stop_loses_nothing_but_what_is_under_way_when_the_router_changes(door: Door) -> None:
    """Connections are made one after the other, so one at most is under way. Each answered late would show too."""
    asking = Asking(door.client, VIRTUAL, pause_s=0)
    eventually(lambda: asking.was_answered_by("lvs-1"))
    asked_at = time.monotonic()
    door.health["lvs-1"].ask_to_stop()
    eventually(lambda: door.ways() == {"lvs-2"}, MOVED_S)
    left_s = time.monotonic() - asked_at
    assert not door.health["lvs-1"].ended, "it answers until routers have left it"
    assert door.health["lvs-1"].process.wait(5) == 0
    assert not door.has_it("lvs-1")
    assert VIRTUAL not in door.balancers["lvs-1"].check(["ip", "route", "show", "table", "local"])
    time.sleep(0.5)  # longer than a client waits for what was lost at the end
    answers = asking.answers()
    lost = [f"{began - asked_at:.3f} {name}" for began, name in answers if name.startswith("!")]
    print(f"planned stop: left after {left_s:.2f} s, of {len(answers)} connections lost: {lost}")
    assert len(lost) <= 1


def test_a_restart_of_frr_or_of_the_script_changes_nothing(door: Door) -> None:
    host = door.balancers["lvs-1"]
    for child in host.children:
        if child.name.endswith(("zebra", "ospfd")):
            child.kill()
    eventually(lambda: door.ways() == {"lvs-2"}, MOVED_S)
    assert door.has_it("lvs-1")
    restart_frr(host)
    eventually(lambda: door.ways() == set(BALANCERS), 20)

    door.health["lvs-1"].process.send_signal(signal.SIGKILL)
    door.health["lvs-1"].process.wait()
    assert door.has_it("lvs-1")
    door.start_health("lvs-1")
    eventually(lambda: "started, 192.0.2.10 is announced" in door.health["lvs-1"].stdout.read_text())
    door.web["lvs-1"].kill()
    eventually(lambda: not door.has_it("lvs-1"), MOVED_S)
