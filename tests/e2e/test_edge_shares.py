"""Nginx before real nodes: who gets which request, under each policy, and the command that shows it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import pytest
from typer.testing import CliRunner

from tests.e2e.test_rush import eventually, is_alive
from tests.front_doors import Door, address_of, call, entry_of, front_door
from ticketrush import processes
from ticketrush.cli import app
from ticketrush.edge.demo import DemoPlan
from ticketrush.edge.demo import front_door as demonstration


@pytest.mark.parametrize(
    ("policy", "counts"),
    [("weighted", [100, 200, 300, 400]), ("round-robin", [250] * 4)],
)
def test_a_thousand_requests_by_ab_reach_the_nodes_in_exactly_their_shares(
    tmp_path: Path, policy: str, counts: list[int]
) -> None:
    (tmp_path / "nginx").mkdir()
    plan = DemoPlan(folder=tmp_path, front=tmp_path / "nginx", policy=policy)  # type: ignore[arg-type]
    with demonstration(plan) as door:
        before = door.counts()
        said = subprocess.run(
            ["ab", "-q", "-n", "1000", "-c", "100", "-H", "Host: load_balance.com", f"{door.nginx.url}/buy/ticket"],
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout
        assert [after - first for after, first in zip(door.counts(), before, strict=True)] == counts
        workers = len(processes.children_of(door.nginx.pid))
    assert re.search(r"Complete requests:\s+1000\n", said)
    assert re.search(r"Failed requests:\s+0\n", said)
    assert "Non-2xx responses" not in said
    assert workers == os.cpu_count(), "the shares are exact although several workers make them"


def test_one_address_has_one_node_under_ip_hash(tmp_path: Path) -> None:
    (tmp_path / "nginx").mkdir()
    plan = DemoPlan(folder=tmp_path, front=tmp_path / "nginx", policy="ip-hash")
    with demonstration(plan) as door:
        before = door.counts()
        command = ["ab", "-q", "-n", "200", "-c", "20", f"{door.nginx.url}/buy/ticket"]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        asked = [after - first for after, first in zip(door.counts(), before, strict=True)]
    assert sorted(asked) == [0, 0, 0, 200]


BUYERS: Final = [f"buyer-{number}" for number in range(120)]


def nodes_of_buyers(door: Door, tag: str) -> dict[str, str]:
    """Which node answers each buyer; asked twice each, it must be the same one."""
    for buyer in BUYERS * 2:
        assert call(door, "GET", f"/v1/sales/{tag}-{buyer}", X_Buyer=buyer).status == 404
    prefix = f"/v1/sales/{tag}-"
    door.lines(f"{prefix}{BUYERS[-1]}", 2)
    eventually(lambda: sum(line["path"].startswith(prefix) for line in door.lines()) == 2 * len(BUYERS))
    found: dict[str, set[str]] = {}
    for line in door.lines():
        if line["path"].startswith(prefix):
            found.setdefault(line["path"].removeprefix(prefix), set()).add(re.split(", | : ", line["node"])[-1])
    assert all(len(nodes) == 1 for nodes in found.values()), found
    return {buyer: nodes.pop() for buyer, nodes in found.items()}


def test_a_buyer_has_one_node_and_a_node_that_leaves_moves_only_its_own_buyers(tmp_path: Path) -> None:
    with front_door(tmp_path, (1, 1, 1, 1), policy="buyer-hash", fail_timeout_s=60) as door:
        first = nodes_of_buyers(door, "first")
        assert len(Counter(first.values())) == 4, "everybody has some"

        removed, *stay = door.nodes
        door.nginx.reload(door.nginx.cluster.model_copy(update={"nodes": tuple(entry_of(node) for node in stay)}))
        without = nodes_of_buyers(door, "removed")
        assert {buyer for buyer in BUYERS if without[buyer] != first[buyer]} == {
            buyer for buyer in BUYERS if first[buyer] == address_of(removed)
        }

        stay[0].kill()
        dead = nodes_of_buyers(door, "dead")
        assert {buyer for buyer in BUYERS if dead[buyer] != without[buyer]} == {
            buyer for buyer in BUYERS if without[buyer] == address_of(stay[0])
        }


def test_a_buyer_is_who_the_token_says(tmp_path: Path) -> None:
    with front_door(tmp_path, (1, 1, 1, 1), policy="buyer-hash") as door:
        for number in range(24):
            call(door, "GET", "/v1/sales/nothing", Authorization="Bearer x", X_Buyer=f"buyer-{number}")
        lines = door.lines("/v1/sales/nothing", 24)
        assert len({line["node"] for line in lines}) == 1


def test_the_command_prints_the_shares_and_leaves_nothing(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    told = json.loads(demonstrate(tmp_path, "--json", "--requests", "300", "--concurrency", "30", "--keep", str(kept)))
    assert told == {"counts": [100, 200], "failed": 0}
    assert "upstream ticketrush_nodes" in (kept / "nginx.conf").read_text()
    assert len((kept / "access.log").read_text().splitlines()) == 300

    said = demonstrate(tmp_path, "--requests", "30", "--keep", str(kept))
    assert said.startswith("30 × GET /buy/ticket, 30 at once, policy weighted: 0 failed\n")
    assert len((kept / "access.log").read_text().splitlines()) == 30, "of this time alone"
    assert "one address" not in said


@pytest.mark.parametrize(
    ("policy", "columns", "explained"),
    [("round-robin", ["node", "requests", "share"], 0), ("ip-hash", ["node", "weight", "requests", "share"], 1)],
)
def test_the_command_shows_what_the_policy_heeds(
    tmp_path: Path, policy: str, columns: list[str], explained: int
) -> None:
    _, head, *lines = demonstrate(tmp_path, "--requests", "20", "--policy", policy).splitlines()
    assert head.split() == columns
    assert lines.count("all requests came from one address, so to one node") == explained


def test_the_command_refuses_the_folder_of_a_front_door(tmp_path: Path) -> None:
    """Before anything is started."""
    (tmp_path / "nginx.conf").write_text("http {}\n")
    (tmp_path / "access.log").write_text("theirs\n")
    result = CliRunner().invoke(app, ["edge", "demo", "--keep", str(tmp_path)])
    assert result.exit_code == 2
    assert "no demonstration has made it" in " ".join(result.output.split())
    assert (tmp_path / "nginx.conf").read_text() == "http {}\n"
    assert (tmp_path / "access.log").read_text() == "theirs\n"


def demonstrate(folder: Path, *flags: str) -> str:
    """What `edge demo` with two nodes prints; nothing is left of it."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "ticketrush", "edge", "demo", "--weights", "1,2", *flags],
        env=processes.plain_environment() | {"TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(temporary.iterdir()) == []
    return done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_command_takes_everything_with_it_when_it_ends(tmp_path: Path, number: signal.Signals) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    command = [sys.executable, "-m", "ticketrush", "edge", "demo", "--json", "--stay", "--requests", "10"]
    with (tmp_path / "out").open("wb") as out:
        process = subprocess.Popen(
            [*command, "--weights", "1,1"],
            env=processes.plain_environment() | {"TMPDIR": str(temporary)},
            stdout=out,
            stderr=subprocess.DEVNULL,
        )
    try:
        eventually(lambda: (tmp_path / "out").read_bytes().endswith(b"}\n") or process.poll() is not None, within_s=60)
        pids = processes.children_of(process.pid)
        pids += [worker for pid in pids for worker in processes.children_of(pid)]
        assert len(pids) >= 5, "a Valkey, two nodes, Nginx and its workers"
        process.send_signal(number)
        assert process.wait(60) == (-number if number is signal.SIGKILL else 0)
    finally:
        process.kill()
        process.wait()
    eventually(lambda: not any(map(is_alive, pids)))
    if number is not signal.SIGKILL:
        assert list(temporary.iterdir()) == []
