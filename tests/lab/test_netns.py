"""Hosts as network namespaces: they reach one another, die like machines, and leave nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.front import hear_ctrl_c
from ticketrush import processes
from ticketrush.lab.errors import LabError
from ticketrush.lab.netns import NAMES, Network, network, remove_left_behind

HOLDER = Path(__file__).with_name("holder.py")
LISTEN = "import socket; s = socket.create_server(('', 7000)); print('here', flush=True); s.accept()"
REACH = "import socket, sys; socket.create_connection((sys.argv[1], 7000), 1).close()"


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Network]:
    with network(tmp_path) as made:
        yield made


def eventually(is_so: Callable[[], bool], within_s: float = 10.0) -> None:
    until = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < until, f"not so within {within_s:g} s"
        time.sleep(0.01)


def left_of(tag: str) -> list[str]:
    return [name for name in os.listdir(NAMES) if name.startswith(tag)]


def reaches(net: Network, name: str, address: str) -> bool:
    return net.hosts[name].run([sys.executable, "-c", REACH, address]).returncode == 0


def serve(net: Network, name: str) -> None:
    child = net.hosts[name].start("listen", [sys.executable, "-c", LISTEN])
    assert child.first_line(10) == b"here"


def behind_a_router(net: Network) -> None:
    """ann -- router -- bob."""
    left, right = net.lan("left", "10.77.1.0/24"), net.lan("right", "10.77.2.0/24")
    router = net.host("router")
    router.join(left, "10.77.1.1", "left")
    router.join(right, "10.77.2.1", "right")
    router.set("net.ipv4.ip_forward", 1)
    for name, lan, number in (("ann", left, 1), ("bob", right, 2)):
        net.host(name).join(lan, f"10.77.{number}.10")
        net.hosts[name].route("default", f"10.77.{number}.1")


def test_hosts_of_two_networks_reach_one_another_through_a_router(net: Network) -> None:
    behind_a_router(net)
    serve(net, "bob")
    assert reaches(net, "ann", "10.77.2.10")


def test_a_host_that_is_killed_is_silent_and_can_come_back(net: Network) -> None:
    behind_a_router(net)
    serve(net, "bob")
    bob = net.hosts["bob"]
    assert bob.pids()
    bob.kill()
    assert bob.pids() == []
    assert bob.children[0].exit_code == -signal.SIGKILL
    assert not reaches(net, "ann", "10.77.2.10")

    bob.plug_in()
    serve(net, "bob")
    assert reaches(net, "ann", "10.77.2.10"), "its route is there again"


def test_a_command_that_fails_says_where_and_why(net: Network) -> None:
    host = net.host("ann")
    with pytest.raises(LabError, match=r"on ann, `ls /no-such` failed: .*No such file"):
        host.check(["ls", "/no-such"])
    with pytest.raises(LabError, match=r"took longer than 0\.2 s"):
        host.run(["sleep", "10"], within_s=0.2)
    with pytest.raises(LabError, match=r"cannot have 10\.1\.0\.1"):
        host.join(net.lan("lan", "10.77.1.0/24"), "10.1.0.1")


def test_an_exception_leaves_nothing(tmp_path: Path) -> None:
    class Oops(Exception):
        pass

    def fail() -> None:
        with network(tmp_path) as net:
            found.append(net)
            child = net.host("ann").start("stray", ["setsid", "--fork", "sleep", "1000"])
            child.process.wait()
            pids.extend(net.hosts["ann"].pids())
            raise Oops

    found: list[Network] = []
    pids: list[int] = []
    with pytest.raises(Oops):
        fail()
    assert pids
    assert processes.running_of(pids) == []
    assert left_of(found[0].tag) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_lab_that_is_told_to_end_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with Holding(tmp_path) as (process, tag):
        pids = pids_of(tag)
        assert len(pids) == 3
        process.send_signal(number)
        assert process.wait(20) == 128 + number
        assert left_of(tag) == []
        assert processes.running_of(pids) == []


def test_what_a_killed_lab_has_left_is_removed_by_the_next_and_nothing_else(tmp_path: Path, net: Network) -> None:
    net.host("mine").start("sleep", ["sleep", "1000"])
    eventually(lambda: len(net.hosts["mine"].pids()) == 1)
    with Holding(tmp_path) as (process, tag):
        pids = pids_of(tag)
        process.kill()
        process.wait()
        assert len(left_of(tag)) == 3
        assert processes.running_of(pids), "strays do not hear that it is gone"

        removed = remove_left_behind()
        assert set(removed) >= {f"{tag}-host-1", f"{tag}-host-2", f"{tag}-lan-lan"}
        assert left_of(tag) == []
        assert processes.running_of(pids) == []
        assert len(net.hosts["mine"].pids()) == 1, "one whose lab goes on was removed"


ENTERS = """
import os, sys
from pathlib import Path
from ticketrush.lab.netns import inside, network
with network(Path(sys.argv[1])) as net:
    host = net.host("ann")
    child = host.start("sleep", ["sleep", "1000"])
    while not host.pids():
        pass
    with inside(host):
        assert os.getpid() not in host.pids()
        host.kill()
    print(child.exit_code, flush=True)
    never_left = inside(host)
    never_left.__enter__()
print("alive")
"""


def test_a_lab_that_stands_in_a_host_outlives_it(tmp_path: Path) -> None:
    """When that host is killed, and when all of them are and it has not come home."""
    done = subprocess.run([sys.executable, "-c", ENTERS, str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{-signal.SIGKILL}\nalive\n"), done.stderr


VISIT = """
import ctypes, os, sys, time
print("here", flush=True)
place = os.open(sys.stdin.readline().strip(), os.O_RDONLY)
print(ctypes.CDLL(None).setns(place, 0), flush=True)
time.sleep(1000)
"""


def test_who_was_there_before_the_lab_is_left_alone_whatever_host_it_enters(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", VISIT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as visitor:
        assert visitor.stdin is not None
        assert visitor.stdout is not None
        try:
            assert visitor.stdout.readline() == "here\n"
            with Holding(tmp_path) as (process, tag):
                visitor.stdin.write(f"{NAMES}/{tag}-host-1\n")
                visitor.stdin.flush()
                assert visitor.stdout.readline() == "0\n"
                assert visitor.pid in pids_of(tag)
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 128 + signal.SIGTERM
                assert left_of(tag) == []
            assert visitor.poll() is None
        finally:
            visitor.kill()


MISNAMED = """
import os, subprocess, sys
from pathlib import Path
from ticketrush.lab.netns import NAMES, network
with network(Path(sys.argv[1])) as net:
    neighbour = subprocess.Popen(["sleep", "1000"])
    subprocess.run(["ip", "netns", "attach", f"{net.tag}-own", "1"], check=True)
print(neighbour.poll(), os.listdir(NAMES))
"""


def test_a_host_that_is_the_machine_s_own_network_is_forgotten_and_nobody_in_it_is_killed(tmp_path: Path) -> None:
    """The machine is one that was made for it, so that a failure kills nobody else."""
    machine = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c"]
    start = 'mkdir -p /run/netns && mount -t tmpfs none /run/netns && "$@"'
    done = subprocess.run(
        [*machine, start, "sh", sys.executable, "-c", MISNAMED, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "None []\n"), done.stderr


class Holding:
    """A lab in a process of its own, and its tag."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HOLDER), str(folder)],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=hear_ctrl_c,  # noqa: PLW1509 - no thread of ours holds a lock here
        )

    def __enter__(self) -> tuple[subprocess.Popen[str], str]:
        assert self.process.stdout is not None
        tag = self.process.stdout.readline().strip()
        assert tag, "the lab did not start"
        return self.process, tag

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        remove_left_behind()


def pids_of(tag: str) -> list[int]:
    found = []
    for name in left_of(tag):
        done = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=True)
        found += [int(pid) for pid in done.stdout.split()]
    return found
