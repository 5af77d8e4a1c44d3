"""What every order store promises, on a file and on a real server."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest

from tests.orders import REFUSES, by_hand, claim, ended, held, paid, rows_in, tell
from ticketrush.orders.errors import NoticeRefused, StoreOutdated, StoreUnavailable
from ticketrush.orders.model import PAYLOAD_MAX, DeadLetter, Kind, Notice, OrderState, Repair
from ticketrush.orders.protocol import OrderStore, Totals
from ticketrush.wiring import store_of

CANCELLED, EXPIRED, REFUNDED = (ended("o", kind) for kind in (Kind.CANCELLED, Kind.EXPIRED, Kind.REFUNDED))


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store that nobody has used before."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/orders.db"
    return str(request.getfixturevalue("postgres_url"))


# --- orders ---------------------------------------------------------------------------------


@pytest.mark.parametrize("one_by_one", [True, False])
@pytest.mark.parametrize(
    ("notices", "state"),
    [
        ([held("o")], OrderState.HELD),
        ([held("o"), paid("o")], OrderState.PAID),
        ([held("o"), paid("o"), REFUNDED], OrderState.REFUNDED),
        ([held("o"), CANCELLED], OrderState.CANCELLED),
        ([held("o"), EXPIRED], OrderState.EXPIRED),
        ([paid("o")], OrderState.INCOMPLETE),
        ([paid("o"), REFUNDED], OrderState.INCOMPLETE),
        ([held("o"), REFUNDED], OrderState.INCOMPLETE),
        ([CANCELLED], OrderState.INCOMPLETE),
    ],
)
def test_the_order_of_notices_does_not_matter(
    url: str, notices: list[Notice], state: OrderState, one_by_one: bool
) -> None:
    async def story(store: OrderStore) -> None:
        orders = []
        for number, order in enumerate(itertools.permutations(notices)):
            mine = [Notice(f"o{number}", each.kind, each.at_ms, each.claim, each.payment) for each in order]
            for part in [[each] for each in mine] if one_by_one else [mine]:
                await store.put(part)
            orders.append(await store.order(f"o{number}"))
        told = {(each.state, each.claim, each.payment, each.held_at_ms, each.paid_at_ms) for each in orders if each}
        first = {each.kind: each for each in notices}
        held_at, paid_at = (first[kind].at_ms if kind in first else None for kind in (Kind.HELD, Kind.PAID))
        payment = "p-1" if Kind.PAID in first else ""
        assert told == {(state, claim() if held_at else None, payment, held_at, paid_at)}

    tell(url, story)


def test_a_repetition_changes_nothing(url: str) -> None:
    async def story(store: OrderStore) -> None:
        await store.put([held("o"), paid("o")])
        before = await store.order("o")
        await store.put([paid("o"), held("o"), paid("o")])
        assert await store.order("o") == before

    tell(url, story)


def test_of_two_times_of_the_same_thing_the_first_stays(url: str) -> None:
    async def story(store: OrderStore) -> None:
        await store.put([held("o", at_ms=10), held("o", at_ms=9)])
        await store.put([held("o", at_ms=11), paid("o", at_ms=20)])
        await store.put([paid("o", at_ms=19)])
        order = await store.order("o")
        assert order is not None
        assert (order.held_at_ms, order.paid_at_ms) == (10, 20)

    tell(url, story)


def test_the_key_that_was_asked_with_is_kept(url: str) -> None:
    async def story(store: OrderStore) -> None:
        await store.put([paid("with")])
        await store.put([held("with", claim(key="k-1")), held("without", claim())])
        orders = await store.page(0, 9)
        assert {each.id: each.claim and each.claim.key for each in orders} == {"with": "k-1", "without": ""}

    tell(url, story)


def test_the_latest_and_the_earliest_time_are_kept_to_the_millisecond(url: str) -> None:
    async def story(store: OrderStore) -> None:
        await store.put([held("a", at_ms=0), held("z", at_ms=253_402_300_799_999), paid("z", at_ms=1_700_000_000_001)])
        first, last = await store.order("a"), await store.order("z")
        assert first is not None
        assert last is not None
        assert (first.held_at_ms, last.held_at_ms, last.paid_at_ms) == (0, 253_402_300_799_999, 1_700_000_000_001)

    tell(url, story)


CONTRADICTIONS = [
    (paid("o"), CANCELLED),
    (paid("o"), EXPIRED),
    (CANCELLED, EXPIRED),
    (CANCELLED, REFUNDED),
    (EXPIRED, REFUNDED),
    (held("o"), held("o", claim("bob"))),
    (held("o"), held("o", claim(quantity=2))),
    (held("o", claim(key="k-1")), held("o", claim(key="k-2"))),
    (held("o", claim(key="k-1")), held("o")),
    (paid("o"), paid("o", "p-2")),
]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("pair", [*CONTRADICTIONS, *((after, before) for before, after in CONTRADICTIONS)])
def test_a_contradiction_is_refused_and_nothing_of_the_batch_is_written(
    url: str, pair: tuple[Notice, Notice], together: bool
) -> None:
    async def story(store: OrderStore) -> None:
        known, wrong = pair
        if not together:
            await store.put([known])
        before = await rows_in(store)
        letter, repair = DeadLetter("log/1", b"", "", 1), Repair("o", "", "", "", 1)
        with pytest.raises(NoticeRefused, match="order o "):
            await store.put(
                [held("a"), *([known] if together else []), wrong, held("z")],
                dead=[letter],
                repairs=[repair],
                position=("log", "1"),
            )
        assert await rows_in(store) == before
        assert not await store.dead_letters(after=0, limit=9)
        assert not await store.repairs(limit=9)
        assert await store.position("log") is None
        await store.put([held("a"), known])  # and the store is as good as before
        assert (await store.states(["a", "o", "z"])).keys() == {"a", "o"}

    tell(url, story)


@pytest.mark.parametrize(
    ("notice", "why"),
    [
        (held("o", claim("an\0n")), r"no store can write '\\x00'"),
        (paid("o\0"), r"no store can write '\\x00'"),
        (held("o", claim(key="k\0")), r"no store can write '\\x00'"),
        (held("o", claim(key="k\ud800")), r"no store can write '\\ud800'"),
        (held("o", claim(quantity=0)), "1 at least"),
    ],
)
def test_what_cannot_be_stored_is_refused(url: str, notice: Notice, why: str) -> None:
    async def story(store: OrderStore) -> None:
        with pytest.raises(NoticeRefused, match=why):
            await store.put([held("a"), notice])
        assert not await rows_in(store)

    tell(url, story)


@pytest.mark.parametrize(
    "sql",
    [
        "update orders set paid_at = null, payment = null where id = 'paid'",
        "update orders set refunded_at = null where id = 'refunded'",
        "update orders set buyer = 'bob' where id = 'held'",
        "update orders set key = 'k-2' where id = 'held'",
        "update orders set key = null where id = 'held'",
        "update orders set cancelled_at = held_at where id = 'paid'",
        "update orders set expired_at = held_at where id = 'cancelled'",
        "update orders set refunded_at = held_at where id = 'cancelled'",
        "update orders set paid_at = held_at where id = 'held'",  # without a payment
        "update orders set amount_minor = 1 where id = 'held'",
        "update orders set held_at = expires_at where id = 'held'",
        "update orders set id = 'other' where id = 'held'",
        "update orders set quantity = 0 where id = 'held'",
        "delete from orders where id = 'held'",
    ],
)
def test_the_tables_refuse_what_no_notice_could_say(url: str, sql: str) -> None:
    async def story(store: OrderStore) -> None:
        await store.put([held(id) for id in ("held", "paid", "refunded", "cancelled")])
        await store.put([paid("paid"), paid("refunded"), ended("refunded", Kind.REFUNDED)])
        await store.put([ended("cancelled", Kind.CANCELLED)])

    tell(url, story)
    before = tell(url, rows_in)
    with pytest.raises(REFUSES):
        by_hand(url, sql)
    assert tell(url, rows_in) == before
    by_hand(url, "update orders set paid_at = held_at, payment = 'cash' where id = 'held'")  # what one could, they take
    assert tell(url, rows_in)["held"][0] == OrderState.PAID


def test_all_orders_cannot_be_emptied_at_once(postgres_url: str) -> None:
    tell(postgres_url, lambda store: store.put([held("o")]))
    with pytest.raises(REFUSES):
        by_hand(postgres_url, "truncate orders")


# --- reading --------------------------------------------------------------------------------


def test_a_buyer_sees_the_newest_orders_first_and_page_by_page(url: str) -> None:
    async def story(store: OrderStore) -> None:
        for number in range(5):
            await store.put([held(f"ann-{number}"), held(f"bob-{number}", claim("bob"))])
        await store.put([paid("nobody-knows")])
        await store.put([held("half", claim()), ended("half", Kind.REFUNDED)])  # incomplete: not paid yet
        first = await store.orders_of("ann", before=None, limit=3)
        rest = await store.orders_of("ann", before=first[-1].number, limit=3)
        assert [each.id for each in (*first, *rest)] == [f"ann-{number}" for number in (4, 3, 2, 1, 0)]
        assert await store.orders_of("carol", before=None, limit=3) == []

    tell(url, story)


def test_all_orders_page_by_page_the_oldest_first(url: str) -> None:
    async def story(store: OrderStore) -> None:
        for number in range(5):
            await store.put([paid(f"o{number}")])
        seen: list[str] = []
        after = 0
        while page := await store.page(after, 2):
            seen += [each.id for each in page]
            after = page[-1].number
        assert seen == [f"o{number}" for number in range(5)]

    tell(url, story)


def test_states_and_totals(url: str) -> None:
    async def story(store: OrderStore) -> None:
        assert await store.totals() == []
        await store.put([held("a"), held("b", claim(quantity=3)), held("c", claim(sale="g2")), paid("c"), paid("d")])
        assert await store.states(["a", "c", "d", "unheard"]) == {
            "a": OrderState.HELD,
            "c": OrderState.PAID,
            "d": OrderState.INCOMPLETE,
        }
        assert await store.states([]) == {}
        assert set(await store.totals()) == {
            Totals("", "", OrderState.INCOMPLETE, 1, 0),
            Totals("g1", "second", OrderState.HELD, 2, 4),
            Totals("g2", "second", OrderState.PAID, 1, 1),
        }
        assert await store.order("unheard") is None

    tell(url, story)


# --- what else is kept ----------------------------------------------------------------------


def test_dead_letters_are_kept_once_until_they_are_settled(url: str) -> None:
    async def story(store: OrderStore) -> None:
        letters = [DeadLetter(f"log/{number}", b"\0{", "not JSON", 5 + number) for number in range(3)]
        await store.put([], dead=letters)
        await store.put([held("o")], dead=[*letters, letters[0]])
        first, second, third = await store.dead_letters(after=0, limit=9)
        assert [each.where for each in (first, second, third)] == ["log/0", "log/1", "log/2"]
        assert (first.payload, first.at_ms) == (b"\0{", 5)
        assert await store.dead_letters(after=first.number, limit=1) == [second]
        assert await store.settle(second.number, "given up", 9)
        assert not await store.settle(second.number, "given up", 9)
        assert not await store.settle(third.number + 1, "given up", 9)
        await store.put([], dead=letters)  # the log sends them once more
        assert await store.dead_letters(after=0, limit=9) == [first, third]

    tell(url, story)


def test_what_no_store_can_write_in_a_text_is_replaced(url: str) -> None:
    """A dead letter that could not be written would be tried for ever."""

    async def story(store: OrderStore) -> None:
        odd, clean = "no\0t \ud800JSON", "no\N{REPLACEMENT CHARACTER}t \N{REPLACEMENT CHARACTER}JSON"
        await store.put([], dead=[DeadLetter(odd, b"\0{", odd, 1)], repairs=[Repair("o", "held", "paid", odd, 1)])
        (letter,), (repair,) = await store.dead_letters(after=0, limit=9), await store.repairs(limit=9)
        assert (letter.where, letter.error, repair.reason) == (clean, clean, clean)
        assert await store.settle(letter.number, odd, 2)

    tell(url, story)


def test_of_a_long_message_the_beginning_is_kept(url: str) -> None:
    async def story(store: OrderStore) -> None:
        await store.put([], dead=[DeadLetter("log/1", b"x" * (PAYLOAD_MAX + 1), "too long", 1)])
        (letter,) = await store.dead_letters(after=0, limit=9)
        assert letter.payload == b"x" * PAYLOAD_MAX

    tell(url, story)


def test_repairs_are_kept_once_and_read_newest_first(url: str) -> None:
    async def story(store: OrderStore) -> None:
        repairs = [Repair(f"o{number}", "held", "paid", "the ledger says so", number) for number in range(3)]
        await store.put([], repairs=repairs)
        await store.put([], repairs=repairs)
        assert await store.repairs(limit=2) == [repairs[2], repairs[1]]

    tell(url, story)


def test_a_position_goes_with_what_was_read(url: str) -> None:
    async def story(store: OrderStore) -> None:
        assert await store.position("log") is None
        await store.put([held("o")], position=("log", "5"))
        await store.put([], position=("log", "6"))
        await store.put([], position=("other", "1"))
        assert (await store.position("log"), await store.position("other")) == ("6", "1")

    tell(url, story)


# --- many, again, and never -----------------------------------------------------------------


def test_workers_that_write_the_same_orders_do_not_stop_each_other(url: str) -> None:
    notices = [each for number in range(500) for each in (held(f"o{number}"), paid(f"o{number}"))]

    async def work(store: OrderStore, batch: list[Notice]) -> None:
        async with asyncio.timeout(60):
            await store.open()
            for start in range(0, len(batch), 100):
                await store.put(batch[start : start + 100])

    async def story(_: OrderStore) -> None:
        workers = [store_of(url) for _ in range(4)]
        try:
            await asyncio.gather(*(work(store, notices[:: (-1) ** number]) for number, store in enumerate(workers)))
        finally:
            for store in workers:
                await store.close()

    tell(url, story)
    assert tell(url, lambda store: store.totals()) == [Totals("g1", "second", OrderState.PAID, 500, 500)]


def test_what_was_put_is_there_when_the_store_is_opened_again(url: str) -> None:
    tell(url, lambda store: store.put([held("o"), paid("o")]))
    assert tell(url, lambda store: store.states(["o"])) == {"o": OrderState.PAID}


def test_a_store_that_is_not_open_is_unavailable(url: str) -> None:
    async def story(store: OrderStore) -> OrderStore:
        with pytest.raises(StoreUnavailable, match="not open"):
            await store_of(url).put([held("o")])
        return store

    closed = tell(url, story)
    with pytest.raises(StoreUnavailable, match="not open"):
        asyncio.run(closed.put([held("o")]))
    asyncio.run(closed.close())


# --- migrations -----------------------------------------------------------------------------


def test_a_store_without_tables_names_the_command_that_makes_them(url: str) -> None:
    async def story() -> None:
        store = store_of(url)
        with pytest.raises(StoreOutdated, match="ticketrush migrate --orders"):
            await store.open()
        await store.close()

    asyncio.run(story())


def test_each_migration_is_applied_once_whoever_else_tries(url: str) -> None:
    async def migrate() -> list[str]:
        store = store_of(url)
        try:
            return await store.migrate()
        finally:
            await store.close()

    async def story() -> None:
        store = store_of(url)
        pending = await store.pending()
        await store.close()
        applied = await asyncio.gather(*(migrate() for _ in range(4)))
        assert sorted(itertools.chain(*applied)) == pending != []
        assert await store.pending() == []
        await store.close()

    asyncio.run(story())


def test_tables_of_a_newer_program_are_left_alone(url: str) -> None:
    tell(url, lambda store: store.put([held("o")]))
    applied_at = "1" if url.startswith("sqlite") else "now()"
    by_hand(url, f"insert into schema_version (number, name, applied_at) values (9999, '9999_new', {applied_at})")

    async def story() -> None:
        store = store_of(url)
        for attempt in (store.open, store.migrate, store.pending):
            with pytest.raises(StoreOutdated, match="9999_new"):
                await attempt()
            await store.close()

    asyncio.run(story())


def test_tables_of_something_else_are_left_alone(url: str) -> None:
    by_hand(url, "create table orders (id text)")

    async def story() -> None:
        store = store_of(url)
        for attempt in (store.open, store.migrate):
            with pytest.raises(StoreOutdated):
                await attempt()
            await store.close()

    asyncio.run(story())
    assert by_hand(url, "select * from orders") == []
