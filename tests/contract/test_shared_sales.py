"""Sales of a shared ledger are made and changed in steps: whoever does it may die between any two, or be slow."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import patch

import pytest

from tests.contract.nodes import dies_at, do, node
from ticketrush import model as m
from ticketrush.audit import audit
from ticketrush.errors import LedgerUnavailable
from ticketrush.ledger.redis import RedisLedger

CAPACITY = 12


def sale(id: str, capacity: int = CAPACITY) -> m.Sale:
    return m.Sale(id, (m.Item("i", capacity), m.Item("j", capacity)), opens_at_ms=0)


async def buy(ledger: RedisLedger, id: str, count: int, first: int = 0) -> list[m.Outcome]:
    return await ledger.execute(
        1_000,
        [m.Reserve(ledger.new_id(id, f"b{n}"), id, "ij"[n % 2], f"b{n}", 1, "k") for n in range(first, first + count)],
    )


async def make_and_die(url: str) -> None:
    async with node(url, "ann", shards=2) as ann, node(url, "bob", shards=3) as bob:
        for call in range(100):
            wanted = sale(f"s{call}")
            with dies_at(ann._link, call) as made:
                try:
                    outcome = await do(ann, m.CreateSale(wanted))
                except LedgerUnavailable:
                    outcome = None
            again = await do(bob, m.CreateSale(wanted))
            assert isinstance(again, m.SaleChanged), (made, again)
            outcomes = await buy(bob, wanted.id, 2 * CAPACITY)
            assert all(isinstance(each, m.Reserved) for each in outcomes), (made, outcomes)
            async with node(url, "cid") as cid:
                assert wanted in cid.sales(), made
                stock = cid.stock(wanted.id)
                assert stock is not None
                assert [level.held for level in stock.levels] == [CAPACITY, CAPACITY]
            if outcome is not None:
                break
        else:
            pytest.fail("the sale was never made")
        assert call > 5, "it is made in several calls"
        events = [event for _, event in await bob.events(0, 10_000)]
        assert audit(events, state=await bob.state()).ok


def test_a_sale_that_was_made_half_is_finished_when_it_is_made_again(valkey_url: str) -> None:
    """Also by a node that would spread it over another number of books."""
    asyncio.run(make_and_die(valkey_url))


async def lose_the_stock(url: str) -> None:
    async with node(url, "ann") as ann:
        await do(ann, m.CreateSale(sale("s")))
        await buy(ann, "s", 2 * CAPACITY)
        await ann._link.command("delete", ann._node.sales["s"].shelves["i"].key)
        assert await do(ann, m.CreateSale(sale("s"))) == m.SaleChanged(sale("s"), repeated=True)
        assert not await ann._link.command("exists", ann._node.sales["s"].shelves["i"].key)


def test_a_lost_stock_is_not_made_as_if_nothing_had_been_sold(valkey_url: str) -> None:
    asyncio.run(lose_the_stock(valkey_url))


async def two_of_one_name(url: str) -> None:
    async with node(url, "ann", shards=2) as ann, node(url, "bob") as bob:
        with dies_at(ann._link, 6), pytest.raises(LedgerUnavailable):  # with one of its two books
            await do(ann, m.CreateSale(sale("s")))
        assert await ann._link.command("exists", "ticketrush:{s:1}:meta")
        assert not await ann._link.command("exists", "ticketrush:{s:0}:meta")
        assert isinstance(await do(ann, m.CreateSale(sale("s", 7))), m.Refused)
        assert isinstance(await do(bob, m.CreateSale(sale("s"))), m.SaleChanged)
        assert await do(ann, m.CreateSale(sale("s", 7))) == m.Refused(m.Reason.SALE_EXISTS)


def test_two_sales_of_one_name_are_never_mixed(valkey_url: str) -> None:
    asyncio.run(two_of_one_name(valkey_url))


async def open_slowly(url: str) -> list[m.Outcome]:
    """Ann opens a sale of two books, and is about to tell the second one when Bob closes it."""
    async with node(url, "ann", shards=2) as ann, node(url, "bob") as bob:
        await do(ann, m.CreateSale(m.Sale("s", (m.Item("i", 100), m.Item("j", 100)))))
        real_run, goes_on, arrived = ann._link.run, asyncio.Event(), asyncio.Event()

        async def run(name: str, keys: Any, *args: Any, **more: Any) -> Any:
            if name == "sale" and args[0].get("op") == "copy":
                arrived.set()
                await goes_on.wait()
            return await real_run(name, keys, *args, **more)

        with patch.object(ann._link, "run", run):
            opening = asyncio.create_task(do(ann, m.OpenSale("s")))
            await arrived.wait()
            assert isinstance(await bob.execute(2_000, [m.CloseSale("s")]), list)
            goes_on.set()
            await opening
        return await buy(bob, "s", 20)


def test_a_slow_opening_does_not_open_a_book_that_was_closed_meanwhile(valkey_url: str) -> None:
    outcomes = asyncio.run(open_slowly(valkey_url))
    assert outcomes == [m.Refused(m.Reason.CLOSED)] * 20
