"""Real Valkey servers, alone and together: they start, die, come back with what they had, and leave nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.valkey import own_valkey
from ticketrush.cluster.errors import ClusterError
from ticketrush.cluster.server import running
from ticketrush.cluster.topology import SERVICE, primaries, replicas, sentinels
from ticketrush.cluster.valkey import Persistence, Valkey, ask


def eventually(what: Callable[[], object], within_s: float = 20.0) -> None:
    until = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < until, f"not so within {within_s:g} s"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(("persistence", "found"), [("fsync", "gold"), ("memory", "gold"), ("none", "")])
def test_a_killed_server_comes_back_at_the_same_place_with_what_it_promised(
    persistence: Persistence, found: str
) -> None:
    with own_valkey(persistence) as server:
        port, pid = server.port, server.pid
        server.ask("SET ring gold")
        server.restart()

        assert (server.port, server.pid != pid) == (port, True)
        assert (server.ask("GET ring") if server.ask("EXISTS ring") == "1" else "") == found


def test_it_evicts_nothing_and_listens_to_this_machine_alone() -> None:
    with own_valkey() as server:
        assert "maxmemory_policy:noeviction" in server.ask("INFO memory")
        rows = [row.split() for row in Path(f"/proc/{server.pid}/net/tcp").read_text().splitlines()[1:]]
        places = {row[1].partition(":")[0] for row in rows if row[3] == "0A" and int(row[1][-4:], 16) == server.port}
        assert places == {"0100007F"}


def test_a_paused_server_answers_when_it_is_resumed_and_can_be_stopped() -> None:
    with own_valkey() as server:
        server.pause()
        with pytest.raises(ClusterError, match=f"no answer from port {server.port} to PING"):
            server.ask("PING")
        server.resume()
        assert server.ask("PING") == "PONG"
        server.pause()
    assert not server.is_running


def test_a_port_that_is_taken_is_an_error_with_the_servers_words(tmp_path: Path) -> None:
    with own_valkey() as server:
        other = Valkey(tmp_path, port=server.port, name="late")
        with (
            pytest.raises(ClusterError, match=rf"late does not start at port {server.port}: (.|\n)*in use"),
            running(other),
        ):
            pass
        assert not other.is_running


def test_a_server_ends_with_the_process_that_started_it_however_that_ends(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from ticketrush.cluster.valkey import Valkey; "
        f"print(Valkey(Path({str(tmp_path)!r})).start().pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_alive(pid)
        parent.kill()
    eventually(lambda: not is_alive(pid))


def test_a_replica_takes_the_place_of_a_primary_that_is_gone() -> None:
    with own_valkey() as primary, replicas(primary) as (replica,), sentinels(primary) as watch:
        assert watch.url.endswith(f"/{SERVICE}")
        assert watch.primary_port() == primary.port
        primary.ask("SET ring gold")
        assert primary.ask("WAIT 1 2000") == "1"
        primary.kill()

        eventually(lambda: watch.primary_port() == replica.port, within_s=30)
        assert replica.ask("GET ring") == "gold"
        eventually(lambda: "role:master" in replica.ask("INFO replication"))


def test_primaries_share_the_slots(tmp_path: Path) -> None:
    with primaries(tmp_path) as cluster:
        names = [f"{{g1:{number}}}" for number in range(12)]
        owners = {name: cluster.owner_of(name) for name in names}
        for name, owner in owners.items():
            assert owner.ask(f"SET {name} 1") == "OK", "each is where it is said to be"
        assert len({owner.port for owner in owners.values()}) == 3
        stranger = next(server for server in cluster.servers if server is not owners[names[0]])
        with pytest.raises(ClusterError, match="MOVED"):
            ask(stranger.port, f"GET {names[0]}")
    assert not any(is_alive(server.pid) for server in cluster.servers)
