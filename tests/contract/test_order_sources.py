"""Event logs on servers: whatever happens to readers, each notice comes to somebody; what is wrong stops nobody."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.books import AT_MS, Books
from tests.in_loop import in_loop
from tests.order_sources import SOON_S, orders, read, reading, rest, settles
from tests.valkey import own_valkey, valkey, valkey_url
from ticketrush import events as ev
from ticketrush import model as m
from ticketrush.cluster.server import running
from ticketrush.cluster.topology import primaries, replicas, sentinels
from ticketrush.cluster.valkey import Valkey
from ticketrush.ledger.redis import RedisLedger
from ticketrush.orders.errors import SourceUnavailable
from ticketrush.orders.model import PAYLOAD_MAX, Kind
from ticketrush.orders.protocol import Message
from ticketrush.orders.streams import STREAMS_AT_ONCE, Streams

__all__ = ["valkey", "valkey_url"]

CLAIM_S: Final = 0.3


# --- the ledger's streams --------------------------------------------------------------------


@in_loop
async def test_a_group_is_told_what_a_ledger_did(valkey_url: str) -> None:
    ledger = RedisLedger(valkey_url, shards=2)
    await ledger.start()
    sale = m.Sale("s", (m.Item("i", 10, price_minor=250, currency="EUR"),), opens_at_ms=1)
    await ledger.execute(1, [m.CreateSale(sale)])
    ids = [ledger.new_id("s", f"b{n}") for n in range(4)]
    await ledger.execute(1, [m.Reserve(id, "s", "i", f"b{n}", 2, "k") for n, id in enumerate(ids)])
    await ledger.execute(2, [m.Confirm(ids[0], "pay-0"), m.Confirm(ids[1], "pay-1"), m.Cancel(ids[2])])
    await ledger.execute(3, [m.Refund(ids[1])])
    await ledger.close()
    for group in ("orders", "relay"):
        streams = Streams(valkey_url, group)
        async with reading(streams):
            told = [message.notice for message in await read(streams, 8)]
            assert await streams.lag() == 0
        assert {notice.id: notice.payment for notice in told if notice and notice.kind is Kind.PAID} == {
            f"{ids[0]}/paid": "pay-0",
            f"{ids[1]}/paid": "pay-1",
        }
        claims = {notice.order: notice.claim for notice in told if notice and notice.claim}
        assert set(claims) == set(ids)
        assert {(claim.buyer, claim.amount_minor, claim.currency, claim.key) for claim in claims.values()} == {
            (f"b{n}", 500, "EUR", "k") for n in range(4)
        }
        assert {notice.id for notice in told if notice} >= {f"{ids[1]}/refunded", f"{ids[2]}/cancelled"}


@in_loop
async def test_readers_of_a_group_share_the_work(valkey_url: str) -> None:
    ids = Books(valkey_url, "s", 3).create().sell(3_000)
    one, other = Streams(valkey_url), Streams(valkey_url)
    async with reading(one, other):
        found = Counter[str]()
        shares = [0, 0]
        while found.total() < len(ids):
            for number, streams in enumerate((one, other)):
                messages = await streams.next(200, 0.5)
                await streams.done()
                found += orders(messages)
                shares[number] += len(messages)
    assert found == Counter(ids)
    assert min(shares) > 0


class _AcknowledgesTooEarly(Streams):
    """A planted bug: what was read counts as done."""

    async def next(self, most: int, wait_s: float) -> Sequence[Message]:
        messages = await super().next(most, wait_s)
        await self.done()
        return messages


@pytest.mark.parametrize("kind", [Streams, _AcknowledgesTooEarly])
@in_loop
async def test_what_a_reader_did_not_finish_comes_to_another(valkey_url: str, kind: type[Streams]) -> None:
    ids = Books(valkey_url, "s", 2).create().sell(1_000)
    dead, alive = kind(valkey_url, claim_s=CLAIM_S), Streams(valkey_url, claim_s=CLAIM_S)
    async with reading(dead, alive):
        lost = orders(await dead.next(300, 1))
        assert len(lost) >= 300
        await asyncio.sleep(1.5 * CLAIM_S)
        found = orders([message for _ in range(3) for message in await rest(alive)])
        assert await alive.lag() == 0
    assert set(found) == (set(ids) if kind is Streams else set(ids) - set(lost))


@in_loop
async def test_a_reader_that_was_interrupted_is_told_again(valkey_url: str) -> None:
    """Whoever is cancelled while it waits for `next` has not got what came meanwhile."""
    books = Books(valkey_url, "s").create()
    streams = Streams(valkey_url, claim_s=CLAIM_S)
    found: list[Message] = []
    async with reading(streams):
        ids: list[str] = []
        for number in range(40):
            ids += books.sell(10, each=5)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.0001 * number):
                    found += await streams.next(5, 1)
            await streams.done()
        while len(orders(found)) < len(ids):
            found += await read(streams, 1)
    assert set(orders(found)) == set(ids)


@in_loop
async def test_what_cannot_be_understood_is_told_as_such(valkey_url: str) -> None:
    books = Books(valkey_url, "s").create()
    good = books.sell(10, each=5)
    junk = [
        books.write_fields({"other": b"x"}),
        books.write(b"\xc1"),
        books.write(b""),
        books.write(b"\x93\x01\x02\x03"),
        books.write(b"\x91" * 100_000),
    ]
    held = ev.Held(AT_MS, "id", "s", "no-such-item", "b", 1, "", AT_MS)
    mixed = books.write([*books.held(2), held, ev.Paid(AT_MS, "id", "")])
    good += books.sell(10)
    streams = Streams(valkey_url)
    async with reading(streams):
        messages = await rest(streams)
        assert await streams.lag() == 0
    wrong = {message.where: message.error for message in messages if message.notice is None}
    stream = books.books[0].events
    assert {f"{stream}/{id}/0" for id in junk} | {f"{stream}/{mixed}/{n}" for n in (2, 3)} <= set(wrong)
    assert all(wrong.values())
    assert set(good) < set(orders(messages))
    assert len(orders(messages)) == 22


@in_loop
async def test_a_sale_that_is_created_later_is_read_too(valkey_url: str) -> None:
    streams = Streams(valkey_url)
    async with reading(streams):
        assert await streams.next(10, 0.1) == []
        books = Books(valkey_url, "late", 2).create()
        ids = books.sell(10, each=10)  # in the first book; the other one has no stream yet
        assert set(orders(await read(streams, 10))) == set(ids)
        later = books.held(5)
        books.write(later, 1)
        assert set(orders(await read(streams, 5))) == {event.id for event in later}
        assert await streams.lag() == 0


@in_loop
async def test_all_comes_again_when_the_server_has_forgotten_the_group(valkey_url: str) -> None:
    books = Books(valkey_url, "s").create()
    ids = books.sell(100, each=10)
    streams = Streams(valkey_url)
    async with reading(streams):
        await read(streams, 100)
        books.client.xgroup_destroy(books.books[0].events, "orders")
        assert set(orders(await read(streams, 100))) == set(ids)
        books.client.flushdb()
        assert await streams.next(10, 0.1) == []
        again = Books(valkey_url, "s").create().sell(10)
        assert set(orders(await read(streams, 10))) == set(again)


@in_loop
async def test_a_reader_that_leaves_is_forgotten_where_it_left_nothing(valkey_url: str) -> None:
    books = Books(valkey_url, "s", 2).create()
    books.write(books.held(1), 1)
    streams = Streams(valkey_url)
    async with reading(streams):
        await rest(streams)
        books.sell(10)  # in the first book
        assert await streams.next(10, 1)  # and not done
    left = [books.client.xinfo_consumers(book.events, "orders") for book in books.books]
    assert [len(consumers) for consumers in left] == [1, 0]
    assert left[0][0]["pending"] == 1
    heir = Streams(valkey_url, claim_s=CLAIM_S)
    async with reading(heir):
        assert len(await read(heir, 10)) == 10


@in_loop
async def test_a_batch_is_as_large_as_was_asked_for(valkey_url: str) -> None:
    Books(valkey_url, "s", 4).create().sell(2_000, each=7)
    streams = Streams(valkey_url)
    async with reading(streams):
        sizes = []
        while messages := await streams.next(50, 0.2):
            sizes.append(len(messages))
            await streams.done()
    assert sum(sizes) == 2_000
    assert max(sizes) < 50 + 7
    assert len(sizes) < 2_000 / 40  # and not much smaller


@in_loop
async def test_the_lag_is_what_was_not_done(valkey_url: str) -> None:
    Books(valkey_url, "s").create().sell(100, each=10)
    streams = Streams(valkey_url)
    async with reading(streams):
        assert await streams.lag() == 11  # that the sale was created is an entry too
        await streams.next(30, 1)
        assert await streams.lag() >= 10  # read, and not done
        await streams.done()
        assert await streams.lag() < 10
        await rest(streams)
        assert await streams.lag() == 0


@in_loop
async def test_many_sales_all_have_their_turn(valkey_url: str) -> None:
    ids = [id for number in range(150) for id in Books(valkey_url, f"s{number}").create().sell(20, each=5)]
    streams = Streams(valkey_url)
    async with reading(streams):
        assert orders(await read(streams, len(ids))) == Counter(ids)
        assert await streams.lag() == 0


@in_loop
async def test_an_entry_of_a_dead_reader_is_found_soon_among_thousands_of_streams(valkey_url: str) -> None:
    for number in range(30 * STREAMS_AT_ONCE):
        Books(valkey_url, f"s{number}").create().client.close()
    dead, alive = Streams(valkey_url, claim_s=1), Streams(valkey_url, claim_s=1)
    async with reading(dead, alive):
        while await settles(dead):
            await rest(dead)
        await rest(alive)
        (looked_at_last,) = alive._groups.some(alive._claim_at - 1, 1)
        books = Books(valkey_url, looked_at_last.partition("{")[2].partition(":")[0])
        books._clocks = [1]
        ids = books.sell(1)
        assert set(orders(await dead.next(10, 5))) == set(ids)
        began_s = time.monotonic()
        assert set(orders(await read(alive, 1))) == set(ids)
        assert time.monotonic() - began_s < 6  # some of them each quarter of a second would take more than seven


@in_loop
async def test_what_no_server_would_take_is_cut_and_no_notice(valkey_url: str) -> None:
    books = Books(valkey_url, "s").create()
    huge = "x" * 2_000_000
    books.write_fields({"other": huge.encode()})
    books.write(
        [ev.Held(AT_MS, "id", "s", "second", huge, 1, "", AT_MS), ev.Held(AT_MS, "id", "s", huge, "b", 1, "", 0)]
    )
    good = books.sell(1)
    streams = Streams(valkey_url)
    async with reading(streams):
        messages = await rest(streams)
    assert set(orders(messages)) == set(good)
    assert [len(each.payload) for each in messages if each.notice is None] == [PAYLOAD_MAX] * 3
    assert max(len(each.error) for each in messages) <= 1_000


@in_loop
async def test_reading_goes_on_with_the_replica_that_took_over(tmp_path: Path) -> None:
    primary = Valkey(tmp_path, persistence="none")
    with running(primary), replicas(primary), sentinels(primary) as guards:
        streams = Streams(guards.url, claim_s=CLAIM_S)
        books = Books(primary.url, "s", 2).create()
        ids = books.sell(500, each=10)
        primary.ask("WAIT 1 2000")
        async with reading(streams):
            found = await read(streams, 100)
            found += await streams.next(50, 1)  # not done while the primary lives
            primary.kill()
            async with asyncio.timeout(SOON_S):
                while len(orders(found)) < len(ids):
                    with contextlib.suppress(SourceUnavailable):
                        found += await streams.next(100, 0.5)
                        await streams.done()
    assert set(orders(found)) == set(ids)


@in_loop
async def test_the_books_of_a_cluster_are_on_several_servers(tmp_path: Path) -> None:
    with primaries(tmp_path, 3, persistence="none") as cluster:
        ids = Books(cluster.url, "s", 6).create().sell(1_200)
        dead, alive = Streams(cluster.url, claim_s=CLAIM_S), Streams(cluster.url, claim_s=CLAIM_S)
        async with reading(dead, alive):
            assert await dead.next(200, 1)
            found = await read(alive, len(ids))
            found += await rest(alive)
            assert set(orders(found)) == set(ids)
            assert await alive.lag() == 0


@in_loop
async def test_a_server_that_is_away_is_an_error_in_time_and_not_an_end() -> None:
    with own_valkey("memory") as server:
        books = Books(server.url, "s").create()
        ids = books.sell(100, each=10)
        streams = Streams(server.url, claim_s=CLAIM_S)
        async with reading(streams):
            await streams.next(30, 1)
            server.kill()
            for call in (streams.done, lambda: streams.next(10, 0.1), streams.lag):
                with pytest.raises(SourceUnavailable):
                    await asyncio.wait_for(call(), 3)
            server.start()
            assert set(orders(await read(streams, 70) + await rest(streams))) <= set(ids)
            assert await streams.lag() == 0
