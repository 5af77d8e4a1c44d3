"""What is behind the selling: stores that take orders in, webhooks, and how soon an order is there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ticketrush.bench.buyers import Issuer
from ticketrush.bench.errors import BenchError
from ticketrush.bench.load import Load
from ticketrush.bench.orders import orders_per_s
from ticketrush.bench.result import BackOffice
from ticketrush.bench.server import serve
from ticketrush.bench.visible import Probe, Visible, summary
from ticketrush.bench.webhooks import webhooks_per_s
from ticketrush.cluster.errors import NotInstalled
from ticketrush.cluster.postgres import Postgres
from ticketrush.cluster.server import running
from ticketrush.garbage import collect_rarely
from ticketrush.wiring import make_tables, store_of

ORDERS: Final = 100_000
LATENCY_MS: Final = 3
"""What an answer takes at half the top speed: a connection's pause is that much shorter."""

VISIBLE_S_MIN: Final = 8
"""Seconds to watch orders for, so that a 99th percentile is one of many."""


def back_office(
    scratch: Callable[[], contextlib.AbstractContextManager[Path]],
    load: Load,
    issuer: Issuer,
    top_per_s: float,
    seconds: int,
) -> BackOffice:
    """Measure all of it, each in a folder of its own; `top_per_s` is the node's top speed.

    Raises:
        BenchError: something did not do what it was measured for.
    """
    with scratch() as folder:
        sqlite = asyncio.run(_store(f"sqlite:///{folder / 'orders.db'}"))
    with scratch() as folder:
        postgres = _postgres(folder)
    with scratch() as folder:
        webhooks = webhooks_per_s(folder)
    with scratch() as folder:
        visible = _visible(folder, load, issuer, top_per_s / 2, max(seconds, VISIBLE_S_MIN))
    return BackOffice(sqlite, postgres, webhooks, visible)


async def _store(url: str) -> float:
    await make_tables(url)
    store = store_of(url)
    await store.open()
    collect_rarely()  # as a worker does
    try:
        return await orders_per_s(store, ORDERS)
    finally:
        await store.close()


def _postgres(folder: Path) -> float | None:
    try:
        server = Postgres(folder)
    except NotInstalled:
        return None
    with running(server):
        return asyncio.run(_store(server.url))


def with_orders(folder: Path) -> dict[str, str]:
    """The settings of a node that keeps orders in `folder`, with its worker beside it."""
    return {"TICKETRUSH_ORDERS": f"sqlite:///{folder / 'orders.db'}"}


def _visible(folder: Path, load: Load, issuer: Issuer, per_s: float, seconds: int) -> Visible:
    with serve(folder, issuer, settings=with_orders(folder)) as server:
        pause_ms = max(1, round(1_000 * load.connections / per_s) - LATENCY_MS)
        load.run(server.target, 1, pause_ms=pause_ms)
        probe = Probe(server, folder / "orders.db")
        probe.start()
        try:
            counts, measured = load.run(server.target, seconds, pause_ms=pause_ms)
        finally:
            ms = probe.stop()
    if counts.refusals:
        raise BenchError(f"{counts.refusals} of {counts.requests} purchases were refused")
    return summary(ms, measured.requests_per_s)
