"""A batch over several sales of a shared ledger, a part of which fails: the others are not told so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest

from tests.contract.nodes import do, node
from ticketrush import model as m
from ticketrush.engine import Engine
from ticketrush.errors import LedgerRefused, LedgerUnavailable
from ticketrush.ledger.redis import RedisLedger
from ticketrush.ledger.redis_decide import OPS_MAX, RETRY_MS

LATER_MS = 2_000 + RETRY_MS
UNKNOWN = m.Refused(m.Reason.UNKNOWN, LATER_MS)
UNAVAILABLE = m.Refused(m.Reason.UNAVAILABLE, LATER_MS)


@contextmanager
def sick(ledger: RedisLedger, error: LedgerUnavailable, script: str = "decide", after: int = 0) -> Iterator[None]:
    """The calls of one script for the sale "bad" fail, all but the first few."""
    real_run, made = ledger._link.run, 0

    async def run(name: str, keys: Any, *args: Any, **more: Any) -> Any:
        nonlocal made
        if name == script and "{bad:" in keys[0]:
            made += 1
            if made > after:
                raise error
        return await real_run(name, keys, *args, **more)

    with patch.object(ledger._link, "run", run):
        yield


async def open_two(ledger: RedisLedger) -> None:
    for id in ("good", "bad"):
        await do(ledger, m.CreateSale(m.Sale(id, (m.Item("i", 5_000),), opens_at_ms=0, hold_window_ms=1_000)))


def reserve(ledger: RedisLedger, sale: str, number: int) -> m.Reserve:
    return m.Reserve(ledger.new_id(sale, f"b{number}"), sale, "i", f"b{number}", 1, "k")


ERRORS = pytest.mark.parametrize(
    ("error", "told"), [(LedgerUnavailable("lost"), UNKNOWN), (LedgerRefused("full"), UNAVAILABLE)]
)


@ERRORS
def test_only_those_of_the_book_that_fails_are_told_so(
    valkey_url: str, error: LedgerUnavailable, told: m.Refused
) -> None:
    async def story() -> None:
        async with node(valkey_url, "ann") as ann:
            await open_two(ann)
            asks = [reserve(ann, ("good", "bad")[n % 2], n) for n in range(6)]
            with sick(ann, error):
                outcomes = await ann.execute(2_000, asks)
                with pytest.raises(type(error)):  # where nothing else was asked, the whole batch failed
                    await ann.execute(2_000, asks[1::2])
            assert all(isinstance(each, m.Reserved) for each in outcomes[::2])
            assert outcomes[1::2] == [told] * 3
            again = await ann.execute(2_000, asks)
            assert all(isinstance(each, m.Reserved) for each in again)
            assert ann.stock("good") is not None

    asyncio.run(story())


@ERRORS
def test_what_was_decided_before_a_failure_is_told(valkey_url: str, error: LedgerUnavailable, told: m.Refused) -> None:
    async def story() -> None:
        async with node(valkey_url, "ann") as ann:
            await open_two(ann)
            asks: list[m.Command] = [reserve(ann, "bad", n) for n in range(OPS_MAX + 10)]
            with sick(ann, error, after=1):
                outcomes = await ann.execute(2_000, [*asks, m.CloseSale("good"), reserve(ann, "good", 1)])
            assert all(isinstance(each, m.Reserved) for each in outcomes[:OPS_MAX])
            assert outcomes[OPS_MAX:-2] == [told] * 10
            assert isinstance(outcomes[-2], m.SaleChanged)
            assert outcomes[-1] == m.Refused(m.Reason.CLOSED)

    asyncio.run(story())


def test_an_operation_that_fails_takes_nothing_back_that_was_decided_before_it(valkey_url: str) -> None:
    async def story() -> None:
        async with node(valkey_url, "ann") as ann:
            await open_two(ann)
            batch: list[m.Command] = [reserve(ann, "good", 1), m.CloseSale("bad"), reserve(ann, "good", 2)]
            with sick(ann, LedgerUnavailable("lost"), "sale"):
                outcomes = await ann.execute(2_000, batch)
            assert isinstance(outcomes[0], m.Reserved)
            assert outcomes[1:] == [UNKNOWN, UNAVAILABLE]

    asyncio.run(story())


def test_holds_that_cannot_expire_keep_nobody_from_buying(valkey_url: str) -> None:
    async def story() -> None:
        async with node(valkey_url, "ann") as ann:
            await open_two(ann)
            await ann.execute(900, [reserve(ann, "bad", 1)])
            with sick(ann, LedgerUnavailable("lost"), "expire"):
                outcomes = await ann.execute(2_000, [m.Expire(), reserve(ann, "good", 1)])
                assert outcomes[0] == m.ExpiredSome(0, more=True)
                assert isinstance(outcomes[1], m.Reserved)
                with pytest.raises(LedgerUnavailable):
                    await ann.execute(2_000, [m.Expire()])

    asyncio.run(story())


def test_a_reservation_that_cannot_be_looked_for_fails_alone_and_once(valkey_url: str) -> None:
    async def story() -> None:
        async with node(valkey_url, "ann") as ann:
            await open_two(ann)
            real_command, looks = ann._link.command, 0

            async def command(name: str, *args: Any) -> Any:
                nonlocal looks
                if name == "hexists":
                    looks += 1
                    raise LedgerUnavailable("lost")
                return await real_command(name, *args)

            with patch.object(ann._link, "command", command):
                outcomes = await ann.execute(2_000, [m.Cancel("x"), m.Cancel("y"), reserve(ann, "good", 1)])
            assert outcomes[:2] == [UNAVAILABLE] * 2
            assert isinstance(outcomes[2], m.Reserved)
            assert looks <= 2, "one search over two books"

    asyncio.run(story())


def test_an_id_that_cannot_be_written_costs_the_others_of_its_batch_nothing(valkey_url: str) -> None:
    bad = "\ud800"

    async def story() -> None:
        ledger = RedisLedger(valkey_url, node="ann")
        async with Engine(ledger) as engine:
            await engine.create_sale(m.Sale("good", (m.Item("i", 100),), opens_at_ms=0))
            buying = [engine.reserve("good", "i", f"b{number}") for number in range(10)]
            asking = [engine.cancel(bad), engine.cancel(bad * 32 + ledger._node.sales["good"].routes[0])]
            naming = [engine.reserve(bad, "i", "b"), engine.open_sale(bad), engine.add_stock("good", bad, 1, key="k")]
            told = await asyncio.gather(*buying, *asking, *naming)
            assert [type(outcome) for outcome in told[:10]] == [m.Reserved] * 10
            assert [outcome.reason for outcome in told[10:] if isinstance(outcome, m.Refused)] == [
                *[m.Reason.UNKNOWN_RESERVATION] * 2,
                *[m.Reason.UNKNOWN_SALE] * 2,
                m.Reason.UNKNOWN_ITEM,
            ]
            assert await engine.reservation(bad) is None

    asyncio.run(story())
