"""A bench result as a person wants to read it in a terminal."""

from __future__ import annotations

from typing import Final

from rich.box import SIMPLE
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ticketrush.bench.result import BenchResult, Measured

_CASES: Final = (
    ("limit_sold_out", "nginx return 409"),
    ("sold_out", "sold out"),
    ("sold_out_edge", "at the edge"),
    ("limit_reserve", "nginx return 201"),
    ("reserve_durable", "durable"),
    ("reserve_durable_with_worker", "and orders"),
    ("reserve_durable_plain_asgi", "plain ASGI"),
)
_REDIS: Final = (
    ("sold_out_redis", "sold out"),
    ("reserve_redis", "reserve"),
    ("reserve_redis_fsync", "fsync"),
    ("reserve_redis_local_stock_off", "no stock"),
    ("reserve_redis_shards_2", "2 shards"),
    ("reserve_redis_shards_4", "4 shards"),
)


def report(result: BenchResult) -> RenderableType:
    """Tables of the figures and the targets, for ``Console.print``."""
    parts: list[RenderableType] = [_figures(result), _redis(result), _alone(result), _targets(result)]
    if result.results.reserve_redis is None:
        del parts[1]
    parts += [Text(f"! {warning}", style="yellow") for warning in result.warnings]
    return Group(*parts)


def _figures(result: BenchResult) -> Table:
    about, options = result.machine, result.options
    table = Table(
        title=f"{about.cpu}, {about.cores} cores, {about.kernel}, {about.filesystem}\n"
        f"{about.python}, {about.nginx}, {about.wrk}",
        caption=f"median of {options.rounds} x {options.seconds} s, {options.connections} connections; "
        "cores: kept busy by server/wrk/all else",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    table.add_column("")
    for name in ("requests/s", "ratio", "p50 ms", "p99 ms", "CPU µs", "cores"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, title in _CASES:
        case: Measured | None = getattr(result.results, name)
        if case is not None:
            table.add_row(title, *_row(case, getattr(result.ratios, name, None)))
    return table


def _row(case: Measured, ratio: float | None) -> list[str]:
    figures = case.median
    return [
        f"{figures.requests_per_s:,.0f}",
        "" if ratio is None else f"{ratio:.2f}",
        f"{figures.latency_ms_p50:.2f}",
        f"{figures.latency_ms_p99:.2f}",
        f"{figures.server_cpu_us_per_request:.1f}",
        f"{figures.server_cores:.2f}/{figures.load_cores:.2f}/{figures.other_cores:.2f}",
    ]


def _redis(result: BenchResult) -> Table:
    """One node and its Valkey: CPU of the two, and the node's calls to it."""
    table = Table(
        title=f"one node, ledger in {result.machine.valkey}",
        caption="CPU µs and cores: node+Valkey; calls: to Valkey, per request",
        title_justify="left",
        caption_justify="left",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    table.add_column("", no_wrap=True)
    for name in ("requests/s", "ratio", "p99 ms", "CPU µs", "calls", "cores"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, title in _REDIS:
        case: Measured | None = getattr(result.results, name)
        if case is None:
            continue
        one = case.median
        table.add_row(
            title,
            f"{one.requests_per_s:,.0f}",
            f"{getattr(result.ratios, name):.2f}",
            f"{one.latency_ms_p99:.2f}",
            f"{one.server_cpu_us_per_request:.1f}+{one.store_cpu_us_per_request:.1f}",
            f"{one.ledger_calls_per_request:.4f}",
            f"{one.server_cores:.2f}+{one.store_cores:.2f}/{one.load_cores:.2f}/{one.other_cores:.2f}",
        )
    return table


def _alone(result: BenchResult) -> Table:
    lone, replay = result.results.lone_request, result.results.replay
    table = Table(show_header=False, box=SIMPLE)
    table.add_row("lone request, no load", f"p50 {lone.latency_ms_p50:.2f} ms, p99 {lone.latency_ms_p99:.2f} ms")
    table.add_row("fdatasync beside it", f"p50 {lone.fdatasync_ms_p50:.2f} ms, p99 {lone.fdatasync_ms_p99:.2f} ms")
    table.add_row(
        f"replay of {replay.reservations:,} reservations",
        f"{replay.seconds:.1f} s, journal {replay.journal_mb:.0f} MB, memory {replay.rss_mb:.0f} MB",
    )
    office = result.results.back_office
    visible = office.visible
    table.add_row("orders into SQLite", f"{office.sqlite_orders_per_s:,.0f}/s")
    if office.postgres_orders_per_s is not None:
        table.add_row("orders into PostgreSQL", f"{office.postgres_orders_per_s:,.0f}/s")
    table.add_row("webhooks", f"{office.webhooks_per_s:,.0f}/s")
    table.add_row(
        f"an order is stored, at {visible.requests_per_s:,.0f} sales/s",
        f"p50 {visible.ms_p50:.0f} ms, p99 {visible.ms_p99:.0f} ms ({visible.orders:,} orders)",
    )
    return table


def _targets(result: BenchResult) -> Table:
    table = Table("target", "measured", "wanted", "met", box=SIMPLE, padding=(0, 1, 0, 0))
    for name, goal in result.targets.items():
        met = Text("yes", style="green") if goal.met else Text("no", style="bold red")
        table.add_row(name, f"{goal.measured:,.{goal.digits}f} {goal.unit}", f"{goal.relation} {goal.bound:,.2f}", met)
    return table
