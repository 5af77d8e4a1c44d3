"""The whole front door sells through its faults: exactly what there is, nothing lost, and within the times promised."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ticketrush import processes
from ticketrush.lab.lab import home_of_folders
from ticketrush.lab.netns import NAMES
from ticketrush.lab.outcome import Outcome
from ticketrush.lab.report import page
from ticketrush.lab.sale import Crowd
from ticketrush.lab.scenarios import MOVES_S, SCENARIOS, SELLS_S, play

pytestmark = pytest.mark.timeout(180)

CROWD = Crowd(buyers=640, tickets=480, per_second=64)


def played(name: str, crowd: Crowd = CROWD) -> Outcome:
    """The scenario, with what it measured printed; all that it promises must be so."""
    found = play(SCENARIOS[name], crowd, print)
    print(found.figures, found.requests, f"{found.unanswered} tries unanswered")
    broken = [promise.text for promise in found.promises if not promise.holds]
    assert not broken, (broken, found.figures, found.violations, found.odd)
    assert found.title in page([found])
    return found


def test_nothing_fails_and_everybody_gets_a_share() -> None:
    found = played("calm")
    assert found.sold == found.paid == found.acknowledged == CROWD.tickets
    assert sum(found.requests["nodes"].values()) >= CROWD.buyers + CROWD.tickets
    assert len(found.requests["proxies"]) == 2


def test_a_killed_balancer_costs_seconds_and_no_ticket() -> None:
    found = played("balancer")
    assert found.sold == found.paid == CROWD.tickets
    assert 0 < found.figures["route_s"] <= MOVES_S
    assert 0 < found.figures["last_unanswered_s"] <= MOVES_S, "half of the buyers were led to the one that was killed"


def test_a_killed_node_is_noticed_and_nobody_hears_of_it() -> None:
    found = played("node")
    assert found.sold == found.paid == CROWD.tickets
    assert 0 < found.figures["noticed_s"] <= MOVES_S


def test_an_ill_balancer_withdraws_and_comes_back() -> None:
    found = played("nginx")
    assert found.sold == found.paid == CROWD.tickets
    assert found.figures["withdrawn_s"] <= found.figures["route_s"] <= MOVES_S
    assert found.figures["back_s"] > 0


def test_a_lost_site_loses_no_success_that_a_replica_had() -> None:
    found = played("site-replica")
    assert found.lost == 0
    assert found.sold == CROWD.tickets
    assert 0 < found.figures["rto_s"] <= SELLS_S


def test_a_lost_site_with_copies_that_come_later_is_measured() -> None:
    found = played("site-memory")
    assert 0 < found.figures["rto_s"] <= SELLS_S
    assert found.figures["rpo_reservations"] == found.lost


# --- the command, and what it leaves ---------------------------------------------------------------------------------

COMMAND = (sys.executable, "-m", "ticketrush", "edge", "lab")


@contextlib.contextmanager
def started(*flags: str) -> Iterator[subprocess.Popen[str]]:
    """The command; killed with the block, if it has not ended."""
    with subprocess.Popen(
        [*COMMAND, *flags],
        env=processes.plain_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def of_lab(pid: int) -> list[str]:
    """The namespaces of the lab of that process."""
    return [name for name in os.listdir(NAMES) if name.startswith(f"ticketrush-{pid}-")]


def folders_of(pid: int) -> list[Path]:
    """The folders of the lab of that process."""
    return list(home_of_folders().glob(f"ticketrush-{pid}-*"))


def running_in(names: list[str]) -> list[int]:
    found: list[int] = []
    for name in names:
        done = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)
        found += map(int, done.stdout.split())
    return found


def wait_for_nodes(process: subprocess.Popen[str]) -> list[int]:
    """The processes of the lab, once there are some on every kind of host."""
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        names = of_lab(process.pid)
        if any(name.endswith("-balancer-2") for name in names) and len(pids := running_in(names)) >= 12:
            return pids
        time.sleep(0.05)
    raise AssertionError("the lab did not start within 60 s")


def test_ctrl_c_leaves_nothing() -> None:
    with started("--scenario", "calm") as process:
        pids = wait_for_nodes(process)
        assert len(folders_of(process.pid)) == 1
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert process.returncode == 130, (out, err)
    assert of_lab(process.pid) == []
    assert processes.running_of(pids) == []
    assert folders_of(process.pid) == []


def test_what_a_killed_lab_has_left_is_gone_when_the_next_one_has_run(tmp_path: Path) -> None:
    with started("--scenario", "calm") as killed:
        pids = wait_for_nodes(killed)
        killed.kill()
        killed.wait()
        assert of_lab(killed.pid), "the namespaces outlive their lab"
        assert folders_of(killed.pid), "so does its folder"
    report = tmp_path / "lab.html"
    flags = ("--scenario", "calm", "--buyers", "60", "--tickets", "40", "--arrivals", "40", "--json")
    with started(*flags, "--report", str(report)) as following:
        out, err = following.communicate(timeout=120)
    assert following.returncode in {0, 1}, err  # so few connections need not be shared out evenly
    (scenario,) = json.loads(out)["scenarios"]
    assert scenario["sold"] == 40
    assert "The front door, failed on purpose" in report.read_text()
    assert of_lab(killed.pid) == []
    assert folders_of(killed.pid) == []
    assert of_lab(following.pid) == []
    assert processes.running_of(pids) == []


def test_who_may_not_have_a_lab_is_told_why() -> None:
    done = subprocess.run(
        [*COMMAND, "--scenario", "calm"],
        user=65_534,
        group=65_534,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "needs root" in done.stderr
