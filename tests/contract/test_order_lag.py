"""What waits in the log: asked for beside the work, and nothing is compared while it is not level."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.in_loop import in_loop
from tests.order_worker import ListSource, messages_of, opened, until, working
from tests.orders import held
from ticketrush.orders import service
from ticketrush.orders import worker as worker_module
from ticketrush.orders.sqlite import SqliteOrders
from ticketrush.orders.worker import OrderWorker


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lag is looked at often."""
    monkeypatch.setattr(worker_module, "LAG_S", 0.02)


class SlowToCount(ListSource):
    """A log with so many parts that counting takes until the test says that it is done."""

    def __init__(self) -> None:
        super().__init__([])
        self.asked, self.counted = 0, asyncio.Event()

    async def lag(self) -> int:
        self.asked += 1
        await self.counted.wait()
        return await super().lag()


@in_loop
async def test_nothing_waits_for_the_lag_and_it_is_asked_for_the_more_rarely_the_more_it_costs(tmp_path: Path) -> None:
    source = SlowToCount()
    async with opened(SqliteOrders(tmp_path / "o.db")) as store, working(source, store) as worker:
        for number in range(20):
            source.messages += messages_of([held(f"o{number}")])
            await until(lambda: source.finished == len(source.messages))
        assert (source.asked, worker.lag) == (1, None), "it is still being counted"
        source.counted.set()
        await until(lambda: worker.lag is not None)
        await asyncio.sleep(1)
    assert source.asked == 1


@in_loop
async def test_a_lag_is_not_known_while_the_log_is_away(tmp_path: Path) -> None:
    source = ListSource(messages_of([held("o")]))
    async with opened(SqliteOrders(tmp_path / "o.db")) as store, working(source, store) as worker:
        await until(lambda: worker.lag == 0)
        source.is_away = True
        await until(lambda: worker.away != "")
        assert worker.lag is None
        assert not worker.is_level


@in_loop
async def test_a_store_that_is_behind_is_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LAG_S", 0.01)
    source, compared = ListSource(messages_of([held(f"o{n}") for n in range(10)])), 0

    async def compare() -> None:
        nonlocal compared
        compared += 1
        assert worker.lag == 0

    async with opened(SqliteOrders(tmp_path / "o.db")) as store:
        worker = OrderWorker(source, store)
        worker.lag = 10
        beside = asyncio.create_task(service._compare_now_and_then(worker, compare, 0.02))
        await asyncio.sleep(0.3)
        assert compared == 0
        running = asyncio.create_task(worker.run())
        await until(lambda: compared > 1)
        beside.cancel()
        worker.stop()
        await running
