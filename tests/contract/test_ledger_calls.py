"""One node against its server: batches side by side share the local stock, and every call is counted."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

import pytest

from tests.contract.nodes import node
from ticketrush import model as m
from ticketrush.engine import Engine
from ticketrush.ledger.redis import RedisLedger
from ticketrush.ledger.redis_decide import BUSY_S

BUYERS = 3_000
SALE = m.Sale("s", (m.Item("i", 1_000_000, purchase_limit=2),), opens_at_ms=1, hold_window_ms=60_000)


async def rush(url: str, *, shards: int = 1, ahead: int = 4) -> tuple[list[m.Reserved | m.Refused], Counter[str]]:
    """What `BUYERS` are told who come in waves, and the calls to the server that it took."""
    ledger = RedisLedger(url, node="a", shards=shards, ahead=ahead)
    async with Engine(ledger, batch_max=64, patience_s=60) as engine:
        await engine.create_sale(SALE)
        before = Counter(ledger.calls())
        waves = []
        for number in range(BUYERS):
            waves.append(asyncio.ensure_future(engine.reserve("s", "i", f"b{number}", key="k")))
            if number % 97 == 0:
                await asyncio.sleep(0.001)
        outcomes = await asyncio.gather(*waves)
        return outcomes, Counter(ledger.calls()) - before


@pytest.mark.parametrize(("shards", "ahead"), [(1, 4), (1, 0), (2, 4), (4, 4), (4, 0)])
def test_nobody_is_refused_while_there_is_plenty(valkey_url: str, shards: int, ahead: int) -> None:
    outcomes, _ = asyncio.run(rush(valkey_url, shards=shards, ahead=ahead))
    assert Counter(type(each) for each in outcomes) == {m.Reserved: BUYERS}


async def two_books_want_the_same_units(url: str) -> list[m.Outcome]:
    """A node has 40 units left over; then a batch wants 60 for one book and, beside it, 40 for the other."""
    ledger = RedisLedger(url, node="a", shards=2)
    await ledger.start()
    try:
        await ledger.execute(1, [m.CreateSale(SALE)])
        book_of = {number: ledger.new_id("s", f"b{number}")[-1] for number in range(1_000)}
        ones = [number for number, book in book_of.items() if book == "1"]
        others = [number for number, book in book_of.items() if book == "0"]
        for part in (ones[:10], ones[10:20]):  # the second comes at once, so that units are leased in advance
            await ledger.execute(1, [reserve(ledger, number) for number in part])
        await asyncio.sleep(2 * BUSY_S)  # busy no more: exactly what is wanted is leased
        return await ledger.execute(1, [reserve(ledger, number) for number in ones[20:80] + others[:40]])
    finally:
        await ledger.close()


def reserve(ledger: RedisLedger, number: int) -> m.Reserve:
    buyer = f"b{number}"
    return m.Reserve(ledger.new_id("s", buyer), "s", "i", buyer, 1, "k")


def test_units_that_another_book_took_meanwhile_are_asked_for_again(valkey_url: str) -> None:
    outcomes = asyncio.run(two_books_want_the_same_units(valkey_url))
    assert Counter(type(each) for each in outcomes) == {m.Reserved: 100}


def test_a_batch_is_one_call_and_the_stock_is_asked_once_for_several(valkey_url: str) -> None:
    _, calls = asyncio.run(rush(valkey_url))
    assert calls["decide"] < BUYERS / 20
    assert calls["stock"] < calls["decide"]


async def pass_over_many_that_were_paid(url: str) -> tuple[list[int], int, Counter[m.State]]:
    """One holds, 2,500 who come later pay, two more hold; the first lets go, then the time of all is over.

    What the book still has to look at after the first step and while holds expire; how many did; and the states.
    """
    paid, first, last = 2_500, "r", ("x", "y")
    async with node(url, "a") as ledger:
        await ledger.execute(1, [m.CreateSale(m.Sale("s", (m.Item("i", 10_000),), opens_at_ms=1, hold_window_ms=100))])
        ids = [f"{name}-0.0" for name in (first, *(f"p{number}" for number in range(paid)), *last)]
        for part in (ids[at : at + 500] for at in range(0, len(ids), 500)):
            await ledger.execute(1, [m.Reserve(id, "s", "i", id, 1, "") for id in part])
        for part in (ids[at : at + 500] for at in range(1, len(ids) - 2, 500)):
            await ledger.execute(1, [m.Confirm(id, "receipt") for id in part])
        (book,) = ledger._node.sales["s"].books
        await ledger.execute(2, [m.Cancel(ids[0])])
        waiting, expired, more = [await ledger._node.command("llen", book.due)], 0, True
        while more:
            (outcome,) = await ledger.execute(1_000, [m.Expire(1_000)])
            assert isinstance(outcome, m.ExpiredSome)
            expired, more = expired + outcome.count, outcome.more
            waiting.append(await ledger._node.command("llen", book.due))
        states = Counter([row.state async for page in ledger.reservations() for row in page])
        return waiting, expired, states


def test_no_call_waits_while_many_that_were_paid_are_passed_over(valkey_url: str) -> None:
    waiting, expired, states = asyncio.run(pass_over_many_that_were_paid(valkey_url))
    assert waiting[0] == 1_503, "one script drops a thousand"
    assert all(before - after <= 1_002 for before, after in itertools.pairwise(waiting))
    assert (waiting[-1], expired) == (0, 2)
    assert states == {m.State.CANCELLED: 1, m.State.PAID: 2_500, m.State.EXPIRED: 2}
