"""A node with many sales, on a real server: what one batch costs, and holds of many books that expire together."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any, NoReturn
from unittest.mock import patch

import pytest

from tests.contract.nodes import do, node
from ticketrush import model as m
from ticketrush.ledger import redis_node
from ticketrush.ledger.redis import RedisLedger
from ticketrush.ledger.redis_sale import KEYS_MS

HOLD_MS = 10_000


def sale(id: str, **more: Any) -> m.Sale:
    return m.Sale(id, (m.Item("i", 10_000),), opens_at_ms=0, hold_window_ms=HOLD_MS, **more)


class Unlisted(dict[str, Any]):
    """Sales that may be asked for, but not gone through."""

    def _refuse(self, *_: object) -> NoReturn:
        raise AssertionError("a batch goes through all sales")

    values = items = keys = __iter__ = _refuse


async def buy_one_of_many(url: str) -> None:
    async with node(url, "ann") as ann:
        for number in range(101):
            await do(ann, m.CreateSale(sale(f"s{number}")))
        ann._watch.is_reaper = True
        with patch.object(ann._node, "sales", Unlisted(ann._node.sales)):
            await ann.execute(1_000, [m.Reserve(f"r{n}", "s7", "i", f"b{n}", 1, "") for n in range(10)])
            assert ann.next_expiry_at_ms() == 1_000 + HOLD_MS
            assert await ann.execute(1_000 + HOLD_MS, [m.Expire()]) == [m.ExpiredSome(10, more=False)]
            assert ann.next_expiry_at_ms() is None


def test_a_batch_goes_through_no_sale_but_its_own(valkey_url: str) -> None:
    asyncio.run(buy_one_of_many(valkey_url))


async def ask_for_unknown_ones(url: str) -> Counter[str]:
    async with node(url, "ann") as ann, node(url, "bob") as bob:
        for number in range(3):
            await do(bob, m.CreateSale(sale(f"s{number}")))
        before = Counter(ann.calls())
        with patch.object(redis_node, "DISCOVER_S", 60.0):  # however long these take
            for number in range(20):
                outcome = await do(ann, m.Reserve(f"r{number}", f"none{number}", "i", "b", 1, ""))
                assert outcome == m.Refused(m.Reason.UNKNOWN_SALE)
        await asyncio.sleep(1.2 * redis_node.DISCOVER_S)
        assert isinstance(await do(ann, m.Reserve("r", "s1", "i", "b", 1, "")), m.Reserved)
        return Counter(ann.calls()) - before


def test_who_asks_for_sales_that_are_not_there_costs_one_small_call_in_a_while(valkey_url: str) -> None:
    calls = asyncio.run(ask_for_unknown_ones(valkey_url))
    assert calls["hgetall"] == 0
    assert calls["hmget"] <= 4


async def hold_in_turns(ann: RedisLedger, sales: int, each: int) -> list[str]:
    """Reservations that fall due one after the other, each in the next sale; their ids in that order."""
    for number in range(sales):
        await do(ann, m.CreateSale(sale(f"s{number}")))
    ids: list[str] = []
    for turn in range(each):
        for number in range(sales):
            ids.append(f"r{len(ids)}")
            asks = [m.Reserve(ids[-1], f"s{number}", "i", f"b{turn}", 1, "")]
            await ann.execute(1_000 + len(ids), asks)
    return ids


async def expired(ann: RedisLedger, ids: list[str]) -> list[str]:
    rows = [await ann.reservation(id) for id in ids]
    return [row.id for row in rows if row is not None and row.state is m.State.EXPIRED]


async def expire_over_books(url: str) -> None:
    async with node(url, "ann") as ann:
        ids = await hold_in_turns(ann, 5, 12)
        for id in ids[3:9]:
            await do(ann, m.Cancel(id))
        now_ms = 1_000 + len(ids) + HOLD_MS
        assert await ann.execute(now_ms - 20, [m.Expire(10)]) == [m.ExpiredSome(10, more=True)]
        assert await expired(ann, ids) == [*ids[:3], *ids[9:16]], "the oldest of all"
        before = Counter(ann.calls())
        assert await ann.execute(now_ms, [m.Expire()]) == [m.ExpiredSome(44, more=False)]
        assert (Counter(ann.calls()) - before)["expire"] <= 5, "the books go side by side, each once"


def test_the_oldest_holds_of_all_books_expire_in_few_calls(valkey_url: str) -> None:
    asyncio.run(expire_over_books(valkey_url))


async def expire_very_many(url: str) -> None:
    async with node(url, "ann") as ann:
        await do(ann, m.CreateSale(sale("s")))
        for first in range(0, 2_500, 500):
            await ann.execute(1_000, [m.Reserve(f"r{first + n}", "s", "i", f"b{n}", 1, "") for n in range(500)])
        sizes = []
        real_book = ann._node.book

        async def book(*args: Any, **more: Any) -> Any:
            reply = await real_book(*args, **more)
            if args[2] == "expire":
                sizes.append(reply[8])
            return reply

        with patch.object(ann._node, "book", book):
            assert await ann.execute(1_000 + HOLD_MS, [m.Expire(10_000)]) == [m.ExpiredSome(2_500, more=False)]
        assert sizes == [1_000, 1_000, 500]


def test_one_script_expires_no_more_than_other_calls_can_wait_for(valkey_url: str) -> None:
    asyncio.run(expire_very_many(valkey_url))


async def outlive(url: str) -> None:
    async with node(url, "ann") as ann:
        await do(ann, m.CreateSale(sale("s")))
        (first,) = await ann.execute(1_000, [m.Reserve("r", "s", "i", "b", 1, "k")])
        await ann.execute(2_000, [m.CloseSale("s")])
        known = ann._node.sales["s"]
        await ann._node.look(known, 0)
        assert (ann.remembers("s", "k"), ann.remembers("s", "other")) == (True, False)
        await ann.execute(3_000 + HOLD_MS + KEYS_MS, [m.Expire()])
        await ann._node.look(known, 0)
        assert not known.keys
        assert ann.remembers("s", "k"), "never false too late: the books are asked"
        again = await do(ann, m.Reserve("r2", "s", "i", "b", 1, "k"))
        assert isinstance(again, m.Reserved)
        assert isinstance(first, m.Reserved)
        assert again.replayed
        assert again.reservation.id == first.reservation.id


def test_the_keys_of_a_sale_that_is_long_over_are_asked_of_the_books(valkey_url: str) -> None:
    asyncio.run(outlive(valkey_url))


@pytest.mark.parametrize("newer_first", [True, False])
def test_an_answer_of_an_older_epoch_never_replaces_one_of_a_newer(valkey_url: str, newer_first: bool) -> None:
    """After a recovery on a server that has forgotten events, their numbers begin lower."""

    async def story() -> None:
        async with node(valkey_url, "ann") as ann:
            await do(ann, m.CreateSale(sale("s")))
            known = ann._node.sales["s"]
            book = known.books[0]
            old = ["ok", 1_000, 50, 30, 40, 40, False, {"i": [40, 0, 0, 0]}, False, 1]
            new = ["ok", 1_000, 60, 20, 25, 45, False, {"i": [25, 0, 0, 0]}, False, 3]
            for reply in (new, old) if newer_first else (old, new):
                ann._node._learn(known, 0, reply)
            assert (book.epoch, book.seq, book.levels["i"]) == (3, 25, (25, 0))
            assert book.known_seq == 0, "which of those events are the ones that it knew is open"
            assert (not book.ahead) or set(book.ahead) == {20}

    asyncio.run(story())


def test_an_answer_without_news_hides_none_that_is_ahead(valkey_url: str) -> None:
    async def story() -> None:
        async with node(valkey_url, "ann") as ann:
            await do(ann, m.CreateSale(sale("s")))
            book = ann._node.sales["s"].books[0]
            for before, seq in ((5, 8), (5, 5), (1, 5)):
                book.follow(before, seq)
            assert book.known_seq == 8

    asyncio.run(story())
