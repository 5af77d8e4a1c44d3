"""Calls for those who operate the server: health, readiness, metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import msgspec
from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ticketrush.engine import Engine
from ticketrush.http.answers import Answer, json_answer
from ticketrush.http.openapi import describe
from ticketrush.http.problems import problem
from ticketrush.http.requests import respond, services_of

router = APIRouter()


class HealthView(msgspec.Struct, frozen=True):
    """How the server is."""

    status: str


@router.get("/healthz", summary="Alive?", openapi_extra=describe(None, {200: HealthView}, ()))
async def healthz() -> Response:
    """200 while the process answers."""
    return respond(json_answer(HealthView("ok")))


@router.get("/readyz", summary="Ready?", openapi_extra=describe(None, {200: HealthView}, {"unavailable"}))
async def readyz(request: Request) -> Response:
    """200 while purchases are decided; 503 while the ledger cannot be written, and while stopping."""
    if services_of(request).engine.ready:
        return respond(json_answer(HealthView("ready")))
    return respond(problem("unavailable", "", (b"retry-after", b"1")))


@router.get("/metrics", summary="Metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Counters in the Prometheus text format."""
    registry: CollectorRegistry = request.app.state.registry
    collected = Collected(registry.collect())
    content_type = (b"content-type", CONTENT_TYPE_PLAIN_0_0_4.encode())
    return respond(Answer(200, (content_type,), await asyncio.to_thread(generate_latest, collected)))


def registry_of(engine: Engine) -> CollectorRegistry:
    """A registry with the metrics of `engine` and of this process."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(EngineCollector(engine))
    return registry


class Collected(Collector):
    """What was collected at one moment on the event loop, to be worded in a thread: that takes the longest."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = tuple(metrics)

    def collect(self) -> Iterable[Metric]:
        """The same again."""
        return self._metrics


class EngineCollector(Collector):
    """Reads the engine when it is asked, so that a purchase costs no more than an addition."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def describe(self) -> Iterable[Metric]:
        """Nothing: there is no need to ask the engine before it is started."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """The engine's counters, and the levels of every sale."""
        stats = self._engine.stats
        yield CounterMetricFamily("ticketrush_batches", "Ledger commits.", stats.batches)
        yield CounterMetricFamily("ticketrush_commands", "Commands decided by the ledger.", stats.commands)
        yield CounterMetricFamily("ticketrush_commits_failed", "Commits that failed.", stats.commits_failed)
        yield CounterMetricFamily("ticketrush_gate_refusals", "Answers by a closed gate.", stats.gate_refusals)
        yield CounterMetricFamily("ticketrush_overloaded", "Commands refused: queue full.", stats.overloaded)
        yield CounterMetricFamily("ticketrush_unknown", "Commands answered as unknown.", stats.unknown)
        yield GaugeMetricFamily("ticketrush_waiting", "Commands that wait for a batch.", self._engine.waiting)
        calls = CounterMetricFamily("ticketrush_ledger_calls", "Calls to the ledger's server.", labels=("call",))
        for name, count in self._engine.ledger_calls.items():
            calls.add_metric((name,), count)
        yield calls
        units = GaugeMetricFamily("ticketrush_units", "Units of an item by state.", labels=("sale", "item", "state"))
        for sale in self._engine.sales():
            stock = self._engine.stock(sale.id)
            for level in stock.levels if stock else ():
                for state in ("capacity", "available", "leased", "held", "sold"):
                    units.add_metric((sale.id, level.item, state), getattr(level, state))
        yield units
