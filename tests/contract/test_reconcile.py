"""`ticketrush reconcile`: a shared ledger is made whole on demand, and nodes go on selling."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest
from redis import Redis
from typer.testing import CliRunner, Result

from tests.valkey import fresh_database, own_valkey
from ticketrush import model as m
from ticketrush.cli import app
from ticketrush.cluster.valkey import Valkey
from ticketrush.engine import Engine
from ticketrush.ledger.redis import RedisLedger

SALE = m.Sale("g", (m.Item("a", 10),), opens_at_ms=0, hold_window_ms=60_000)
STOCK = "ticketrush:{g:a}:stock"


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    with own_valkey("fsync") as valkey:
        yield valkey


def ticketrush(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def sold(url: str, units: int) -> None:
    async def sell() -> None:
        async with Engine(RedisLedger(url, node="a")) as engine:
            await engine.create_sale(SALE)
            for number in range(units):
                assert isinstance(await engine.reserve("g", "a", f"b{number}", key=f"k{number}"), m.Reserved)

    asyncio.run(sell())


def test_a_stock_that_was_damaged_is_counted_again(server: Valkey) -> None:
    url = fresh_database(server)
    sold(url, 4)
    Redis.from_url(url).hset(STOCK, "available", 99)
    assert ticketrush("reconcile", "--ledger", url, "--check").exit_code == 1
    result = ticketrush("reconcile", "--ledger", url, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["ok"]
    assert found["items"][0]["before"]["available"] == 99
    assert found["items"][0]["after"] == {"capacity": 10, "available": 6, "leased": 0, "held": 4, "sold": 0}
    assert ticketrush("reconcile", "--ledger", url, "--check").exit_code == 0


def test_a_check_touches_no_unit_and_no_reservation(server: Valkey) -> None:
    url = fresh_database(server)
    sold(url, 3)
    client = Redis.from_url(url)
    before = client.hgetall(STOCK), client.hgetall("ticketrush:{g:0}:records")
    assert ticketrush("reconcile", "--ledger", url, "--check").exit_code == 0
    assert (client.hgetall(STOCK), client.hgetall("ticketrush:{g:0}:records")) == before


def test_nodes_go_on_selling_and_everything_is_sold_once(server: Valkey) -> None:
    url = fresh_database(server)

    async def story() -> list[m.Outcome]:
        async with Engine(RedisLedger(url, node="a")) as one, Engine(RedisLedger(url, node="b")) as two:
            await one.create_sale(SALE)
            outcomes: list[m.Outcome] = [await one.reserve("g", "a", "before", key="k")]
            result = await asyncio.to_thread(ticketrush, "reconcile", "--ledger", url)
            assert result.exit_code == 0, result.output
            for number in range(12):
                engine = (one, two)[number % 2]
                outcome: m.Outcome = m.Refused(m.Reason.UNAVAILABLE)
                while isinstance(outcome, m.Refused) and outcome.reason in {m.Reason.UNAVAILABLE, m.Reason.UNKNOWN}:
                    outcome = await engine.reserve("g", "a", f"b{number}", key=f"k{number}")
                outcomes.append(outcome)
            assert (await one.audit()).ok
            return outcomes

    outcomes = asyncio.run(story())
    assert sum(isinstance(outcome, m.Reserved) for outcome in outcomes) == 10


def test_a_journal_in_a_file_needs_no_reconciling() -> None:
    result = ticketrush("reconcile", "--ledger", "sqlite:///tickets.db")
    assert result.exit_code == 2


def test_nobody_there_is_exit_code_3() -> None:
    assert ticketrush("reconcile", "--ledger", "redis://127.0.0.1:1/0").exit_code == 3


def test_a_node_without_its_ledger_ends_with_exit_code_3_and_says_what_to_do() -> None:
    result = ticketrush("serve", "--open", "--port", "0", "--ledger", "redis://127.0.0.1:1/0")
    assert result.exit_code == 3
    assert "ticketrush: no answer from redis://127.0.0.1:1/0" in result.stderr
    assert "start the server there, or name another one with --ledger" in result.stderr


def test_an_empty_server_is_told_as_such(server: Valkey) -> None:
    result = ticketrush("reconcile", "--ledger", fresh_database(server))
    assert result.exit_code == 0
    assert "no sale" in result.output
