"""A rush over many nodes, some of which are killed: exactly the capacity is sold, and nobody is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.rushes import rush
from tests.e2e.test_rush import SMALL, check_exact, check_failed
from ticketrush.cli.app import Exit


def test_two_nodes_sell_every_ticket_once(tmp_path: Path) -> None:
    report = check_exact(rush(tmp_path, *SMALL, "--nodes", "2", "--weights", "1,3"))

    few, many = report["nodes"]
    assert (few["killed"], many["killed"], report["killed"]) == (False, False, 0)
    assert few["requests"] + many["requests"] == report["requests"]
    assert 0 < few["requests"] < many["requests"]
    assert report["server_cpu_us_per_request"] > 0
    assert report["server_rss_mb"] > 100, "two nodes and a Valkey"


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_nodes_take_nothing_with_them(tmp_path: Path, seed: int) -> None:
    done = rush(tmp_path, *SMALL, "--nodes", "3", "--kill", "2", "--seed", str(seed))

    report = check_exact(done)
    assert report["killed"] == 2
    assert [node["killed"] for node in report["nodes"]].count(True) == 2
    assert all(kill["paid"] < 200 for kill in report["extra"]["kills"]), "they died in the middle"
    page = done.page.read_text(encoding="utf-8")
    for node in report["nodes"]:
        assert node["url"] in page
    assert page.count("killed after") == 2


def test_the_last_node_is_never_killed(tmp_path: Path) -> None:
    check_failed(rush(tmp_path, *SMALL, "--nodes", "2", "--kill", "2"), Exit.USAGE, "one must live on")
