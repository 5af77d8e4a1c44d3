"""The records of a shared ledger, as who compares orders with it reads them."""

from __future__ import annotations

import asyncio

from tests.in_loop import in_loop
from tests.valkey import valkey, valkey_url
from ticketrush import model as m
from ticketrush.ledger.redis import RedisLedger
from ticketrush.orders.redis_records import RedisRecords

__all__ = ["valkey", "valkey_url"]


@in_loop
async def test_records_are_all_that_nodes_have_committed(valkey_url: str) -> None:
    ledger = RedisLedger(valkey_url, shards=2)
    await ledger.start()
    records = RedisRecords(valkey_url, "reader")
    await records.open()
    made: dict[str, m.Reservation] = {}
    for number in range(3):
        sale = m.Sale(f"s{number}", (m.Item("i", 2_000, price_minor=number),), opens_at_ms=1)
        await ledger.execute(1, [m.CreateSale(sale)])
        ids = [ledger.new_id(sale.id, f"b{n}") for n in range(700)]
        await ledger.execute(1, [m.Reserve(id, sale.id, "i", f"b{n}", 1, "") for n, id in enumerate(ids)])
        foreign = f"of-another-kind-{number}"
        await ledger.execute(1, [m.Reserve(foreign, sale.id, "i", "b", 1, "")])
        await ledger.execute(2, [m.Cancel(ids[0])])
        for id in (*ids, foreign):
            found = await ledger.reservation(id)
            assert found is not None
            made[id] = found
        pages = [page async for page in records.pages()]
        assert {row.id: row for page in pages for row in page} == made
        assert max(map(len, pages)) <= 1_000
        assert await records.reservations([*made, "unknown", "0" * 32 + "-9.9"]) == made
        assert records.prices.of(sale.id, "i") == (number, "CNY")
    await records.close()
    await ledger.close()


@in_loop
async def test_one_reader_at_a_time_has_its_turn(valkey_url: str) -> None:
    one, other = RedisRecords(valkey_url, "one"), RedisRecords(valkey_url, "other")
    await one.open()
    await other.open()
    assert [await each.turn(2) for each in (one, other, one)] == [True, False, False]
    await asyncio.sleep(2.1)
    assert await other.turn(2)
    await one.close()
    await other.close()
