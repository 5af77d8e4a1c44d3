"""Write the measured figures into a page: python scripts/bench_figures.py out/bench.json docs/performance.md

Everything between the two marker lines of the page is replaced; figures come from the JSON alone.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from ticketrush.bench import BenchResult
from ticketrush.bench.result import BackOffice, Measured

BEGIN: Final = "<!-- figures: written by scripts/bench_figures.py, do not edit -->"
END: Final = "<!-- end of figures -->"

CASES: Final = (
    ("limit_sold_out", "nginx `return 409`"),
    ("sold_out", "**sold out**"),
    ("sold_out_edge", "sold out, answered by Nginx at the edge"),
    ("limit_reserve", "nginx `return 201`"),
    ("reserve_durable", "**durable reservation**"),
    ("reserve_durable_with_worker", "the same, orders written beside it"),
    ("reserve_durable_plain_asgi", "the same without the fast lane"),
)
REDIS: Final = (
    ("sold_out_redis", "sold out"),
    ("reserve_redis", "**reservation**"),
    ("reserve_redis_fsync", "**the same, `appendfsync always`**"),
    ("reserve_redis_local_stock_off", "reservation, no local stock (`lease_ahead` 0)"),
    ("reserve_redis_shards_2", "reservation, 2 shards"),
    ("reserve_redis_shards_4", "reservation, 4 shards"),
)
TARGETS: Final = {
    "sold_out": "sold out, ratio to nginx",
    "sold_out_edge": "sold out at the edge, ratio to nginx",
    "reserve_durable": "durable reservations, ratio to nginx",
    "reserve_durable_p99": "p99 of a durable reservation under load",
    "lone_request_p50": "p50 of a lone request: 1 ms and one fdatasync",
    "replay": "replay of the journal",
    "orders_sqlite": "orders (held, then paid) into SQLite",
    "orders_postgres": "the same into PostgreSQL",
    "order_visible_p99": "p99 of an order being stored, at half the top speed",
    "selling_with_worker": "selling with the order worker beside it",
    "webhooks": "webhooks of payments settled",
    "reserve_redis": "reservations in Redis, ratio to nginx",
    "reserve_redis_fsync": "the same with fsync, ratio to nginx",
    "redis_calls_per_reservation": "calls to Redis per reservation under load, looks of the node included",
    "redis_calls_per_sold_out": "calls to Redis per sold-out answer",
}


def figures(result: BenchResult) -> str:
    """The figures of one run as Markdown."""
    about, options, results = result.machine, result.options, result.results
    lines = [
        (
            f"ticketrush {about.ticketrush} on {about.cpu}, {about.cores} cores shared by server and load; "
            f"Linux {about.kernel}, {about.filesystem}; {about.python}, {about.nginx}, {about.wrk}. "
            f"Median of {options.rounds} rounds of {options.seconds} s with {options.connections} connections."
        ),
        "",
        "| | requests/s | ratio | p50 ms | p99 ms | server CPU µs/request | cores: server / wrk / else |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    cases = [(title, name, getattr(results, name)) for name, title in CASES]
    lines += [_row(title, case, getattr(result.ratios, name, None)) for title, name, case in cases if case is not None]
    lines += _redis(result) if results.reserve_redis else []
    lone, replay = results.lone_request, results.replay
    lines += [
        "",
        (
            f"- A lone request without load: p50 {lone.latency_ms_p50:.2f} ms, p99 {lone.latency_ms_p99:.2f} ms; "
            f"an fdatasync beside it: p50 {lone.fdatasync_ms_p50:.2f} ms, p99 {lone.fdatasync_ms_p99:.2f} ms."
        ),
        (
            f"- A journal of {replay.reservations:,} reservations ({replay.journal_mb:.0f} MB) without a snapshot "
            f"opens in {replay.seconds:.1f} s and {replay.rss_mb:.0f} MB of memory."
        ),
        *_office(results.back_office),
        "",
        "| target | wanted | measured | met |",
        "|---|--:|--:|---|",
    ]
    for name, goal in result.targets.items():
        wanted, measured = f"{goal.relation} {goal.bound:,.2f}", f"{goal.measured:,.{goal.digits}f} {goal.unit}"
        lines.append(f"| {TARGETS[name]} | {wanted} | {measured} | {'yes' if goal.met else '**no**'} |")
    lines += [f"\n> {warning}" for warning in result.warnings]
    return "\n".join(lines)


def _office(office: BackOffice) -> list[str]:
    visible = office.visible
    postgres = office.postgres_orders_per_s
    into_postgres = f", {postgres:,.0f} into PostgreSQL" if postgres is not None else ""
    return [
        f"- Orders a second, each held and then paid: {office.sqlite_orders_per_s:,.0f} into SQLite{into_postgres}.",
        f"- Webhooks of approved payments a second, each settled before it is answered: {office.webhooks_per_s:,.0f}.",
        (
            f"- An order is in the store {visible.ms_p50:.0f} ms (p50), {visible.ms_p99:.0f} ms (p99) after its buyer "
            f"was answered, at {visible.requests_per_s:,.0f} sales/s."
        ),
    ]


def _redis(result: BenchResult) -> list[str]:
    """The table of the ledger in Redis."""
    lines = [
        "",
        f"One node with its ledger in a {result.machine.valkey} of its own, in the same rounds:",
        "",
        "| | requests/s | ratio | p50 ms | p99 ms | CPU µs/request: node + Valkey | calls/request "
        "| cores: node / Valkey / wrk / else |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name, title in REDIS:
        case: Measured | None = getattr(result.results, name)
        if case is None:
            continue
        one = case.median
        cores = (one.server_cores, one.store_cores, one.load_cores, one.other_cores)
        cells = [
            title,
            f"{one.requests_per_s:,.0f}",
            f"{getattr(result.ratios, name):.2f}",
            f"{one.latency_ms_p50:.2f}",
            f"{one.latency_ms_p99:.2f}",
            f"{one.server_cpu_us_per_request:.1f} + {one.store_cpu_us_per_request:.1f}",
            f"{one.ledger_calls_per_request:.4f}",
            " / ".join(f"{each:.2f}" for each in cores),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _row(title: str, case: Measured, ratio: float | None) -> str:
    one = case.median
    cells = [
        title,
        f"{one.requests_per_s:,.0f}",
        "" if ratio is None else f"{ratio:.2f}",
        f"{one.latency_ms_p50:.2f}",
        f"{one.latency_ms_p99:.2f}",
        f"{one.server_cpu_us_per_request:.1f}",
        f"{one.server_cores:.2f} / {one.load_cores:.2f} / {one.other_cores:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def with_figures(page: str, text: str) -> str:
    """`page` with `text` between its markers.

    Raises:
        ValueError: it does not have each marker once, in their order.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"the page needs the lines {BEGIN!r} and {END!r}, once each and in this order")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def main(source: str, page: str) -> None:
    """Bring the figures of the JSON file `source` into the file `page`."""
    file = Path(page)
    result = BenchResult.from_json(Path(source).read_bytes())
    file.write_text(with_figures(file.read_text("utf-8"), figures(result)), "utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(sys.argv[1], sys.argv[2])
