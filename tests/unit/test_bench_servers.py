"""What the bench starts and asks: programs, the nginx configuration, processes, one connection, a journal."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ticketrush import processes
from ticketrush.admission.tokens import Tokens
from ticketrush.bench import tools, valkey
from ticketrush.bench.buyers import AUDIENCE, Issuer
from ticketrush.bench.client import Answer, Connection, parse
from ticketrush.bench.errors import BenchError
from ticketrush.bench.limit import config, filler
from ticketrush.bench.lone import fdatasyncs_ms, percentile
from ticketrush.bench.machine import filesystem_of, journal_folder
from ticketrush.bench.replay import replay
from ticketrush.bench.server import serve
from ticketrush.edge import programs

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(60)"]
STUBBORN = [
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)",
]


def wait_until_up(child: processes.Child) -> None:
    give_up_s = time.monotonic() + 20
    while b"up" not in child.stdout.read_bytes() and time.monotonic() < give_up_s:
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    return Path("/proc", str(pid)).exists()


# --- programs and the machine ---------------------------------------------------------------------


def test_missing_programs_are_named_with_their_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs, "PLACES", str(tmp_path))
    with pytest.raises(BenchError, match=r"needs wrk and nginx.*apt-get install wrk nginx"):
        tools.find()
    (tmp_path / "wrk").touch(0o755)
    with pytest.raises(BenchError, match=r"needs nginx,.*apt-get install nginx "):
        tools.find()
    (tmp_path / "nginx").touch(0o755)
    assert tools.find().nginx == str(tmp_path / "nginx")


def test_the_file_system_is_that_of_the_innermost_mount() -> None:
    mounts = (
        "1 0 8:1 / / rw - ext4 /dev/root rw\n"
        "2 1 0:2 / /tmp rw shared:1 - tmpfs tmpfs rw\n"
        "3 2 8:2 / /tmp/a\\040b rw - xfs /dev/b rw\n"
    )
    assert filesystem_of(Path("/home/x"), mounts) == "ext4"
    assert filesystem_of(Path("/tmp/x"), mounts) == "tmpfs"
    assert filesystem_of(Path("/tmp/a b/x"), mounts) == "xfs"
    assert filesystem_of(Path("/tmpfoo"), mounts) == "ext4"


def test_a_folder_that_cannot_be_written_in_is_refused(tmp_path: Path) -> None:
    assert journal_folder(tmp_path) == tmp_path
    with pytest.raises(BenchError, match="nowhere"):
        journal_folder(tmp_path / "nowhere")


# --- nginx ----------------------------------------------------------------------------------------


def test_nginx_imitates_status_type_and_length_and_keeps_connections() -> None:
    answer = Answer(409, {"content-type": "application/problem+json; charset=utf-8"}, b"x" * 100, 200)
    text = config(4_321, answer)
    assert "listen 127.0.0.1:4321 " in text
    assert f"return 409 '{filler(100)}';" in text
    assert 'default_type "application/problem+json; charset=utf-8";' in text
    assert "keepalive_requests 1000000000;" in text
    assert "access_log off;" in text
    assert "@" not in text


@pytest.mark.parametrize("length", [2, 3, 150])
def test_the_body_of_nginx_has_the_length_asked_for(length: int) -> None:
    assert len(filler(length)) == length


# --- processes ------------------------------------------------------------------------------------


def test_a_child_ends_with_its_block_also_when_that_fails(tmp_path: Path) -> None:
    pid = 0
    with contextlib.suppress(KeyboardInterrupt), processes.child("sleeper", SLEEPER, tmp_path) as child:
        pid = child.process.pid
        assert is_running(pid)
        raise KeyboardInterrupt
    assert pid
    assert not is_running(pid)


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "STOP_S", 0.05)
    with processes.child("stubborn", STUBBORN, tmp_path) as child:
        wait_until_up(child)
    assert child.ended
    assert not is_running(child.process.pid)


def test_cpu_time_counts_a_process_and_its_children(tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.1: pass\nprint('up', flush=True); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    with processes.child("parent", [sys.executable, "-c", parent], tmp_path) as child:
        wait_until_up(child)
        used_s = processes.cpu_s(child.process.pid)
    assert 0.09 <= used_s < 10
    assert processes.busy_s() > used_s


def test_a_process_may_be_called_anything() -> None:
    stat = "12 (a) b (c) S 7 " + " ".join(str(number) for number in range(5, 40))
    assert processes._pid(stat) == 12
    assert processes._parent(stat) == 7
    assert processes._times(stat) == (14 + 15) / processes.TICKS_PER_S


def test_a_server_that_does_not_start_is_an_error_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ticketrush.bench.server.COMMAND", (sys.executable, "-c", "exit('no room')"))
    with pytest.raises(BenchError, match="no room"), serve(tmp_path, Issuer()):
        pass


def test_the_server_hears_of_no_setting_but_the_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    show = "import os; exit(str(sorted(name for name in os.environ if name.startswith('TICKETRUSH'))))"
    monkeypatch.setattr("ticketrush.bench.server.COMMAND", (sys.executable, "-c", show))
    monkeypatch.setenv("TICKETRUSH_DURABILITY", "memory")
    with pytest.raises(BenchError, match=r"\['TICKETRUSH_TOKEN_SECRETS'\]"), serve(tmp_path, Issuer()):
        pass


def test_a_node_with_a_valkey_counts_its_calls_and_both_processes_are_known(tmp_path: Path) -> None:
    assert not valkey.missing()
    assert "." in valkey.version()
    with valkey.serve_with_valkey(tmp_path, Issuer()) as server:
        before = server.ledger_calls()
        with Connection(server.target.url) as connection:
            assert server.reserve(connection).status == 201
        assert (server.ledger_calls() - before)["decide"] >= 1
        assert server.held_and_sold() == (1, 0)
        pids = (server.target.pid, server.target.store_pid)
        assert all(is_running(pid) for pid in pids)
    assert not any(is_running(pid) for pid in pids)


def test_what_a_ledger_in_valkey_needs_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(valkey, "CLIENT", ("redis", "no_such_package"))
    assert "pip install" in valkey.missing()
    monkeypatch.setattr("ticketrush.cluster.valkey._in_wheel", lambda: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is none" in valkey.missing()


# --- buyers and a connection ----------------------------------------------------------------------


def test_tokens_prove_different_buyers_and_are_all_of_one_length(tmp_path: Path) -> None:
    issuer = Issuer()
    issuer.write_tokens(12, tmp_path / "tokens")
    lines = (tmp_path / "tokens").read_text().splitlines()
    verify = Tokens([issuer.secret.encode()], AUDIENCE).verify
    assert len({verify(f"Bearer {line}".encode()).sub for line in lines}) == 12
    assert len({len(line) for line in lines}) == 1
    assert verify(f"Bearer {issuer.operator()}".encode()).is_operator


def test_an_answer_is_taken_apart() -> None:
    data = b"HTTP/1.1 409 Conflict\r\nContent-Type: application/json\r\ncontent-length: 2\r\n\r\n{}"
    answer = parse(data)
    assert (answer.status, answer.headers["content-type"], answer.body) == (409, "application/json", b"{}")
    assert answer.size == len(data)


@contextlib.contextmanager
def answering(*pieces: bytes) -> Iterator[str]:
    """A server that answers one request with `pieces`, sent one after the other, and hangs up."""

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65_536)
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.01)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def test_an_answer_in_pieces_is_waited_for() -> None:
    pieces = (b"HTTP/1.1 201 Created\r\nContent-Le", b"ngth: 5\r\n\r\n12", b"345")
    with answering(*pieces) as url, Connection(url) as connection:
        assert connection.ask("POST", "/", b"{}").body == b"12345"


def test_a_connection_closed_too_early_is_an_error() -> None:
    with answering(b"HTTP/1.1 201 Created\r\n") as url, Connection(url) as connection, pytest.raises(BenchError):
        connection.ask("POST", "/")


def test_an_answer_without_length_is_an_error_and_not_an_endless_wait() -> None:
    with (
        answering(b"HTTP/1.1 201 Created\r\nx: y\r\n\r\n") as url,
        Connection(url) as connection,
        pytest.raises(BenchError, match="without content-length"),
    ):
        connection.ask("POST", "/")


# --- the disk -------------------------------------------------------------------------------------


def test_syncs_are_timed_and_leave_nothing_behind(tmp_path: Path) -> None:
    took_ms = fdatasyncs_ms(tmp_path, 5)
    assert len(took_ms) == 5
    assert all(took > 0 for took in took_ms)
    assert not os.listdir(tmp_path)


def test_percentiles() -> None:
    values = [float(number) for number in range(101)]
    assert (percentile(values, 50), percentile(values, 99)) == (50.0, 99.0)


def test_a_replay_counts_what_the_journal_holds(tmp_path: Path) -> None:
    replayed = replay(tmp_path, 300)
    assert replayed.reservations == 300
    assert replayed.seconds > 0
    assert 10 < replayed.rss_mb < 1_000
