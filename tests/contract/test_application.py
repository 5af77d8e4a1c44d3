"""The application by itself: under a server that checks less than ours, and with an order store that surprises."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import AsyncMock, Mock, patch

import httpx
import pytest
from prometheus_client.exposition import generate_latest

from ticketrush import model as m
from ticketrush.engine import Engine
from ticketrush.http import operations, services
from ticketrush.http.app import create_app
from ticketrush.http.services import Services
from ticketrush.ledger.redis import RedisLedger
from ticketrush.orders.errors import StoreUnavailable
from ticketrush.payments.test_gateway import TestGateway

SALE = m.Sale("s", (m.Item("i", 100),), opens_at_ms=0)


@asynccontextmanager
async def application(url: str, **more: Any) -> AsyncIterator[tuple[httpx.AsyncClient, RedisLedger]]:
    """Whoever asks it, and its ledger; "ada" is who asks."""
    ledger = RedisLedger(url, node="ann")
    made = Services.of(Engine(ledger), TestGateway(), None, **more)
    transport = httpx.ASGITransport(create_app(made, running=True), raise_app_exceptions=False)
    client = httpx.AsyncClient(transport=transport, base_url="http://localhost", headers={"x-buyer": "ada"})
    async with made.running(), client:
        await made.engine.create_sale(SALE)
        yield client, ledger


NO_IDS = ["mine", "0" * 31, "0" * 33, "G" * 32, f"{'0' * 32}-", f"{'0' * 32}-1", f"{'0' * 32}-x.0", "%ED%A0%80", "%ff"]


def test_an_id_that_none_is_drawn_like_is_unknown_and_looked_for_nowhere(valkey_url: str) -> None:
    async def story() -> None:
        async with application(valkey_url) as (client, ledger):
            real = await client.get(f"/v1/reservations/{'0' * 32}")
            looked = ledger.calls()["hexists"]
            for id in NO_IDS:
                answer = await client.get(f"/v1/reservations/{id}")
                assert (answer.status_code, answer.content) == (404, real.content)
                assert (await client.delete(f"/v1/reservations/{id}")).content == real.content
            assert ledger.calls()["hexists"] == looked == 1

    asyncio.run(story())


@pytest.mark.parametrize("length", ["x", "", "1e1", "0x11", "9" * 5_000])
def test_a_length_that_is_no_number_is_malformed(valkey_url: str, length: str) -> None:
    async def story() -> None:
        async with application(valkey_url) as (client, _):
            made = await client.post(
                "/v1/sales/s/reservations", content=b'{"item":"i"}', headers={"content-length": length}
            )
            expected = (201, None) if not length else (400, "malformed")
            assert (made.status_code, made.json().get("code")) == expected

    asyncio.run(story())


def test_metrics_are_collected_on_the_loop_and_worded_beside_it(valkey_url: str) -> None:
    threads: dict[str, threading.Thread] = {}
    real_collect = operations.EngineCollector.collect

    def word(*args: Any) -> bytes:
        threads["word"] = threading.current_thread()
        return generate_latest(*args)

    def collect(self: operations.EngineCollector) -> Any:
        threads["collect"] = threading.current_thread()
        return real_collect(self)

    async def story() -> None:
        async with application(valkey_url) as (client, _):
            with (
                patch.object(operations, "generate_latest", word),
                patch.object(operations.EngineCollector, "collect", collect),
            ):
                text = (await client.get("/metrics")).text
            assert 'ticketrush_units{item="i",sale="s",state="available"} 100.0' in text
            assert "process_cpu_seconds_total" in text

    asyncio.run(story())
    assert threads["collect"] is threading.main_thread()
    assert threads["word"] is not threading.main_thread()


@pytest.mark.parametrize("error", [StoreUnavailable("no answer"), UnicodeError("label empty or too long"), KeyError()])
def test_orders_stay_away_with_a_line_in_the_log_whatever_is_wrong_with_their_store(
    valkey_url: str, error: Exception
) -> None:
    opened = asyncio.Event()
    failures = [error, error]

    async def open() -> None:
        if failures:
            raise failures.pop()
        opened.set()

    store = Mock(open=open, close=AsyncMock())

    async def story() -> None:
        async with application(valkey_url, orders=store) as (client, _):
            answer = await client.post("/v1/sales/s/reservations", json={"item": "i"})
            assert answer.status_code == 201
            await asyncio.wait_for(opened.wait(), 5)

    with patch.object(services, "OPEN_AGAIN_S", 0.01), patch.object(services, "log") as log:
        asyncio.run(story())
    (line,) = log.warning.call_args_list
    assert line.args == ("orders_away",)
    assert line.kwargs["unforeseen"] is not isinstance(error, StoreUnavailable)
    assert line.kwargs["error"], "it says something"
