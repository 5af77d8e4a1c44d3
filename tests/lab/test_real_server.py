"""Direct routing: who is handed connections to the virtual address has it, and does not tell the network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.front import ask, serve
from ticketrush.edge import cluster_file, lvs, render
from ticketrush.lab.netns import Host, network

VIRTUAL = "10.91.1.100"

CLUSTER = f"""
[front]
virtual_address = "{VIRTUAL}"
[[nodes]]
name = "n"
address = "10.91.1.99"
[[proxies]]
name = "nginx-1"
address = "10.91.1.21"
[[balancers]]
name = "lvs"
address = "10.91.1.11"
"""


@dataclass(frozen=True, slots=True)
class Door:
    client: Host
    proxy: Host
    script: str

    def is_answered_for(self) -> bool:
        """Whether somebody says on the network that the virtual address is his."""
        return set(ask(self.client, VIRTUAL, 1)) == {"nginx-1"}

    def hand_on(self) -> None:
        """As LVS does with DR: packets to the virtual address go to the proxy's card."""
        card = re.search(r"link/ether (\S+)", self.proxy.check(["ip", "link", "show", "dev", "eth0"]))
        assert card is not None
        self.client.check(["ip", "neigh", "replace", VIRTUAL, "lladdr", card[1], "dev", "eth0"])


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with network(tmp_path) as net:
        render.write(tmp_path / "edge", lvs.files(cluster_file.parse(CLUSTER)))
        lan = net.lan("lan", "10.91.1.0/24")
        client, proxy = net.host("client"), net.host("proxy")
        client.join(lan, "10.91.1.50")
        proxy.join(lan, "10.91.1.21")
        serve(proxy, "nginx-1")
        yield Door(client, proxy, str(tmp_path / "edge" / "nginx-1" / "real-server.sh"))


def test_it_takes_what_is_handed_on_and_never_says_that_it_would(door: Door) -> None:
    for _ in range(2):  # as often as one likes
        door.proxy.check([door.script, "start"])
    assert not door.is_answered_for()
    door.hand_on()
    assert ask(door.client, VIRTUAL, 20) == {"nginx-1": 20}

    for _ in range(2):
        door.proxy.check([door.script, "stop"])
    assert set(ask(door.client, VIRTUAL, 1)) == {"!TimeoutError"}


def test_the_canary_the_address_alone_would_be_told(door: Door) -> None:
    door.proxy.check(["ip", "address", "add", f"{VIRTUAL}/32", "dev", "lo"])
    assert door.is_answered_for()


def test_it_says_how_it_is_used(door: Door) -> None:
    done = door.proxy.run([door.script, "restart"])
    assert done.returncode == 2
    assert done.stderr == f"usage: {door.script} start|stop\n"
