"""A whole cluster by one command: what it starts, what it says when something dies, and that nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clusters import Up, buy, status_of
from tests.e2e.rushes import rush
from tests.e2e.test_rush import check_exact, eventually, is_alive
from tests.valkey import own_valkey
from ticketrush.admission.tokens import Tokens


@contextlib.contextmanager
def up(folder: Path, *flags: str, env: dict[str, str] | None = None) -> Iterator[Up]:
    """A cluster that is ready; ended with the block, if it has not ended by then."""
    cluster = Up(folder, *flags, env=env)
    try:
        cluster.wait_until_ready()
        yield cluster
    finally:
        cluster.kill()


def test_all_nodes_sell_from_one_stock_and_stop_when_asked_to(tmp_path: Path) -> None:
    with up(tmp_path, "--nodes", "2", "--weights", "1,3", "--demo", "20") as cluster:
        assert [node["weight"] for node in cluster.facts["nodes"]] == [1, 3]
        answers = [buy(cluster.urls[number % 2]) for number in range(30)]
        assert answers.count(1) == 20, "each unit is sold once, whichever node is asked"
        pids = cluster.pids
        assert all(map(is_alive, pids))

        assert cluster.stop() == 0
        assert not any(map(is_alive, pids))
        assert not list(cluster.temporary.iterdir()), "temporary files are left over"


def test_a_dead_node_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    with up(tmp_path, "--nodes", "2", "--demo", "10") as cluster:
        victim, survivor = cluster.facts["nodes"]
        assert buy(victim["url"]) == 1
        os.kill(victim["pid"], signal.SIGKILL)

        cluster.wait_for_word(f"{victim['name']} (pid {victim['pid']}) was ended by SIGKILL")
        cluster.wait_for_word(f"{survivor['name']} of 2 nodes go on")
        bought = 1
        until = time.monotonic() + 20
        while bought < 10 and time.monotonic() < until:  # what the dead node had leased comes back in a while
            bought += buy(survivor["url"]) == 1
            time.sleep(0.05)
        assert bought == 10
        assert cluster.stop() == 1, "it was asked to end after a failure"
    (left,) = cluster.temporary.iterdir()
    assert f"logs and data are left in {left}" in cluster.errors()
    assert (left / f"{victim['name']}.err").exists()


def test_a_dead_valkey_is_told_and_is_no_reason_to_end(tmp_path: Path) -> None:
    with up(tmp_path, "--nodes", "1", "--demo", "10") as cluster:
        (valkey,) = cluster.facts["valkey"]
        os.kill(valkey["pid"], signal.SIGKILL)

        cluster.wait_for_word(f"valkey (pid {valkey['pid']}) was ended by SIGKILL")
        assert status_of(f"{cluster.urls[0]}/healthz") == 200
        assert cluster.stop(signal.SIGINT) == 1


def test_durability_replica_starts_two_so_that_one_is_left_after_a_failover(tmp_path: Path) -> None:
    with up(tmp_path, "--nodes", "1", "--durability", "replica", "--demo", "10") as cluster:
        _, first, second = cluster.facts["valkey"]
        assert (first["name"], second["name"]) == ("valkey-replica-1", "valkey-replica-2")
        os.kill(first["pid"], signal.SIGKILL)
        cluster.wait_for_word(f"{first['name']} (pid {first['pid']}) was ended by SIGKILL")
        assert buy(cluster.urls[0]) == 1, "the other one acknowledges"
        assert cluster.stop() == 1


def test_what_is_killed_outright_takes_everything_with_it(tmp_path: Path) -> None:
    with up(tmp_path, "--nodes", "2", "--open") as cluster:
        pids = cluster.pids
        cluster.kill()
        eventually(lambda: not any(map(is_alive, pids)))


def test_buyers_show_tokens_of_a_secret_that_is_made_and_nobody_else_can_read(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    with up(tmp_path, "--nodes", "1", "--folder", str(folder)) as cluster:
        file = Path(cluster.facts["token_secret_file"])
        assert file.stat().st_mode & 0o077 == 0
        assert status_of(f"{cluster.urls[0]}/v1/audit") == 401
        secret = file.read_text().strip()
        assert Tokens([secret.encode()], "ticketrush").mint("ada", ttl_s=60)

        done = rush(
            _new(tmp_path / "rush"),
            *("--buyers", "500", "--tickets", "50", "--hold", "0.6", "--url", cluster.urls[0]),
            env={"TICKETRUSH_TOKEN_SECRETS": secret},
        )
        check_exact(done, 50)
        assert cluster.stop() == 0
    assert {"node-1.err", "valkey.out", "token-secret"} <= {file.name for file in folder.iterdir()}


def test_a_valkey_that_is_there_is_used_and_left_alone(tmp_path: Path) -> None:
    flags = ("--durability", "memory", "--demo", "5")
    with own_valkey() as server, up(tmp_path, "--redis", server.url, *flags) as cluster:
        assert cluster.facts["valkey"] == []
        assert [buy(url) for url in cluster.urls] == [1, 1]
        assert cluster.stop() == 0
        assert server.ask("PING") == "PONG"
        assert int(server.ask("DBSIZE")) > 0


@pytest.mark.parametrize(
    ("flags", "code", "reason"),
    [
        (("--weights", "1,2,3"), 2, "weights is 1,2,3, which is 3 for 2 nodes"),
        (("--redis", "http://127.0.0.1:1"), 2, "--redis 'http://127.0.0.1:1' is not the URL of a Redis"),
        (("--redis", "redis://127.0.0.1:1/0"), 1, "node-1 did not start"),
    ],
)
def test_what_cannot_start_says_why_and_leaves_nothing(
    tmp_path: Path, flags: tuple[str, ...], code: int, reason: str
) -> None:
    cluster = Up(tmp_path, "--nodes", "2", "--open", *flags)

    assert cluster.process.wait(60) == code
    assert reason in cluster.errors()
    assert "Traceback" not in cluster.errors()
    assert not list(cluster.temporary.iterdir())


def _new(folder: Path) -> Path:
    folder.mkdir()
    return folder
