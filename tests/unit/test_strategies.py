"""The ways to deduct stock, and what is said of them: values, answers, the table, the page, the command."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

import httpx
import msgspec
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from ticketrush.audit import Told as ToldOf
from ticketrush.cli import app
from ticketrush.crowd import history as h
from ticketrush.crowd.errors import OptionError
from ticketrush.crowd.histogram import Histogram
from ticketrush.crowd.history import History, Latencies, Progress, Sample
from ticketrush.strategies.errors import StoreBusy
from ticketrush.strategies.options import StrategyOptions
from ticketrush.strategies.page import page
from ticketrush.strategies.product import RESERVE_FIRST
from ticketrush.strategies.result import Comparison, Measured, make
from ticketrush.strategies.rivals import Entry, entries
from ticketrush.strategies.server import create_app, order_of
from ticketrush.strategies.shop import OrderFirst, PayFirst, Strategy, Told
from ticketrush.strategies.sqlite import SqliteStore
from ticketrush.strategies.store import Books, Order, OrderState, Store
from ticketrush.strategies.table import summary

CROWD: Final = [order_of(f"buyer-{number}", "1") for number in range(100)]
ANN, BOB, CID = CROWD[:3]
OPTIONS: Final = StrategyOptions(buyers=1_000, tickets=100)


@asynccontextmanager
async def sqlite(folder: Path, capacity: int) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(folder / "stock.db")
    await store.open(capacity)
    try:
        yield store
    finally:
        await store.close()


def with_store(folder: Path, capacity: int, story: Callable[[SqliteStore], Awaitable[None]]) -> None:
    async def tell() -> None:
        async with sqlite(folder, capacity) as store:
            await story(store)

    asyncio.run(tell())


# --- the strategies --------------------------------------------------------------------------


def test_order_first_keeps_the_units_of_orders_that_nobody_pays(tmp_path: Path) -> None:
    async def story(store: SqliteStore) -> None:
        shop = OrderFirst(store)
        assert [await shop.order(each) for each in (ANN, BOB, CID)] == [Told.SUCCESS, Told.SUCCESS, Told.ALL_HELD]
        assert await shop.pay(ANN) is Told.PAID
        assert await shop.order(CID) is Told.ALL_HELD  # Bob's unit might come back, and never does
        assert await shop.pay(BOB) is Told.PAID
        assert await shop.order(CID) is Told.SOLD_OUT

    with_store(tmp_path, 2, story)


def test_pay_first_tells_success_to_more_than_there_are_units(tmp_path: Path) -> None:
    async def story(store: SqliteStore) -> None:
        shop = PayFirst(store)
        assert [await shop.order(each) for each in (ANN, BOB)] == [Told.SUCCESS, Told.SUCCESS]
        assert [await shop.pay(each) for each in (ANN, BOB)] == [Told.PAID, Told.REFUNDED]
        assert await shop.order(CID) is Told.SOLD_OUT

    with_store(tmp_path, 1, story)


@pytest.mark.parametrize("kind", [OrderFirst, PayFirst])
def test_a_request_sent_twice_is_one_order_and_one_payment(tmp_path: Path, kind: Callable[[Store], Strategy]) -> None:
    async def story(store: SqliteStore) -> None:
        shop = kind(store)
        assert await shop.order(ANN) is Told.SUCCESS
        assert await shop.order(ANN) is Told.SUCCESS_BEFORE
        assert await shop.pay(ANN) is await shop.pay(ANN) is Told.PAID
        assert (await store.look(ANN.id)).available == 1

    with_store(tmp_path, 2, story)


@pytest.mark.parametrize("kind", [OrderFirst, PayFirst])
def test_nobody_pays_for_the_order_of_another(tmp_path: Path, kind: Callable[[Store], Strategy]) -> None:
    async def story(store: SqliteStore) -> None:
        shop = kind(store)
        await shop.order(ANN)
        assert await shop.pay(Order(ANN.id, "bob")) is Told.UNKNOWN_ORDER
        assert await shop.pay(BOB) is Told.UNKNOWN_ORDER
        assert (await store.look(ANN.id)).state is OrderState.UNPAID

    with_store(tmp_path, 2, story)


def test_of_a_hundred_at_once_order_first_serves_exactly_five(tmp_path: Path) -> None:
    async def story(store: SqliteStore) -> None:
        shop = OrderFirst(store)
        told = await asyncio.gather(*map(shop.order, CROWD))
        assert told.count(Told.SUCCESS) == 5
        assert told.count(Told.ALL_HELD) == 95
        paid = await asyncio.gather(*map(shop.pay, CROWD))
        assert paid.count(Told.PAID) == 5

    with_store(tmp_path, 5, story)


def test_of_a_hundred_at_once_pay_first_serves_exactly_five_and_disappoints_the_rest(tmp_path: Path) -> None:
    async def story(store: SqliteStore) -> None:
        shop = PayFirst(store)
        assert set(await asyncio.gather(*map(shop.order, CROWD))) == {Told.SUCCESS}
        paid = await asyncio.gather(*map(shop.pay, CROWD))
        assert (paid.count(Told.PAID), paid.count(Told.REFUNDED)) == (5, 95)

    with_store(tmp_path, 5, story)


def test_the_books_count_what_is_paid_and_every_transaction(tmp_path: Path) -> None:
    async def story() -> Books:
        store = SqliteStore(tmp_path / "stock.db")
        await store.open(1)
        shop = OrderFirst(store)
        await shop.order(ANN)  # a look, and a transaction that changes something
        await shop.order(BOB)  # a look
        await shop.pay(ANN)
        return await store.close()

    assert asyncio.run(story()) == Books(paid=1, transactions=4)


def test_a_planted_oversale_is_stopped_by_the_table_itself(tmp_path: Path) -> None:
    class Careless(SqliteStore):
        def _change(self, name: str, order: Order) -> int:
            if name != "take":
                return super()._change(name, order)
            self._writer.execute("UPDATE stock SET available = available - 1")
            return 1

    async def story() -> None:
        store = Careless(tmp_path / "stock.db")
        await store.open(1)
        shop = PayFirst(store)
        for each in (ANN, BOB):
            await shop.order(each)
        await shop.pay(ANN)
        with pytest.raises(StoreBusy, match="CHECK constraint"):
            await shop.pay(BOB)
        assert (await store.close()).paid == 1

    asyncio.run(story())


# --- a small server --------------------------------------------------------------------------


class Fixed:
    """A strategy that always says the same."""

    name: ClassVar[str] = "fixed"

    def __init__(self, told: Told | StoreBusy) -> None:
        self.told = told

    async def order(self, order: Order) -> Told:
        if isinstance(self.told, StoreBusy):
            raise self.told
        return self.told

    pay = order


def post(strategy: Strategy, path: str, body: object = None, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(strategy))
        async with httpx.AsyncClient(transport=transport, base_url="http://small") as client:
            return await client.post(path, content=content, headers=headers)

    return asyncio.run(ask())


def ask_for(told: Told | StoreBusy, body: object = None, **headers: str) -> httpx.Response:
    headers = headers or {"x-buyer": "ann", "idempotency-key": "1"}
    body = body or {"item": "second", "quantity": 1}
    return post(Fixed(told), "/v1/sales/any/reservations", body, **headers)


@pytest.mark.parametrize(
    ("told", "status"), [(Told.SUCCESS, 201), (Told.SUCCESS_BEFORE, 200), (Told.SOLD_OUT, 409), (Told.ALL_HELD, 409)]
)
def test_an_order_is_answered_as_the_product_answers(told: Told, status: int) -> None:
    answer = ask_for(told)
    assert answer.status_code == status
    if status < 300:
        expected = {"id": order_of("ann", "1").id, "sale": "any", "item": "second", "quantity": 1, "state": "held"}
        assert answer.json() == expected
    else:
        assert answer.json()["code"] == told.value
        assert ("retry-after" in answer.headers) == (told is Told.ALL_HELD)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        ({"item": "second", "quantity": 2}, {}, 422),
        ({"item": "first", "quantity": 1}, {}, 422),
        ({"item": "second"}, {}, 400),
        ([1], {}, 400),
        (b'{"item":"\xff","quantity":1}', {}, 400),
        (b"[" * 100_000, {}, 400),
        (None, {"x-buyer": "ann"}, 422),
        (None, {"idempotency-key": "1"}, 422),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(body: object, headers: dict[str, str], status: int) -> None:
    answer = ask_for(Told.SUCCESS, body, **headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("told", "status", "says"),
    [
        (Told.PAID, 200, "approved"),
        (Told.REFUNDED, 409, "payment_refunded"),
        (Told.UNKNOWN_ORDER, 404, "unknown_order"),
    ],
)
def test_a_payment_is_answered_as_the_product_answers(told: Told, status: int, says: str) -> None:
    answer = post(Fixed(told), "/v1/orders/7/payment", {"card": "approve"}, **{"x-buyer": "ann"})
    assert (answer.status_code, says in answer.text) == (status, True)


def test_a_database_that_does_not_answer_is_unknown_and_not_sold_out() -> None:
    answer = ask_for(StoreBusy("SQLite: no answer in time"))
    assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "unknown", "1")


# --- options ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"buyers": 0}, "buyers is 0; it must be between 1 and"),
        ({"tickets": 0}, "tickets is 0"),
        ({"abandon": 1.5}, "abandon is 1.5"),
        ({"hold": 0.01}, "hold is 0.01"),
        ({"connections": 0}, "connections is 0"),
        ({"patience": -1}, "patience is -1"),
        ({"database": "oracle"}, "database is 'oracle'"),
        ({"postgres": "postgresql://me@db/x"}, "--database postgres or both"),
        ({"postgres": "mysql://me:secret@db/x", "database": "both"}, "must be a URL like postgresql://"),
    ],
)
def test_options_that_make_no_sense_are_named_with_what_they_may_be(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError) as raised:
        StrategyOptions(**wrong)
    assert says in str(raised.value)
    assert "secret" not in str(raised.value)


def test_patience_is_enough_for_all_rounds_of_abandoned_holds() -> None:
    few, many = StrategyOptions(tickets=10), StrategyOptions(tickets=10_000)
    assert few.patience_s < many.patience_s < StrategyOptions(tickets=10_000, abandon=0.6).patience_s
    assert StrategyOptions(tickets=1, abandon=0.0).patience_s > 0
    assert StrategyOptions(tickets=10, abandon=1.0).patience_s < 1_000
    assert StrategyOptions(patience=3).patience_s == 3


def test_every_strategy_is_measured_with_every_database() -> None:
    names = [entry.name for entry in entries(StrategyOptions(database="both"))]
    assert names == [
        *("order-first, sqlite", "pay-first, sqlite", "reserve-first, sqlite"),
        *("order-first, postgres", "pay-first, postgres", "reserve-first, postgres"),
    ]
    assert len(entries(StrategyOptions(database="postgres"))) == 3


# --- figures ---------------------------------------------------------------------------------


def history(**changes: Any) -> History:
    """A crowd of 1,000 of whom 100 got a ticket and 900 were told that all is sold."""
    latencies = Histogram()
    for each_us in range(1_000, 101_000, 1_000):
        latencies.record(each_us)
    answers = [0] * len(h.ANSWERS)
    answers[h.HELD] = answers[h.PAID] = 100
    answers[h.SOLD_OUT] = 900
    fields: dict[str, Any] = {
        "buyers": 1_000,
        "answers": answers,
        "told": ToldOf(acknowledged={str(n): ("b", "k", "s", "i", 1) for n in range(100)}),
        "latencies": {"reservation": Latencies(latencies.sparse(), latencies.largest_us)},
        "seconds": 2.0,
        "cpu_s": 1.0,
        "surge_reservations": 100,
        "surge_s": 0.1,
        "left_sold_out": 900,
        "gave_up": 0,
        "left_waiting": 0,
        "finished": True,
        "samples": [],
        "requests": [1_100],
        "came_s": 0.5,
        "came_answers": 1_000,
    }
    return History(**fields | changes)


def answers_with(**counts: int) -> list[int]:
    answers = list(history().answers)
    for name, count in counts.items():
        answers[h.ANSWERS.index(name)] = count
    return answers


def measured(
    strategy: str = RESERVE_FIRST, database: Any = "sqlite", books: Books | None = None, **changes: Any
) -> Measured:
    progress = [Progress(0.25, 600, answers_with(paid=40), 0), Progress(0.5, 1_000, answers_with(), 0)]
    books = books or Books(paid=100, transactions=250)
    return make(Entry(strategy, database), OPTIONS, history(**changes), books, progress)


def test_figures_come_from_the_buyers_and_from_the_books() -> None:
    figures = measured().figures
    assert figures.requests_per_s == 2_000  # a thousand answers until the last buyer came, in half a second
    assert figures.latency_ms == {"p50": pytest.approx(50, rel=0.02), "p99": pytest.approx(99, rel=0.02)}
    assert (figures.oversold, figures.undersold, figures.paid, figures.told_success) == (0, 0, 100, 100)
    assert figures.transactions_per_sale == 2.5
    assert figures.exact


def test_who_was_told_success_and_could_not_pay_is_oversold() -> None:
    assert measured(answers=answers_with(refunded=7)).figures.oversold == 7
    assert measured(books=Books(103, 1)).figures.oversold == 3


def test_what_is_left_is_undersold_only_if_somebody_wanted_it() -> None:
    assert measured(books=Books(60, 1)).figures.undersold == 40
    assert measured(books=Books(60, 1), left_sold_out=0).figures.undersold == 0
    assert measured(books=Books(60, 1), left_sold_out=5, left_waiting=3, gave_up=2).figures.undersold == 10


def test_without_a_last_buyer_the_rate_is_of_the_whole_time() -> None:
    figures = measured(came_s=0.0, came_answers=0, buyers=900).figures
    assert figures.requests_per_s == 550
    assert not figures.complete


@pytest.mark.parametrize(
    "planted",
    [
        measured(answers=answers_with(refunded=1)),
        measured(books=Books(101, 1)),
        measured(books=Books(99, 1)),
        measured(answers=answers_with(error=1)),
        measured(answers=answers_with(payment_error=1)),
        measured(buyers=999),
    ],
    ids=["told success in vain", "one too many", "one too few", "an error", "a payment error", "not everybody came"],
)
def test_a_promise_that_reserve_first_breaks_is_seen(planted: Measured) -> None:
    assert Comparison(OPTIONS, [measured()]).ok
    assert not Comparison(OPTIONS, [planted]).ok
    others = msgspec.structs.replace(planted, strategy="pay-first")
    assert Comparison(OPTIONS, [others, measured()]).ok


def comparison(database: Any = "both") -> Comparison:
    options = StrategyOptions(buyers=1_000, tickets=100, database=database)
    sample = Sample("reservation of 1 by c1-0", 500, "<script>alert(1)</script>")
    everything: list[Measured] = []
    for kind in options.databases:
        for name in ("order-first", "pay-first"):
            wrong = answers_with(refunded=9, error=1)
            everything.append(measured(name, kind, answers=wrong, samples=[sample], books=Books(70, 900)))
        everything.append(measured(RESERVE_FIRST, kind))
    return Comparison(options, everything)


@pytest.mark.parametrize("database", ["sqlite", "postgres", "both"])
def test_the_json_has_each_strategy_under_its_name(database: str) -> None:
    report = json.loads(comparison(database).to_json())
    for name in ("order-first", "pay-first", "reserve-first"):
        of = report[name]
        assert {"requests_per_s", "latency_ms", "oversold", "undersold", "paid", "transactions_per_sale"} <= set(of)
        assert set(of["latency_ms"]) == {"p50", "p99"}
    assert ("databases" in report) == (database == "both")
    if database == "both":
        assert set(report["databases"]) == {"sqlite", "postgres"}
        assert all(set(of) == {"order-first", "pay-first", "reserve-first"} for of in report["databases"].values())
        assert report["order-first"] == report["databases"]["sqlite"]["order-first"]
        assert report["databases"]["postgres"]["pay-first"]["database"] == "postgres"


def shown(of: Comparison, width: int = 80) -> str:
    console = Console(width=width, record=True, file=open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
    with console.file:
        console.print(summary(of))
        return console.export_text()


def test_the_table_fits_a_terminal_and_says_what_went_wrong() -> None:
    text = shown(comparison())
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    assert "reserve-first  sqlite" in text
    assert "order-first, sqlite: 1 answer that should not have come" in text


def test_a_patience_that_was_too_short_is_told_with_the_way_out() -> None:
    text = shown(Comparison(OPTIONS, [measured(books=Books(97, 1, held=3))]), width=200)
    assert "3 units still held when the crowd's patience ended; give it more --patience, or a shorter --hold" in text


def test_a_rate_of_too_few_buyers_is_told_as_such() -> None:
    few = dataclasses.replace(OPTIONS, buyers=999)
    assert "999 buyers are too few for requests a second and p99" in shown(Comparison(few, [measured()]), width=200)
    assert "too few" not in shown(Comparison(OPTIONS, [measured()]), width=200)


def test_the_page_is_whole_and_asks_nobody() -> None:
    text = page(comparison())
    assert "<script>alert" not in text
    assert "http" not in text.replace("over real HTTP", "")
    assert text.count("<svg") == 2
    assert "reserve-first is exact" in text
    assert "not exact" in page(Comparison(OPTIONS, [measured(books=Books(99, 1))]))


def test_the_page_of_nothing_is_a_page() -> None:
    empty = make(Entry(RESERVE_FIRST, "sqlite"), OPTIONS, history(latencies={}), Books(0, 0), [])
    assert "Nothing happened." in page(Comparison(OPTIONS, [empty]))


# --- the command -----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in list(os.environ):
        if variable.startswith("TICKETRUSH_"):
            monkeypatch.delenv(variable)


@pytest.mark.parametrize(("well", "code"), [(True, 0), (False, 1)])
def test_a_comparison_is_made_as_the_flags_say_and_its_verdict_is_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, well: bool, code: int
) -> None:
    asked: list[StrategyOptions] = []

    def run(options: StrategyOptions) -> Comparison:
        asked.append(options)
        return Comparison(options, [measured(books=Books(100 if well else 99, 250))])

    monkeypatch.setattr("ticketrush.cli.strategies.run", run)
    arguments = ["strategies", "--tickets", "100", "--database", "both", "--json", "-", "--report", "page.html"]
    result = CliRunner().invoke(app, arguments, env={"TICKETRUSH_STRATEGIES_BUYERS": "99"})
    assert result.exit_code == code, result.stderr
    assert asked == [StrategyOptions(buyers=99, tickets=100, database="both")]
    assert json.loads(result.stdout)["ok"] is well
    assert Path("page.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("arguments", [["--buyers", "0"], ["--database", "oracle"], ["--json", "gone/x.json"]])
def test_a_comparison_that_makes_no_sense_is_exit_code_2(arguments: list[str]) -> None:
    assert CliRunner().invoke(app, ["strategies", *arguments]).exit_code == 2


def test_every_option_is_a_flag() -> None:
    command = typer.main.get_command(app).commands["strategies"]  # type: ignore[attr-defined]
    flags = {option for parameter in command.params for option in parameter.opts}
    assert {f"--{field.name}" for field in dataclasses.fields(StrategyOptions)} <= flags
