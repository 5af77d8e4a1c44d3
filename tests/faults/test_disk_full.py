"""A full disk: no false success, reads go on, and selling resumes when there is room.

The journal is on a disk of a few megabytes that a filler file fills. Mounting it needs root.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.faults import planted
from tests.faults.buyers import Memory, Sale
from tests.faults.disk import Disk, small_disk
from tests.faults.forgetting import eventually
from tests.faults.line import Answer, Line
from tests.faults.nursery import Child, Patch
from tests.faults.starts import fingerprint, refused_start
from ticketrush.audit import Told, audit
from ticketrush.events import Held
from ticketrush.ledger.embedded import read_for_audit

RESUME_S: Final = 2.0
SELL_S: Final = 30.0
FULL_S: Final = 1.0
"""How long the disk stays full: longer than a hold, so that some fall due meanwhile."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path) as disk:
        yield disk


@contextlib.asynccontextmanager
async def serving(
    disk: Disk, *flags: str, output: Path | None = None, patches: tuple[Patch, ...] = ()
) -> AsyncIterator[Child]:
    """A server with its journal on `disk`, and its output elsewhere if it is not told where."""
    child = Child(output or disk.folder.parent, *flags, ledger=disk.folder / "tickets.db", patches=patches)
    try:
        await child.serving()
        yield child
    finally:
        child.kill()


async def until(said: str, line: Line, path: str, status: int, most_s: float = RESUME_S) -> float:
    """Wait until GET `path` has that status; the seconds that it took."""
    began_s = time.monotonic()
    while (answer := await line.call("GET", path)).status != status:
        assert time.monotonic() - began_s < most_s, f"{said}: {path} is still {answer.status} after {most_s} s"
        await asyncio.sleep(0.02)
    return time.monotonic() - began_s


async def open_sale(line: Line, hold_s: float = 300.0) -> None:
    body = {"items": [{"id": "second", "capacity": 100}], "hold_window_s": hold_s}
    assert (await line.call("PUT", "/v1/sales/g", body)).status == 201
    assert (await line.call("POST", "/v1/sales/g/open")).status == 200


async def reserve(line: Line, key: str) -> Answer:
    return await line.call("POST", "/v1/sales/g/reservations", {"item": "second"}, buyer="ann", key=key)


@pytest.mark.parametrize("durability", ["fsync", "memory"])
def test_a_disk_that_fills_in_the_sale_costs_no_promise(durability: str, disk: Disk) -> None:
    sale = Sale("s1", 300, Memory(), random.Random(5))

    async def fill_it_under_load(child: Child, line: Line) -> None:
        rush = asyncio.create_task(sale.rush(child.port))
        try:
            sale.kill_after = 300
            async with asyncio.timeout(SELL_S):
                await sale.answered.wait()
            held = next(iter(sale.memory.told.acknowledged.items()))
            disk.fill()
            await until("on a full disk", line, "/readyz", 503)
            full_until_s = time.monotonic() + FULL_S
            while time.monotonic() < full_until_s:
                await reads_go_on(line, held[0], held[1][0])
                await asyncio.sleep(0.05)
            successes = sale.codes[""]
            await asyncio.sleep(0.2)
            assert sale.codes[""] == successes, "told of success on a full disk"
            assert sale.codes["unknown"] + sale.codes["unavailable"] > 20
            disk.make_room()
            await until("with room again", line, "/readyz", 200)
            await eventually(lambda: sale.codes[""] > successes)
        finally:
            rush.cancel()
            await asyncio.gather(rush, return_exceptions=True)

    async def reads_go_on(line: Line, id: str, buyer: str) -> None:
        assert (await line.call("GET", sale.path)).status == 200
        assert (await line.call("GET", f"/v1/reservations/{id}", buyer=buyer)).status == 200
        assert (await line.call("GET", f"/v1/orders/{id}", buyer=buyer)).status == 200
        assert (await line.call("GET", "/v1/audit/events?limit=10")).status == 200
        assert (await line.call("GET", "/healthz")).status == 200
        assert (await line.call("GET", "/readyz")).status == 503

    async def story() -> None:
        flags = ("--durability", durability)
        async with serving(disk, *flags, output=disk.folder) as child, Line(child.port) as line:
            await sale.prepare(line)
            await fill_it_under_load(child, line)
            await sale.settle(child.port)
            await sale.sell_out(child.port, SELL_S)
            level = await sale.level(line)
            assert level["sold"] == level["capacity"] == 300 + sale.restock
            child.kill()

    asyncio.run(story())
    events, state = read_for_audit(disk.folder / "tickets.db")
    report = audit(
        events,
        state=state,
        told=sale.memory.told,
        asked_for=sale.memory.was_asked,
        demand_exceeds_capacity=True,
        now_ms=int(time.time() * 1_000),
    )
    assert report.ok, report.violations
    assert not report.vacuous


def test_a_false_success_on_a_full_disk_is_caught(disk: Disk) -> None:
    """The same check with a planted bug: it must find what is lost."""
    told = Told()

    async def story() -> None:
        async with serving(disk, patches=(planted.swallow_failed_commits,)) as child, Line(child.port) as line:
            await open_sale(line)
            disk.fill()
            for number in range(5):
                answer = await reserve(line, f"k{number}")
                assert answer.status == 201
                told.acknowledged[answer.json()["id"]] = ("ann", f"k{number}", "g", "second", 1)

    asyncio.run(story())
    disk.make_room()
    events, _ = read_for_audit(disk.folder / "tickets.db")
    report = audit(events, told=told)
    assert report.lost > 0
    assert report.broken == ["I3"]


def test_it_is_ready_again_though_nobody_asks(disk: Disk) -> None:
    """Who is not ready gets no buyers; so it must find out by itself that there is room."""

    async def story() -> None:
        async with serving(disk) as child, Line(child.port) as line:
            await open_sale(line)
            disk.fill()
            assert (await reserve(line, "k1")).status == 503
            assert (await line.call("GET", "/readyz")).status == 503
            disk.make_room()
            await until("with room again, and no buyers", line, "/readyz", 200)
            assert (await reserve(line, "k1")).status in {200, 201}

    asyncio.run(story())


def test_holds_that_fell_due_on_a_full_disk_expire_when_there_is_room(disk: Disk) -> None:
    async def story() -> None:
        async with serving(disk) as child, Line(child.port) as line:
            await open_sale(line, hold_s=0.8)
            held = (await reserve(line, "k1")).json()
            disk.fill()
            await asyncio.sleep(1.0)
            path = f"/v1/reservations/{held['id']}"
            assert (await line.call("GET", path, buyer="ann")).json()["state"] == "held"
            disk.make_room()
            began_s = time.monotonic()
            while (await line.call("GET", path, buyer="ann")).json()["state"] != "expired":
                assert time.monotonic() - began_s < RESUME_S, "the hold stays though there is room"
                await asyncio.sleep(0.02)

    asyncio.run(story())


def test_a_start_on_a_full_disk_is_refused_and_changes_nothing(disk: Disk) -> None:
    ledger = disk.folder / "tickets.db"

    async def begin() -> None:
        async with serving(disk) as child, Line(child.port) as line:
            await open_sale(line)
            assert (await reserve(line, "k1")).status == 201
            assert child.stop() == 0

    async def again() -> None:
        async with serving(disk) as child, Line(child.port) as line:
            assert (await reserve(line, "k1")).status == 200

    asyncio.run(begin())
    before = fingerprint(ledger)
    disk.fill()
    said = refused_start(ledger)
    assert "damaged" not in said, f"the journal is sound, the disk is full: {said}"
    assert "disk" in said, said
    assert fingerprint(ledger) == before
    disk.make_room()
    asyncio.run(again())


def test_a_new_journal_on_a_full_disk_is_refused_and_leaves_nothing(disk: Disk) -> None:
    disk.fill()
    said = refused_start(disk.folder / "new.db")
    assert "full" in said, said
    assert {each.name for each in disk.folder.iterdir()} <= {"filler", "new.db.lock"}


def test_a_restart_after_a_crash_on_a_full_disk_forgets_nothing(disk: Disk) -> None:
    """With its files still there it may start, and then reads at least; or it says why not."""

    async def story() -> None:
        async with serving(disk) as child, Line(child.port) as line:
            await open_sale(line)
            held = (await reserve(line, "k1")).json()
            disk.fill()
            assert (await reserve(line, "k2")).status == 503
        async with serving(disk) as child, Line(child.port) as line:
            assert (await reserve(line, "k1")).json()["id"] == held["id"]
            assert (await reserve(line, "k2")).status == 503
            disk.make_room()
            await until("with room again", line, "/readyz", 200)
            assert (await reserve(line, "k2")).status in {200, 201}

    asyncio.run(story())


def test_a_graceful_stop_on_a_full_disk_forgets_nothing(disk: Disk) -> None:
    """There is no room for its snapshot, nor to tidy up the journal; it ends well all the same."""
    ids: list[str] = []

    async def story() -> None:
        async with serving(disk, patches=(planted.snapshot_often,)) as child, Line(child.port) as line:
            await open_sale(line)
            ids.extend([(await reserve(line, f"k{number}")).json()["id"] for number in range(70)])
            disk.fill()
            assert child.stop() == 0, child.errors()
        disk.make_room()
        async with serving(disk) as child, Line(child.port) as line:
            assert (await reserve(line, "k3")).json()["id"] == ids[3]

    asyncio.run(story())
    events, _ = read_for_audit(disk.folder / "tickets.db")
    assert [event.id for event in events if isinstance(event, Held)] == ids
