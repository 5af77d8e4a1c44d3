"""Orders are made by a process of their own: kept by `ticketrush serve`, or started as `ticketrush work`."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import apsw
import pytest

from tests.e2e.test_rush import eventually, is_alive
from tests.servers import FAST_LANE, Server, running
from ticketrush import processes
from ticketrush.cluster import keeper as keeper_module
from ticketrush.cluster.keeper import Keeper
from ticketrush.cluster.postgres import Postgres
from ticketrush.cluster.program import Program

COMMAND: Final = (sys.executable, "-m", "ticketrush")


@contextmanager
def serving(folder: Path, *flags: str) -> Iterator[Server]:
    """An open server that keeps orders in `folder`, named as a person would name it."""
    folder.mkdir(exist_ok=True)
    env = {"TMPDIR": str(folder)}
    with running(FAST_LANE, "--open", "--orders", "sqlite:///orders.db", *flags, env=env, secrets=()) as server:
        server.open_sale("g1", {"second": 100})
        yield server


def buy(server: Server, buyer: str = "ada") -> str:
    """The id of a reservation that is paid."""
    id = str(server.reserve("g1", buyer=buyer).json()["id"])
    assert server.call("POST", f"/v1/orders/{id}/payment", {"card": "approve"}, buyer=buyer).status == 200
    return id


def listed(server: Server, buyer: str = "ada") -> dict[str, str]:
    """The states of a buyer's orders in the store, by id; one without an id is told of while it is away."""
    answer = server.call("GET", "/v1/orders?limit=100", buyer=buyer)
    if answer.status == 503:
        return {"": "away"}
    return {each["id"]: each["state"] for each in answer.json()["orders"]}


def worker_of(server: Server) -> int:
    """The worker that a server keeps."""
    eventually(lambda: processes.children_of(server.pid))
    (pid,) = processes.children_of(server.pid)
    return pid


# --- beside a server --------------------------------------------------------------------------


def test_a_server_keeps_a_worker_and_starts_it_again_when_it_dies(tmp_path: Path) -> None:
    with serving(tmp_path / "tmp") as server:
        first = buy(server)
        eventually(lambda: listed(server) == {first: "paid"})
        worker = worker_of(server)

        os.kill(worker, signal.SIGKILL)
        second = buy(server)

        eventually(lambda: listed(server) == {first: "paid", second: "paid"})
        assert worker_of(server) != worker
        assert "was ended by SIGKILL" in server.errors()
        assert server.is_running

        again = worker_of(server)
        server.kill()
        eventually(lambda: not is_alive(again))  # also one that was started again


def test_a_server_that_stops_ends_its_worker_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "tmp"
    with serving(folder) as server:
        buy(server)
        worker = worker_of(server)

        assert server.stop() == 0
        assert not is_alive(worker)
        assert not list(folder.iterdir()), "temporary files are left over"
        assert "Traceback" not in server.errors()


def test_a_server_that_is_killed_takes_its_worker_with_it_and_the_next_one_goes_on(tmp_path: Path) -> None:
    with serving(tmp_path / "tmp") as server:
        worker = worker_of(server)
        ids = {buy(server) for _ in range(3)}
        server.kill()
        eventually(lambda: not is_alive(worker))

        flags = ("--open", "--orders", "sqlite:///orders.db")
        next_one = Server(server.folder, FAST_LANE, *flags, secrets=())
        try:
            eventually(lambda: set(listed(next_one)) == ids)
        finally:
            assert next_one.stop() == 0


def test_a_server_told_so_keeps_no_worker(tmp_path: Path) -> None:
    with serving(tmp_path / "tmp", "--no-order-worker") as server:
        buy(server)
        time.sleep(0.5)
        assert processes.children_of(server.pid) == []
        assert listed(server) == {}


def test_what_the_worker_has_to_say_is_in_the_servers_log(tmp_path: Path) -> None:
    with serving(tmp_path / "tmp") as server:
        first = buy(server)
        eventually(lambda: listed(server) == {first: "paid"})
        other = apsw.Connection(str(server.folder / "orders.db"))
        other.execute("begin immediate")
        second = buy(server)
        eventually(lambda: "database is locked" in server.errors())
        other.execute("rollback")
        eventually(lambda: set(listed(server)) == {first, second})
        other.close()


class Failing:
    """As much of a `Program` as a keeper looks at: it ends at once, or runs."""

    def __init__(self, folder: Path) -> None:
        self.name, self.log = "failing", folder / "failing.err"
        self.launches: list[float] = []
        self.is_running = False
        self.pid = 7
        self.stops = 0

    def launch(self) -> None:
        self.launches.append(time.monotonic())

    def how_it_ended(self) -> str:
        return "ended with exit code 1"

    def stop(self) -> int:
        self.stops += 1
        return 1


def test_a_program_that_ends_again_and_again_is_started_less_and_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "ticketrush.cluster")
    monkeypatch.setattr(keeper_module, "LOOK_S", 0.05)
    monkeypatch.setattr(keeper_module, "AGAIN_S_MAX", 0.4)
    program: Any = Failing(tmp_path)
    with Keeper(program) as keeper:
        eventually(lambda: len(program.launches) >= 6)
        assert keeper.restarts >= 5
    assert program.stops == 1, "Linux would end it only with us"
    assert [record.message for record in caplog.records][:4] == ["program_ended", "program_started_again"] * 2
    gaps = [later - sooner for sooner, later in zip(program.launches, program.launches[1:], strict=False)]
    assert all(gap >= least for gap, least in zip(gaps, (0.05, 0.1, 0.2, 0.4, 0.4), strict=False)), gaps


def test_a_program_that_runs_for_a_moment_before_it_ends_is_not_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "LOOK_S", 0.02)
    monkeypatch.setattr(keeper_module, "AGAIN_S_MAX", 0.8)
    program: Any = Failing(tmp_path)

    def launch() -> None:
        program.launches.append(time.monotonic())
        program.is_running = True
        threading.Timer(0.1, setattr, (program, "is_running", False)).start()

    program.launch = launch
    with Keeper(program):
        eventually(lambda: len(program.launches) >= 6)
    gaps = [later - sooner for sooner, later in zip(program.launches, program.launches[1:], strict=False)]
    assert gaps[4] > 0.3, gaps


# --- ticketrush work --------------------------------------------------------------------------


class Work(Program):
    """`ticketrush work` in a folder."""

    def __init__(self, folder: Path, *flags: str, env: Mapping[str, str] | None = None) -> None:
        super().__init__("work", folder, [*COMMAND, "work", *flags], processes.plain_environment() | dict(env or {}))

    def __enter__(self) -> Self:
        self.launch()
        return self

    def __exit__(self, *_: object) -> None:
        self.child.stop()

    def end(self) -> tuple[int, str]:
        """Exit code and words of one that ends by itself."""
        return self.child.process.wait(30), self.child.stderr.read_text()

    def said(self) -> list[str]:
        return self.child.stdout.read_text().splitlines()


STORE: Final = ("--orders", "sqlite:///orders.db")


def metrics(url: str) -> dict[str, float]:
    with urllib.request.urlopen(url, timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, value in (line.split(" ") for line in lines if not line.startswith("#"))}


def test_a_worker_announces_itself_tells_how_it_is_doing_and_stops_when_told_to(tmp_path: Path) -> None:
    with serving(tmp_path / "tmp", "--no-order-worker") as server:
        ledger = f"sqlite:///{server.ledger}"
        with Work(server.folder, "--json", "--ledger", ledger, *STORE, "--metrics-port", "0") as work:
            announced = work.wait_until_ready()
            assert (announced["event"], announced["pid"]) == ("working", work.pid)
            ids = {buy(server) for _ in range(3)}
            eventually(lambda: set(listed(server)) == ids)
            well = {
                "ticketrush_orders_notices": 6,
                "ticketrush_orders_dead_letters": 0,
                "ticketrush_orders_lag": 0,
                "ticketrush_orders_away": 0,
            }
            eventually(lambda: metrics(announced["metrics"]) == well)

            work.child.signal(signal.SIGTERM)
            assert work.end() == (0, "")
            assert json.loads(work.said()[-1]) == {"event": "stopped", "stored": 6, "dead": 0, "lag": 0}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_still_waits_for_its_ledger_stops_when_told_to(tmp_path: Path, number: signal.Signals) -> None:
    with Work(tmp_path, "--ledger", "sqlite:///not-there-yet.db", *STORE) as work:
        eventually(lambda: "not-there-yet.db" in work.log.read_text())
        assert work.is_running
        began_s = time.monotonic()
        work.child.signal(number)
        code, words = work.end()
        assert time.monotonic() - began_s < 5
        assert code == 0
        assert "stopped before it began: nothing was written" in words
        assert work.said() == []


def test_a_worker_tells_people_what_it_does(tmp_path: Path) -> None:
    with serving(tmp_path / "tmp", "--no-order-worker") as server:
        ledger = f"sqlite:///{server.ledger}"
        with Work(server.folder, "--ledger", ledger, *STORE) as work:
            eventually(lambda: any("stop with Ctrl-C" in line for line in work.said()))
            work.child.signal(signal.SIGINT)
            code, words = work.end()
        assert (code, words) == (0, "stopped: 0 notices written, 0 dead letters\n")
        said = "\n".join(work.said())
        assert all(word in said for word in (f"pid {work.pid}", ledger, "sqlite:///orders.db"))


@pytest.mark.parametrize(
    ("flags", "reasons"),
    [
        ((), ["orders is empty", "--orders sqlite:///orders.db"]),
        (("--orders", "mysql://root@localhost/shop"), ["orders = (hidden) (from flag)", "postgresql://"]),
        (("--orders", "sqlite:///"), ["sqlite:///FILE"]),
        (("--ledger", "mysql://x/y", *STORE), ["mysql://x/y", "sqlite:///FILE"]),
        ((*STORE, "--metrics-port", "x"), ["--metrics-port"]),
    ],
)
def test_a_worker_that_cannot_work_says_why(tmp_path: Path, flags: tuple[str, ...], reasons: list[str]) -> None:
    with Work(tmp_path, *flags) as work:
        code, words = work.end()
    assert code == 2, words
    assert all(reason in words for reason in reasons), words
    assert "Traceback" not in words


def test_metrics_at_a_port_that_is_taken_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with serving(tmp_path / "tmp", "--no-order-worker") as server, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        for port in (taken.getsockname()[1], 70_000):
            flags = ("--ledger", f"sqlite:///{server.ledger}", *STORE, "--metrics-port", str(port))
            with Work(server.folder, *flags) as work:
                code, words = work.end()
            assert code == 2, words
            assert f"cannot serve metrics at port {port}" in words
            assert "Traceback" not in words


def test_a_database_without_tables_is_not_changed_but_named(tmp_path: Path, postgres: Postgres) -> None:
    with Work(tmp_path, "--orders", postgres.url) as work:
        code, words = work.end()
    assert code == 2, words
    assert "ticketrush migrate --orders" in words
