"""`ticketrush edge nginx`, `lvs` and `ospf`: what they write, what they leave, and how they end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.unit.edge_files import BALANCERS, NETWORKS, NODE, PROXIES, ROUTERS, front
from ticketrush.cli import app
from ticketrush.edge import check, render
from ticketrush.edge.cluster_file import parse

ALL = front() + NODE + PROXIES + BALANCERS + ROUTERS + NETWORKS
ELSEWHERE = NODE.replace("node-1", "node-2").replace("10.0.3.11", "10.0.4.11") + 'site = "b"\n'
LVS_2 = BALANCERS[BALANCERS.rindex("[[") :]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def run(layer: str, text: str, *flags: str) -> Result:
    Path("cluster.toml").write_text(text)
    return CliRunner().invoke(app, ["edge", layer, *flags])


def named(result: Result) -> list[str]:
    """The files that are said to be left behind."""
    lines = result.stderr.splitlines()
    return [line.split()[0] for line in lines if "is of an earlier rendering" in line]


# --- what is left behind -------------------------------------------------------------------------


def test_from_one_site_to_two_the_old_file_is_named() -> None:
    assert named(run("nginx", NODE)) == []
    result = run("nginx", NODE + ELSEWHERE, "--json")
    assert named(result) == ["edge/nginx.conf"]
    assert json.loads(result.stdout) == {"files": ["edge/nginx-a.conf", "edge/nginx-b.conf", "edge/nginx-slow.sh"]}
    assert result.exit_code == 0
    assert named(run("nginx", NODE)) == ["edge/nginx-a.conf", "edge/nginx-b.conf"]


def test_the_files_of_a_host_that_is_no_longer_there_are_named() -> None:
    for layer in ("nginx", "lvs", "ospf"):
        assert named(run(layer, ALL)) == [], "what another layer has written is not left behind"
    less = ALL.replace(LVS_2, "")
    assert named(run("nginx", less)) == []
    assert named(run("ospf", less)) == [f"edge/lvs-2/{name}" for name in ("frr.conf", "health.sh", "sysctl.conf")]
    assert named(run("lvs", less)) == [
        f"edge/lvs-2/{name}" for name in ("keepalived.conf", "nftables-health.sh", "nftables.conf", "sysctl.conf")
    ]


def test_the_files_of_a_layer_that_is_no_longer_there_are_named() -> None:
    run("ospf", front() + NODE + BALANCERS + NETWORKS)
    result = run("ospf", front() + NODE + BALANCERS)
    assert result.exit_code == 2
    assert named(result) == [f"edge/lvs-{number}/{name}" for number in (1, 2) for name in ("frr.conf", "health.sh")]


def test_what_somebody_else_has_written_is_not_named(tmp_path: Path) -> None:
    folder = tmp_path / "edge"
    folder.mkdir()
    (folder / "nginx.conf").write_text("http {}\n")
    (folder / "notes.txt").write_text("# Rendered by `ticketrush edge nginx`: is in the first line\n")
    (folder / "old.conf").write_bytes(b"\xff\xfe")
    (folder / "folder.conf").mkdir()
    result = run("nginx", NODE + ELSEWHERE)
    assert (result.exit_code, named(result)) == (0, [])


def test_every_file_says_which_layer_it_is_of(tmp_path: Path) -> None:
    files = check.all_files(parse(ALL))
    render.write(tmp_path, files)
    found = {path for layer in ("nginx", "lvs", "ospf") for path in render.left_behind(tmp_path, (), layer, ())}
    assert {str(path.relative_to(tmp_path)) for path in found} == set(files)
