"""One node against its server: batches side by side share the local stock, and every call is counted."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

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
