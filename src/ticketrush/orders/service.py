"""The order worker as a process: opens what it needs, tells how it is doing, stops when it is told to."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from ticketrush import logs
from ticketrush.errors import SettingsError, TicketrushError
from ticketrush.garbage import collect_rarely
from ticketrush.orders.errors import SourceUnavailable, StoreUnavailable
from ticketrush.orders.patience import Patience, Stopped
from ticketrush.orders.protocol import OrderStore, Source
from ticketrush.orders.worker import LAG_S, OrderWorker

COMPARE_EVERY_S: Final = 600.0
"""How often the store is held against the ledger, which reads all of both."""

LOCALHOST: Final = "127.0.0.1"

log = logs.get("ticketrush.orders")


@asynccontextmanager
async def opened(source: Callable[[], Source], store: OrderStore, patience: Patience) -> AsyncIterator[Source]:
    """The store and the source, open; what is away at first is waited for.

    Raises:
        StoreOutdated: the store's tables are missing or of another version.
        Stopped: one shall stop while they are away.
    """
    made = source()
    try:
        await patience.until_answered(store.open)
        await patience.until_answered(made.open)
        yield made
    finally:
        with suppress(SourceUnavailable):
            await made.close()
        await store.close()


async def work(
    source: Callable[[], Source],
    store: OrderStore,
    *,
    started: Callable[[str], None],
    metrics_port: int | None = None,
    compare: Callable[[], Awaitable[object]] | None = None,
    compare_every_s: float = COMPARE_EVERY_S,
) -> OrderWorker | None:
    """Run a worker until SIGTERM or SIGINT; the worker as it ended, or None if it never began.

    `started` gets the URL of the metrics ("" without a `metrics_port`; 0 takes a free port), once the
    source and the store are open. `compare` is called every now and then, when nothing waits in the log, and says
    in the log what it found.

    Raises:
        StoreOutdated: the store's tables are missing or of another version.
        SettingsError: `metrics_port` cannot be used.
    """
    patience = Patience(log, StoreUnavailable, SourceUnavailable)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, patience.stopping.set)
    try:
        async with opened(source, store, patience) as made:
            worker = OrderWorker(made, store)
            collect_rarely()
            started(_serve_metrics(worker, metrics_port) if metrics_port is not None else "")
            beside = [loop.create_task(_stop_with(worker, patience.stopping))]
            if compare is not None:
                beside.append(loop.create_task(_compare_now_and_then(worker, compare, compare_every_s)))
            try:
                await worker.run()
            finally:
                for task in beside:
                    task.cancel()
                await asyncio.wait(beside)
            return worker
    except Stopped:
        return None


async def _stop_with(worker: OrderWorker, stopping: asyncio.Event) -> None:
    await stopping.wait()
    worker.stop()


async def _compare_now_and_then(worker: OrderWorker, compare: Callable[[], Awaitable[object]], every_s: float) -> None:
    """Compare, unless the store is merely behind: then the log brings what it lacks."""
    wait_s = every_s
    while True:
        await asyncio.sleep(wait_s)
        if not worker.is_level:
            if wait_s == every_s:
                log.info("comparison_waits", lag=worker.lag)
            wait_s = min(LAG_S, every_s)
            continue
        wait_s = every_s
        try:
            await compare()
        except TicketrushError as error:  # the next time will do
            log.warning("not_compared", error=str(error))
        except Exception:  # orders are made all the same
            log.exception("defect")


def _serve_metrics(worker: OrderWorker, port: int) -> str:
    registry = CollectorRegistry()
    figures: dict[str, tuple[str, Callable[[], float]]] = {
        "ticketrush_orders_notices": ("Notices written so far, repetitions among them.", lambda: worker.stored),
        "ticketrush_orders_dead_letters": ("Messages that became dead letters so far.", lambda: worker.dead),
        "ticketrush_orders_lag": (
            "Messages that wait in the log, as of a moment ago; -1 while that is not known.",
            lambda: -1 if worker.lag is None else worker.lag,
        ),
        "ticketrush_orders_away": ("1 while the log or the store does not answer.", lambda: bool(worker.away)),
    }
    for name, (words, value) in figures.items():
        Gauge(name, words, registry=registry).set_function(value)
    try:
        server, _ = start_http_server(port, LOCALHOST, registry)
    except (OSError, OverflowError) as error:
        raise SettingsError(f"cannot serve metrics at port {port}: {error}; choose another --metrics-port") from error
    return f"http://{LOCALHOST}:{server.server_port}/metrics"
