"""`ticketrush.open`: the desk in somebody else's program, as the README shows it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

import ticketrush
from ticketrush import Item, JournalLocked, Reason, Refused, Reserved, Sale, State


def sale(capacity: int = 10) -> Sale:
    return Sale("g1", (Item("second", capacity, purchase_limit=2),), opens_at_ms=0)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/tickets.db"


def test_a_desk_sells_as_the_readme_shows(url: str) -> None:
    async def story() -> None:
        async with ticketrush.open(url) as desk:
            await desk.create_sale(sale())
            outcome = await desk.reserve("g1", "second", "ada", key="my-first-try")
            assert isinstance(outcome, Reserved)
            paid = await desk.confirm(outcome.reservation.id, "payment-1")
            assert isinstance(paid, ticketrush.Changed)
            again = await desk.reserve("g1", "second", "ada", key="my-first-try")
            assert isinstance(again, Reserved)
            assert (again.replayed, again.reservation.state) == (True, State.PAID)
            beyond = await desk.reserve("g1", "second", "ada", 2)
            assert beyond == Refused(Reason.PURCHASE_LIMIT)
            report = await desk.audit()
            assert report.ok

    asyncio.run(story())


def test_a_desk_that_is_opened_again_knows_every_reservation(url: str) -> None:
    async def sell() -> str:
        async with ticketrush.open(url) as desk:
            await desk.create_sale(sale())
            outcome = await desk.reserve("g1", "second", "ada", key="k1")
            assert isinstance(outcome, Reserved)
            return outcome.reservation.id

    async def look(id: str) -> None:
        async with ticketrush.open(url) as desk:
            reservation = await desk.reservation(id)
            assert reservation is not None
            assert (reservation.buyer, reservation.state) == ("ada", State.HELD)
            again = await desk.reserve("g1", "second", "ada", key="k1")
            assert isinstance(again, Reserved)
            assert (again.replayed, again.reservation.id) == (True, id)
            stock = desk.stock("g1")
            assert stock is not None
            assert (stock.levels[0].available, stock.levels[0].held) == (9, 1)

    asyncio.run(look(asyncio.run(sell())))


def test_a_journal_has_one_owner_at_a_time(url: str) -> None:
    async def story() -> None:
        async with ticketrush.open(url) as desk:
            await desk.create_sale(sale())
            with pytest.raises(JournalLocked, match=r"tickets\.db"):
                await ticketrush.open(url).start()
            assert isinstance(await desk.reserve("g1", "second", "ada"), Reserved)
        async with ticketrush.open(url) as desk:
            assert desk.stock("g1") is not None

    asyncio.run(story())


def test_many_at_once_get_exactly_what_there_is(url: str) -> None:
    async def story() -> None:
        async with ticketrush.open(url) as desk:
            await desk.create_sale(sale(100))
            outcomes = await asyncio.gather(*(desk.reserve("g1", "second", f"buyer-{n}") for n in range(1_000)))
            assert sum(isinstance(outcome, Reserved) for outcome in outcomes) == 100
            refused = {outcome.reason for outcome in outcomes if isinstance(outcome, Refused)}
            assert refused == {Reason.ALL_HELD}

    asyncio.run(story())


def test_a_caller_who_gives_up_leaves_no_stuck_queue(url: str) -> None:
    async def story() -> None:
        async with ticketrush.open(url) as desk:
            await desk.create_sale(sale(100))
            tasks = [asyncio.create_task(desk.reserve("g1", "second", f"buyer-{n}", key=f"k{n}")) for n in range(50)]
            await asyncio.sleep(0)
            for task in tasks[::2]:
                task.cancel()
            stayed = await asyncio.gather(*tasks[1::2])
            assert all(isinstance(outcome, Reserved) for outcome in stayed)
            for task in tasks[::2]:
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            assert desk.waiting == 0
            async with asyncio.timeout(5):
                assert isinstance(await desk.reserve("g1", "second", "ada"), Reserved)
                again = await desk.reserve("g1", "second", "buyer-0", key="k0")
            assert isinstance(again, Reserved)  # whether or not the first one happened, there is one now
            stock = desk.stock("g1")
            assert stock is not None
            assert 27 <= stock.levels[0].held <= 51
            assert (await desk.audit()).ok

    asyncio.run(story())


def test_an_impatient_caller_can_ask_again_with_the_same_key(url: str) -> None:
    async def story() -> None:
        async with ticketrush.open(url) as desk:
            await desk.create_sale(sale())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0):
                    await desk.reserve("g1", "second", "ada", key="k1")
            outcomes = [await desk.reserve("g1", "second", "ada", key="k1") for _ in range(2)]
            assert all(isinstance(outcome, Reserved) for outcome in outcomes)
            stock = desk.stock("g1")
            assert stock is not None
            assert stock.levels[0].held == 1

    asyncio.run(story())


def test_a_closed_desk_refuses_and_does_not_hang(url: str) -> None:
    async def story() -> None:
        async with ticketrush.open(url) as desk:
            await desk.create_sale(sale())
        async with asyncio.timeout(5):
            outcome = await desk.reserve("g1", "second", "ada")
            await desk.close()
        assert isinstance(outcome, Refused)
        assert outcome.reason is Reason.UNAVAILABLE

    asyncio.run(story())


@pytest.mark.parametrize(
    ("item", "buyer", "quantity", "key"),
    [
        ("a b", "ada", 1, ""),
        ("second", "", 1, ""),
        ("second", "a b", 1, ""),
        ("second", "ada", 0, ""),
        ("second", "ada", 10**6, ""),
        ("second", "ada", 1, "a b"),
        ("second", "ada", 1, "x" * 129),
    ],
)
def test_a_desk_refuses_arguments_out_of_bounds(url: str, item: str, buyer: str, quantity: int, key: str) -> None:
    async def story() -> None:
        async with ticketrush.open(url) as desk:
            await desk.create_sale(sale())
            with pytest.raises(ticketrush.InvalidRequest):
                await desk.reserve("g1", item, buyer, quantity, key=key)

    asyncio.run(story())


@pytest.mark.parametrize("wrong", ["redis+nothing://localhost", "sqlite:///", "tickets.db", ""])
def test_a_url_that_is_not_a_journal_is_refused(wrong: str) -> None:
    with pytest.raises(ticketrush.SettingsError):
        ticketrush.open(wrong)


def test_a_journal_has_one_owner_also_under_another_name(url: str, tmp_path: Path) -> None:
    async def story() -> None:
        async with ticketrush.open(url):
            (tmp_path / "now.db").symlink_to(tmp_path / "tickets.db")
            with pytest.raises(JournalLocked):
                await ticketrush.open(f"sqlite:///{tmp_path}/now.db").start()
        (tmp_path / "hard.db").hardlink_to(tmp_path / "tickets.db")
        with pytest.raises(ticketrush.JournalError, match="second name"):
            await ticketrush.open(url).start()

    asyncio.run(story())


def test_a_closed_desk_says_so(url: str) -> None:
    async def story() -> None:
        desk = ticketrush.open(url)
        async with desk:
            pass
        with pytest.raises(ticketrush.TicketrushError, match="make a new one"):
            await desk.start()

    asyncio.run(story())


@pytest.mark.parametrize("pause_s", [0.0, 0.0005])
def test_reading_is_answered_while_commits_follow_each_other_without_a_pause(url: str, pause_s: float) -> None:
    async def story() -> None:
        async with ticketrush.open(url) as desk:
            await desk.create_sale(Sale("g1", (Item("second", 1_000_000),), opens_at_ms=0))
            first = await desk.reserve("g1", "second", "ada")
            assert isinstance(first, Reserved)
            selling = True

            async def crowd(name: str) -> None:
                while selling:
                    await desk.reserve("g1", "second", name)
                    await asyncio.sleep(pause_s)

            crowds = [asyncio.create_task(crowd(f"buyer-{n}")) for n in range(20)]
            await asyncio.sleep(0.1)
            for _ in range(50):
                async with asyncio.timeout(10):
                    assert await desk.reservation(first.reservation.id) == first.reservation
            assert (await desk.audit()).ok
            selling = False
            await asyncio.gather(*crowds)

    asyncio.run(story())


@pytest.mark.parametrize("quantity", [1.5, True, "1", None])
def test_a_quantity_that_a_journal_could_not_give_back_is_refused(url: str, quantity: Any) -> None:
    async def story() -> None:
        async with ticketrush.open(url) as desk:
            await desk.create_sale(sale())
            with pytest.raises(ticketrush.InvalidRequest):
                await desk.reserve("g1", "second", "ada", quantity)
            with pytest.raises(ticketrush.InvalidRequest):
                await desk.add_stock("g1", "second", quantity, key="k1")

    asyncio.run(story())


@pytest.mark.parametrize("id", ["\ud800", "", "a b", "抢", "x" * 129, 4711, None])
def test_what_can_be_no_id_is_unknown_like_any_other(url: str, id: Any) -> None:
    unknown_sale, unknown = Refused(Reason.UNKNOWN_SALE), Refused(Reason.UNKNOWN_RESERVATION)

    async def story() -> None:
        async with ticketrush.open(url) as desk:
            await desk.create_sale(sale())
            assert await desk.reserve(id, "second", "ada") == unknown_sale
            assert [await desk.open_sale(id), await desk.close_sale(id)] == [unknown_sale] * 2
            assert await desk.add_stock(id, "second", 1, key="k") == unknown_sale
            assert await desk.add_stock("g1", id, 1, key="k") == Refused(Reason.UNKNOWN_ITEM)
            assert [await desk.cancel(id), await desk.refund(id), await desk.confirm(id, "p")] == [unknown] * 3
            assert await desk.reservation(id) is None

    asyncio.run(story())


@pytest.mark.parametrize("payment", [4711, None, b"p", "", "a\n", "x" * 129])
def test_a_payment_that_a_journal_could_not_give_back_is_refused(url: str, payment: Any) -> None:
    async def story() -> None:
        async with ticketrush.open(url) as desk:
            await desk.create_sale(sale())
            held = await desk.reserve("g1", "second", "ada")
            assert isinstance(held, Reserved)
            with pytest.raises(ticketrush.InvalidRequest):
                await desk.confirm(held.reservation.id, payment)

    asyncio.run(story())


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sale("g1", (Item("second", 10),), opens_at_ms=cast("int", 1_700_000_000_000.5)),
        lambda: Sale("g1", (Item("second", 10),), hold_window_ms=cast("int", 300_000.0)),
        lambda: Sale("g1", cast("tuple[Item, ...]", [Item("second", 10)])),
        lambda: Item("second", cast("int", 10.0)),
        lambda: Item("second", 10, purchase_limit=cast("int", 1.5)),
        lambda: Item("second", 10, price_minor=cast("int", 0.5)),
    ],
)
def test_a_sale_that_a_journal_could_not_give_back_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="not a"):
        make()
