"""Who sends or reads slowly takes nothing from others and is sent away; so is who comes when there is no room."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import resource
import socket
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.faults.test_smuggling import call, is_own, purchase
from tests.front_doors import front_door
from tests.servers import Server, running
from tests.wire import ConnectionEnded, Wire
from ticketrush import processes
from ticketrush.edge.nginx import SLOW_NAME

CLIENTS: Final = 1_000
CLOSED_S: Final = 15.0
"""The longest that a slow client may stay."""

BEFORE_S: Final = 3.0
WINDOW_S: Final = 1.0
PACE_S: Final = 0.004
"""Others buy one after the other, with a pause: what is measured is waiting, not how much a machine can do."""

FLOOR_MS: Final = 25.0
"""A 99th percentile below this is good whatever it was before: it is a few turns of two shared processors."""

GROWTH_MB: Final = 200.0
"""Memory that a node may take for all slow clients: who asks and does not read costs one read of its requests (256 kB)
and one write of answers (64 kB and the last one)."""

ROOT: Final = Path(__file__).parents[2]

SLOW_CLIENT_S: Final = 9
"""An odd bound: the script, which looks every 2 s, ends nobody before 10 s, so that Nginx is the first by a second with
those that it ends itself, and what the script says that it has ended are bodies alone."""

IS_ROOT: Final = os.geteuid() == 0
"""Who is not root ends no connections of others: clients whose body trickles stay then, and the tests have none."""


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """Servers that we start inherit room for all connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard >= 2 * CLIENTS + 500, f"ulimit -Hn is {hard}"
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 10 * CLIENTS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@dataclass
class Others:
    """A buyer who buys again and again, and how long each answer took; a window is a second of it."""

    port: int
    windows: list[list[float]] = field(default_factory=list)

    def buy_while(self, goes_on: Callable[[], bool]) -> None:
        with Wire(self.port) as wire:
            number = 0
            while goes_on():
                self.windows.append([])
                until_s = time.monotonic() + WINDOW_S
                while time.monotonic() < until_s:
                    number += 1
                    began_s = time.monotonic()
                    wire.send(purchase(number))
                    assert is_own(wire.answer(), number)
                    self.windows[-1].append((time.monotonic() - began_s) * 1_000)
                    time.sleep(PACE_S)

    @property
    def p99_ms(self) -> float:
        """The median of the windows' 99th percentiles: a moment in which the machine was busy elsewhere counts once."""
        return statistics.median(sorted(each)[math.ceil(len(each) * 0.99) - 1] for each in self.windows)

    @property
    def count(self) -> int:
        return sum(map(len, self.windows))


@dataclass
class Ordeal:
    """What was measured."""

    before: Others
    meanwhile: Others
    lived: dict[str, list[float]]
    rss_mb_before: float
    rss_mb_max: float

    def __str__(self) -> str:
        longest = {kind: max(each, default=0.0) for kind, each in self.lived.items()}
        ended = {kind: len(each) for kind, each in self.lived.items()}
        return (
            f"p99 {self.before.p99_ms:.2f} ms ({self.before.count}) before, {self.meanwhile.p99_ms:.2f} ms "
            f"({self.meanwhile.count}) meanwhile; ended {ended}, the last after {longest} s; "
            f"memory {self.rss_mb_before:.0f} MB, at most {self.rss_mb_max:.0f} MB"
        )


def suffer(port: int, node_pid: int, folder: Path, kinds: list[str], last_s: float) -> Ordeal:
    """Measure others without and beside slow clients, who are `kinds`, in equal shares."""
    before, meanwhile = Others(port), Others(port)
    until_s = time.monotonic() + BEFORE_S
    before.buy_while(lambda: time.monotonic() < until_s)
    rss_mb = [rss_mb_of(node_pid)]

    def goes_on() -> bool:
        rss_mb.append(rss_mb_of(node_pid))
        return not slow.ended

    command = [sys.executable, "-m", "tests.faults.slow_clients", str(port), str(CLIENTS), str(last_s), *kinds]
    with processes.child("slow", command, folder, {**os.environ, "PYTHONPATH": str(ROOT)}) as slow:
        first = slow.first_line(60.0)
        assert first is not None, slow.words()
        assert json.loads(first) == {"connected": CLIENTS}
        meanwhile.buy_while(goes_on)
        assert slow.exit_code == 0, slow.words()
    lived = json.loads(slow.stdout.read_bytes().splitlines()[1])
    ordeal = Ordeal(before, meanwhile, lived, rss_mb[0], max(rss_mb))
    print(ordeal)
    return ordeal


def rss_mb_of(pid: int) -> float:
    line = next(each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmRSS:"))
    return int(line.split()[1]) / 1_024


def open_sales(port: int) -> None:
    for sale, capacity in (("next", 100_000_000), ("slow", 1)):
        items = {"items": [{"id": "second", "capacity": capacity}]}
        assert call(port, "PUT", f"/v1/sales/{sale}", items).status == 201
        assert call(port, "POST", f"/v1/sales/{sale}/open").status == 200


def assert_others_are_well(ordeal: Ordeal) -> None:
    assert len(ordeal.meanwhile.windows) >= 8
    assert ordeal.meanwhile.p99_ms <= max(2 * ordeal.before.p99_ms, FLOOR_MS), ordeal
    assert ordeal.rss_mb_max - ordeal.rss_mb_before <= GROWTH_MB, ordeal


def assert_sent_away(ordeal: Ordeal, kinds: list[str], of: int) -> None:
    """All slow clients of these kinds, of `of` kinds, were sent away in time."""
    for kind in kinds:
        lived = ordeal.lived[kind]
        assert len(lived) >= CLIENTS // of, f"{kind}: {ordeal}"
        assert max(lived) <= CLOSED_S, f"{kind}: {ordeal}"


def test_slow_clients_of_a_node(tmp_path: Path) -> None:
    kinds = ["headers", "body", "reads"]
    with running(env={"TICKETRUSH_OPEN": "true"}, secrets=()) as server:
        open_sales(server.port)
        ordeal = suffer(server.port, server.pid, tmp_path, kinds, CLOSED_S + 5)

        assert_sent_away(ordeal, kinds, len(kinds))
        assert_others_are_well(ordeal)
        assert server.audit()["ok"] is True
        assert "Traceback" not in server.errors()


def test_slow_clients_of_nginx(tmp_path: Path) -> None:
    """Who is only idle keeps the connection."""
    kinds = ["headers", "stalled", "reads", "sips", *(["body"] if IS_ROOT else [])]
    with (
        front_door(tmp_path, (1,), flags=("--open",), keep_host=False, slow_client_s=SLOW_CLIENT_S) as door,
        processes.child("sent-away", ["sh", str(door.nginx.folder / SLOW_NAME)], tmp_path) as script,
        Wire(door.port) as idle,
    ):
        node = door.nodes[0]
        port = int(node.url.rpartition(":")[2])
        open_sales(port)
        idle.send(purchase(1))
        assert is_own(idle.answer(), 1)
        ordeal = suffer(door.port, node.pid, tmp_path, kinds, CLOSED_S + 5)

        assert_sent_away(ordeal, kinds, len(kinds))
        assert_others_are_well(ordeal)
        assert node.is_running
        idle.send(purchase(2))
        assert is_own(idle.answer(), 2)
        said = script.stdout.read_text()
        ended = sum(map(int, re.findall(r"ended (\d+) clients", said)))
        assert ended == (CLIENTS // len(kinds) if IS_ROOT else 0), "only those of bodies"


def test_only_who_does_not_come_to_an_end_is_sent_away(tmp_path: Path) -> None:
    """A body in pieces that is whole in time, and requests with pauses in between, are answered."""
    with (
        front_door(tmp_path, (1,), flags=("--open",), keep_host=False, slow_client_s=4) as door,
        processes.child("sent-away", ["sh", str(door.nginx.folder / SLOW_NAME)], tmp_path),
        Wire(door.port) as slow,
        Wire(door.port) as pieces,
        Wire(door.port) as pauses,
    ):
        open_sales(int(door.nodes[0].url.rpartition(":")[2]))
        slow.send(purchase(1)[:-20])
        for number in range(5):
            whole = purchase(number)
            pieces.send(whole[:-4])
            pauses.send(whole)
            assert is_own(pauses.answer(), number)
            for piece in (whole[-4:-2], whole[-2:]):
                time.sleep(1.0)
                pieces.send(piece)
                with contextlib.suppress(OSError):
                    slow.send(b" ")
            assert is_own(pieces.answer(), number)
        if IS_ROOT:
            began_s = time.monotonic()
            with pytest.raises((ConnectionEnded, ConnectionError)):
                slow.answer()
            assert time.monotonic() - began_s < 2.0, "it was gone already, and not after a gap of 4 s"


FILES: Final = 100
"""Files that a node may have open, when they are few."""


def test_a_node_without_room_for_another_connection_serves_those_that_it_has(tmp_path: Path) -> None:
    """Who comes when there is no room is sent away at once; with room again, everybody is served."""
    with contextlib.ExitStack() as crowd:
        server = crowd.enter_context(running(env={"TICKETRUSH_OPEN": "true"}, secrets=()))
        resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (FILES, FILES))
        open_sales(server.port)
        wire = crowd.enter_context(server.connect())
        wire.send(purchase(1))
        assert is_own(wire.answer(), 1)
        connections = [crowd.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(300)]
        cpu_s, began_s = processes.cpu_s(server.pid), time.monotonic()
        for number in range(200):
            wire.send(purchase(number))
            assert is_own(wire.answer(), number)
            time.sleep(0.01)
        busy = (processes.cpu_s(server.pid) - cpu_s) / (time.monotonic() - began_s)
        served = sum(is_served(each) for each in connections)
        print(f"{served} of {len(connections)} got in; busy {busy:.0%} of a processor meanwhile")
        assert FILES / 2 < served < FILES, "as many as there is room for"
        assert busy < 0.5, "it does not turn round and round"
        for each in connections:
            each.close()

        assert_gets_in(server)
        assert server.audit()["ok"] is True


def is_served(connection: socket.socket) -> bool:
    """Whether a purchase on it is answered; False if the server has ended it."""
    connection.settimeout(5.0)
    try:
        connection.sendall(purchase(1))
        return connection.recv(1 << 16).startswith(b"HTTP/1.1 201 ")
    except ConnectionError:
        return False


def assert_gets_in(server: Server) -> None:
    until_s = time.monotonic() + 5.0
    while True:
        with contextlib.suppress(ConnectionEnded, OSError), server.connect() as wire:
            wire.send(purchase(2))
            assert is_own(wire.answer(), 2)
            return
        assert time.monotonic() < until_s, "there is room again, and nobody gets in"
