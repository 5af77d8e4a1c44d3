"""`ticketrush strategies` as a person runs it: real servers, real databases, and figures that tell the three apart."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from tests.in_loop import finish
from tests.postgres import fresh_database, postgres
from ticketrush.cluster.postgres import Postgres
from ticketrush.strategies.errors import StoreBusy
from ticketrush.strategies.postgres import POOL, PostgresStore
from ticketrush.strategies.server import order_of
from ticketrush.strategies.shop import OrderFirst, PayFirst, Told
from ticketrush.strategies.store import Books

__all__ = ["postgres"]

PATIENCE_S: Final = 240.0
"""How long a small comparison may take on a busy machine."""
SMALL: Final = ("--buyers", "1500", "--tickets", "40", "--hold", "0.3", "--patience", "11")
NAMES: Final = ("order-first", "pay-first", "reserve-first")


class Running:
    """A comparison under way in `folder`; its temporary files are in `temporary`."""

    def __init__(self, folder: Path, *flags: str) -> None:
        self.json, self.page, self.temporary = folder / "s.json", folder / "s.html", folder / "tmp"
        self.temporary.mkdir()
        own = {name: value for name, value in os.environ.items() if not name.startswith("TICKETRUSH_")}
        files = ("--json", str(self.json), "--report", str(self.page))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ticketrush", "strategies", *files, *flags],
            cwd=folder,
            env=own | {"TMPDIR": str(self.temporary)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> Done:
        """Wait until it is over. It must leave nothing behind but its two files."""
        try:
            output, errors = self.process.communicate(timeout=PATIENCE_S)
        finally:
            self.process.kill()
        assert not list(self.temporary.iterdir()), "temporary files are left over"
        return Done(self.process.returncode, output, errors, self.json, self.page)

    def descendants(self) -> set[int]:
        """All processes that it has started, and that they have."""
        found: set[int] = set()
        waiting = [self.process.pid]
        while waiting:
            pid = waiting.pop()
            listed = Path(f"/proc/{pid}/task/{pid}/children").read_text() if Path(f"/proc/{pid}").exists() else ""
            waiting += (children := [int(child) for child in listed.split()])
            found |= set(children)
        return found


@dataclass(frozen=True)
class Done:
    """A comparison that is over."""

    code: int
    output: str
    errors: str
    json: Path
    page: Path

    def report(self) -> dict[str, Any]:
        """What it wrote as JSON."""
        report: dict[str, Any] = json.loads(self.json.read_bytes())
        return report


def check_facts(of: dict[str, Any], tickets: int = 40) -> None:
    """What tells the three apart, as measured."""
    order_first, pay_first, reserve_first = (of[name] for name in NAMES)
    assert order_first["undersold"] > 0
    assert order_first["oversold"] == 0
    assert order_first["paid"] == tickets - order_first["undersold"]
    assert pay_first["oversold"] > 0
    assert (pay_first["paid"], pay_first["undersold"]) == (tickets, 0)
    assert (reserve_first["oversold"], reserve_first["undersold"], reserve_first["paid"]) == (0, 0, tickets)
    assert all(figures["errors"] == 0 and figures["complete"] for figures in (order_first, pay_first, reserve_first))
    # Each order is a look and a transaction, each payment another; and whoever came in vain has looked.
    assert order_first["transactions"] >= 1_500 + tickets + order_first["paid"]
    assert pay_first["transactions"] >= 1_500 + pay_first["told_success"] + tickets
    assert 0 < reserve_first["transactions_per_sale"] < order_first["transactions_per_sale"]


@pytest.mark.timeout(300)
def test_the_three_are_told_apart_by_measurement_on_both_databases(tmp_path: Path) -> None:
    done = Running(tmp_path, *SMALL, "--database", "both").end()
    assert done.code == 0, done.errors
    begun = [line.removesuffix(": begins") for line in done.errors.splitlines() if line.endswith(": begins")]
    assert begun == [f"{name}, {database}" for database in ("sqlite", "postgres") for name in NAMES]
    report = done.report()
    for database in ("sqlite", "postgres"):
        check_facts(report["databases"][database])
    assert {name: report[name] for name in NAMES} == report["databases"]["sqlite"]
    assert "pay-first" in done.output
    assert done.page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_ctrl_c_ends_every_process_and_says_how_far_it_was(tmp_path: Path, database: str) -> None:
    running = Running(tmp_path, "--database", database)
    wait_for(running, "ticketrush.crowd")
    started = running.descendants()
    running.process.send_signal(signal.SIGINT)
    done = running.end()
    assert done.code == 130
    assert done.errors.endswith("\nticketrush: stopped by Ctrl-C; measured by then: nothing\n")
    assert not [command for pid in started if (command := command_of(pid))]


def test_a_server_that_dies_is_told_of_with_its_name(tmp_path: Path) -> None:
    running = Running(tmp_path, "--buyers", "200000")
    wait_for(running, "ticketrush.crowd")
    os.kill(wait_for(running, "ticketrush.strategies"), signal.SIGKILL)
    done = running.end()
    assert done.code == 1
    assert "\nticketrush: order-first-sqlite was ended by SIGKILL while it was selling" in done.errors


def wait_for(running: Running, command: str) -> int:
    """The process with `command` in its command line, once it is there."""
    give_up_s = time.monotonic() + 60
    while time.monotonic() < give_up_s:
        for pid in running.descendants():
            if command in command_of(pid):
                return pid
        time.sleep(0.05)
    raise AssertionError(f"{command} did not come")


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def test_a_postgres_that_is_named_is_used_and_left_as_it_was(tmp_path: Path, postgres: Postgres) -> None:
    flags = (*SMALL, "--patience", "1", "--database", "postgres", "--postgres", postgres.url)
    done = Running(tmp_path, *flags).end()
    assert done.report()["pay-first"]["oversold"] > 0, done.errors
    left = finish(databases(postgres.url))
    assert not [name for name in left if "first" in name]


async def databases(url: str) -> list[str]:
    from ticketrush.strategies.databases import connected  # noqa: PLC0415

    async with connected(url) as connection:
        return [row[0] for row in await connection.fetch("SELECT datname FROM pg_database")]


def test_a_postgres_that_is_not_there_is_exit_code_4(tmp_path: Path) -> None:
    done = Running(tmp_path, "--database", "postgres", "--postgres", "postgresql://me:secret@127.0.0.1:1/x").end()
    assert done.code == 4
    assert "does not answer" in done.errors
    assert "secret" not in done.errors


# --- PostgreSQL as a store -------------------------------------------------------------------


@pytest.fixture
def store(postgres: Postgres) -> PostgresStore:
    return PostgresStore(fresh_database(postgres))


CROWD: Final = [order_of(f"buyer-{number}", "1") for number in range(100)]


@pytest.mark.parametrize("kind", [OrderFirst, PayFirst])
def test_of_a_hundred_at_once_exactly_five_can_pay(store: PostgresStore, kind: Callable[..., Any]) -> None:
    async def story() -> None:
        await store.open(5)
        shop = kind(store)
        told = await asyncio.gather(*map(shop.order, CROWD))
        paid = await asyncio.gather(*map(shop.pay, CROWD))
        again = await asyncio.gather(*map(shop.pay, CROWD))
        books = await store.close()
        assert told.count(Told.SUCCESS) == (5 if kind is OrderFirst else 100)
        assert paid.count(Told.PAID) == 5
        assert paid == again
        assert books.paid == 5

    finish(story())


def test_postgres_counts_the_transactions_itself(store: PostgresStore) -> None:
    async def story() -> Books:
        await store.open(1)
        shop = OrderFirst(store)
        await shop.order(CROWD[0])  # a look, and a transaction that changes something
        for _ in range(20):
            await shop.order(CROWD[1])  # a look
        await shop.pay(CROWD[0])
        return await store.close()

    books = finish(story())
    assert books.paid == 1
    assert (
        23 <= books.transactions <= 23 + POOL + 10
    )  # connections that open, and readings of the books, are among them


def test_a_lock_that_is_not_let_go_is_an_answer_in_time(
    store: PostgresStore, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ticketrush.strategies.postgres.WAIT_S", 0.5)

    async def story() -> None:
        await store.open(1)
        async with store._borrowed() as holder, holder.transaction():
            await holder.execute("SELECT 1 FROM stock FOR UPDATE")
            with pytest.raises(StoreBusy):
                await OrderFirst(store).order(CROWD[0])
        assert await OrderFirst(store).order(CROWD[0]) is Told.SUCCESS
        await store.close()

    finish(story())
