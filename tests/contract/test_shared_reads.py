"""Reading a shared ledger while others write to it, and finding what others have made."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from unittest.mock import patch

import pytest

from tests.contract.nodes import do, node
from ticketrush import model as m
from ticketrush.events import Held
from ticketrush.ledger import redis_reads


def sale(id: str) -> m.Sale:
    return m.Sale(id, (m.Item("i", 10_000),), opens_at_ms=0)


async def read_while_another_buys(url: str, shards: int) -> None:
    async with node(url, "ann", shards=shards) as ann, node(url, "bob") as bob:
        await do(ann, m.CreateSale(sale("s")))
        bought = [m.Reserve("r0", "s", "i", "b0", 1, "")]
        await bob.execute(1_000, bought)
        real_run, looks, before = ann._link.run, 0, 0

        async def run(name: str, *args: Any, **more: Any) -> Any:
            nonlocal looks
            reply = await real_run(name, *args, **more)
            if name == "look":
                looks += 1
                bought.append(m.Reserve(f"r{len(bought)}", "s", "i", f"b{len(bought)}", 1, ""))
                await bob.execute(1_000, bought[-1:])
            return reply

        seen: list[str] = []
        with patch.object(ann._link, "run", run):
            for page in range(1, 6):
                before, looks = len(bought), 0
                events = await ann.events(len(seen), 1_000)
                seen += [event.id if isinstance(event, Held) else "" for _, event in events]
                assert [number for number, _ in events] == list(range(len(seen) - len(events) + 1, len(seen) + 1))
                assert {each.id for each in bought[:before]} <= set(seen), "all that was there before is read"
                assert looks <= 2 * shards, f"page {page} took {looks} looks"
        assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_page_is_read_in_two_looks_a_book_however_fast_others_buy(valkey_url: str, shards: int) -> None:
    asyncio.run(asyncio.wait_for(read_while_another_buys(valkey_url, shards), 60))


async def small_pages(url: str) -> None:
    async with node(url, "ann", shards=2) as ann:
        await do(ann, m.CreateSale(sale("s")))
        for batch in range(6):
            await ann.execute(
                1_000, [m.Reserve(f"r{batch}.{n}", "s", "i", f"b{batch}.{n}", 1, "") for n in range(batch + 1)]
            )
        whole = await ann.events(0, 1_000)
        assert len(whole) == 1 + 21
        for limit in (1, 2, 5, 22):
            for after in (0, 1, 3, 7, 21, 22, 2, 0):
                assert await ann.events(after, limit) == whole[after : after + limit], (after, limit)


def test_pages_of_any_size_are_parts_of_the_same_journal(valkey_url: str) -> None:
    asyncio.run(small_pages(valkey_url))


async def find_what_another_made(url: str) -> None:
    async with node(url, "ann") as ann, node(url, "bob", shards=2) as bob:
        await do(bob, m.CreateSale(sale("s")))
        id = bob.new_id("s", "b")
        await do(bob, m.Reserve(id, "s", "i", "b", 1, ""))
        found = await ann.reservation(id)
        assert found is not None
        assert found.buyer == "b"
        await do(bob, m.CreateSale(sale("t")))
        id = bob.new_id("t", "b")
        await do(bob, m.Reserve(id, "t", "i", "b", 1, ""))
        await asyncio.sleep(0.06)
        assert isinstance(await do(ann, m.Cancel(id)), m.Changed)


def test_a_reservation_in_a_sale_that_this_node_has_not_heard_of_is_found(valkey_url: str) -> None:
    asyncio.run(find_what_another_made(valkey_url))


IDS = ["mine", "my-order-7", "order-1.0", "order-9.9", "0123456789abcdef0123456789abcdef-ff.0", "0123456789abcdef" * 2]


async def give_ids(url: str) -> None:
    async with node(url, "ann", shards=2) as ann:
        for id in ("s", "t"):
            await do(ann, m.CreateSale(sale(id)))
        for number, id in enumerate(IDS):
            await do(ann, m.Reserve(id, "st"[number % 2], "i", f"b{number}", 1, ""))
            found = await ann.reservation(id)
            assert found is not None, id
            assert isinstance(await do(ann, m.Confirm(id, "p")), m.Changed), id
        for id in ("nobody's", "nobody-s", ann.new_id("s", "b")):
            assert await ann.reservation(id) is None


def test_ids_that_callers_choose_are_found_whatever_they_look_like(valkey_url: str) -> None:
    asyncio.run(give_ids(valkey_url))


def drawn(number: int) -> str:
    """An id as a node draws it for a sale that it has not heard of, which says not where it is."""
    return f"{number:032x}"


async def ask_for_anything(url: str) -> None:
    """Searches that take 10 ms, as with hundreds of sales, for many who ask for ever other ids."""
    async with node(url, "ann") as ann:
        await do(ann, m.CreateSale(sale("s")))
        await do(ann, m.Reserve(drawn(1), "s", "i", "b", 1, ""))
        reads, searched, real_search = ann._reads, 0, ann._reads._search

        async def search(id: str) -> tuple[str, int] | None:
            nonlocal searched
            searched += 1
            await asyncio.sleep(0.01)
            return await real_search(id)

        async def ask(first: int) -> None:
            for number in range(first, first + 1_000):
                assert await ann.reservation(drawn(number)) is None

        with patch.object(reads, "_search", search):
            asking = [asyncio.create_task(ask(1_000 * number)) for number in range(1, 5)]
            await asyncio.sleep(0.5)
            assert 1 <= searched <= 5, "a tenth of the time"
            began_s, before = time.monotonic(), searched
            for _ in range(5):
                assert isinstance(await do(ann, m.Confirm(drawn(1), "p")), m.Changed)
                assert await do(ann, m.Cancel(drawn(2))) == m.Refused(m.Reason.UNKNOWN_RESERVATION)
            assert searched >= before + 10, "what decides always looks"
            assert time.monotonic() - began_s < 0.5, "and waits for no read"
            for task in asking:
                task.cancel()


def test_who_reads_ids_that_are_nowhere_keeps_the_books_busy_for_a_tenth_of_the_time(valkey_url: str) -> None:
    asyncio.run(ask_for_anything(valkey_url))


async def ask_again(url: str) -> None:
    async with node(url, "ann") as ann:
        await do(ann, m.CreateSale(sale("s")))
        await do(ann, m.Reserve(drawn(1), "s", "i", "b", 1, ""))
        before = ann.calls()["hexists"]
        for _ in range(10):
            assert await ann.reservation(drawn(1)) is not None
            assert await ann.reservation(drawn(2)) is None
        assert ann.calls()["hexists"] == before + 2
        await do(ann, m.Reserve(drawn(2), "s", "i", "c", 1, ""))
        assert isinstance(await do(ann, m.Confirm(drawn(2), "p")), m.Changed), "nothing is decided from memory"
        with patch.object(redis_reads, "FOUND_MAX", 5):
            for number in range(3, 20):
                assert await ann.reservation(drawn(number)) is None
        assert len(ann._reads._found) <= 5
        ann._reads._found[drawn(2)] = (time.monotonic(), None)
        assert await ann.reservation(drawn(2)) is not None, "and for a moment only"


def test_what_came_of_a_search_is_remembered_for_a_moment_by_those_who_read(valkey_url: str) -> None:
    asyncio.run(ask_again(valkey_url))
