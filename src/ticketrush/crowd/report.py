"""What came out of a rush: the report as JSON, and whether all is well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from ticketrush.audit import AuditReport
from ticketrush.crowd import history as h
from ticketrush.crowd.doom import Kill
from ticketrush.crowd.histogram import Histogram
from ticketrush.crowd.options import RushOptions
from ticketrush.events import AnyEvent, Cancelled, Expired, Held, Paid, Refunded

POINTS_MAX: Final = 240
CURVE: Final = (0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 0.99999)
"""The shares at which latency percentiles are drawn."""


SOLD: Final = "sold"
WANTED_LESS: Final = "wanted_less"
UNPAID: Final = "unpaid"
BROKEN: Final = "broken"
"""How a rush may come out: every ticket is paid; some are not, for there were no more buyers than
tickets; some are not though there were more buyers, because those who got one did not pay; and
something is not as promised, or the time was up. The first two are well."""


class NodeReport(msgspec.Struct, frozen=True):
    """A node that sold, or was killed while it did; `requests` were sent to it."""

    url: str
    killed: bool
    requests: int


class Cluster(msgspec.Struct, frozen=True):
    """What became of the servers: their URLs, those that the rush has killed, and those that died by themselves."""

    urls: list[str]
    kills: list[Kill]
    deaths: list[str]


class Extra(msgspec.Struct, frozen=True):
    """What the report tells besides; `outcome` is one of the constants above.

    `orders` are those in the order store, None if there was none; `orders_drained_s` is how long after the
    sale the last one was there.
    """

    ok: bool
    outcome: str
    finished: bool
    demand_exceeds_capacity: bool
    payments: dict[str, int]
    busy: int
    unknown: int
    left_sold_out: int
    gave_up: int
    left_waiting: int
    expired: int
    crowd_cpu_us_per_request: float
    latency_by_answer_ms: dict[str, dict[str, float]]
    vacuous: list[str]
    violations: list[str]
    unexpected_answers: list[h.Sample]
    options: dict[str, float]
    clustered: bool
    orders: int | None
    orders_drained_s: float | None
    kills: list[Kill]
    deaths: list[str]


class Report(msgspec.Struct, frozen=True):
    """The report as it is written.

    `requests` is the sum of `answers` and of what `extra` counts besides: payments, busy and
    unknown. `paid` are units, as the journal has them. `reserve_per_s` is acknowledged reservations
    per second while (nearly all of) the stock was taken for the first time. The server's CPU and
    memory are those of all nodes and of the Valkey that was started for them, together. `killed`
    counts the `nodes` that the rush has killed.
    """

    buyers: int
    tickets: int
    requests: int
    answers: dict[str, int]
    paid: int
    oversold: int
    undersold: int
    lost: int
    unexpected: int
    seconds: float
    requests_per_s: int
    reserve_per_s: int
    latency_ms: dict[str, float]
    server_cpu_us_per_request: float
    server_rss_mb: float
    audit: dict[str, bool]
    nodes: list[NodeReport]
    killed: int
    extra: Extra


class Moment(msgspec.Struct, frozen=True):
    """The stock at one moment, `at_s` after the first reservation; the last four count from the start."""

    at_s: float
    available: int
    held: int
    sold: int
    reserved: int
    paid: int
    expired: int
    returned: int


class RushResult(msgspec.Struct, frozen=True):
    """A rush that is over: the report, and what its pictures are drawn from."""

    report: Report
    moments: list[Moment]
    progress: list[h.Progress]
    curves: dict[str, list[float]]

    @property
    def ok(self) -> bool:
        """Whether no promise was broken, no answer an error, and every ticket paid that the crowd was enough for."""
        return self.report.extra.ok

    def to_json(self) -> bytes:
        """The report, indented, with a newline at the end."""
        return msgspec.json.format(msgspec.json.encode(self.report), indent=2) + b"\n"


def make(
    options: RushOptions,
    history: h.History,
    audited: AuditReport,
    cost: tuple[float, float],
    cluster: Cluster,
    *,
    demand: bool,
    drained_s: float | None = None,
) -> Report:
    """The report of a rush. `cost` is the servers' CPU seconds and megabytes."""
    answers = dict(zip(h.ANSWERS, history.answers, strict=True))
    requests = max(1, sum(history.answers))
    kinds = {name: Histogram.of_sparse(of.buckets, of.largest_us) for name, of in history.latencies.items()}
    undersold = max(audited.undersold, options.tickets - audited.sold if demand else 0)
    flawless = not (audited.oversold or undersold or audited.lost or audited.unexpected)
    errors = answers["error"] + answers["payment_error"]
    outcome = BROKEN
    is_stored = audited.orders is None or drained_s is not None
    if flawless and is_stored and errors == 0 and history.finished and audited.ok and not cluster.deaths:
        left = options.tickets - audited.sold
        outcome = SOLD if not left else WANTED_LESS if history.buyers <= options.tickets else UNPAID
    return Report(
        buyers=history.buyers,
        tickets=options.tickets,
        requests=sum(history.answers),
        answers={name: answers[name] for name in h.RESERVE_ANSWERS},
        paid=audited.sold,
        oversold=audited.oversold,
        undersold=undersold,
        lost=audited.lost,
        unexpected=audited.unexpected,
        seconds=round(history.seconds, 3),
        requests_per_s=round(requests / max(history.seconds, 1e-9)),
        reserve_per_s=round(history.surge_reservations / max(history.surge_s, 1e-9)),
        latency_ms=_latency_ms(Histogram.merged(kinds.values())),
        server_cpu_us_per_request=round(cost[0] / requests * 1e6, 2),
        server_rss_mb=round(cost[1], 1),
        audit=audited.invariants(),
        nodes=_nodes(cluster, history),
        killed=len(cluster.kills),
        extra=Extra(
            ok=outcome in {SOLD, WANTED_LESS},
            outcome=outcome,
            finished=history.finished,
            demand_exceeds_capacity=demand,
            payments={
                "paid": answers["paid"],
                "pending": answers["pending"],
                "refunded": answers["refunded"],
                "error": answers["payment_error"],
            },
            busy=answers["busy"],
            unknown=answers["unknown"],
            left_sold_out=history.left_sold_out,
            gave_up=history.gave_up,
            left_waiting=history.left_waiting,
            expired=audited.expired,
            crowd_cpu_us_per_request=round(history.cpu_s / requests * 1e6, 2),
            latency_by_answer_ms={name: _latency_ms(of) for name, of in kinds.items()},
            vacuous=audited.vacuous,
            violations=audited.violations,
            unexpected_answers=history.samples,
            options=_numbers(options),
            clustered=options.nodes is not None,
            orders=audited.orders,
            orders_drained_s=drained_s,
            kills=cluster.kills,
            deaths=cluster.deaths,
        ),
    )


def curves_of(history: h.History) -> dict[str, list[float]]:
    """Latencies in milliseconds at the shares of CURVE, by kind of answer."""
    kinds = {name: Histogram.of_sparse(of.buckets, of.largest_us) for name, of in history.latencies.items()}
    return {name: [us / 1_000 for us in of.curve(CURVE)] for name, of in kinds.items() if of.total}


def moments_of(events: Sequence[AnyEvent], capacity: int) -> list[Moment]:
    """The stock over time: at most POINTS_MAX moments, the first and the last among them."""
    made = {event.id: event.quantity for event in events if isinstance(event, Held)}
    changes = [event for event in events if isinstance(event, Held | Paid | Expired | Cancelled | Refunded)]
    if not changes:
        return []
    first_ms, last_ms = changes[0].at_ms, changes[-1].at_ms
    step_ms = max(1.0, (last_ms - first_ms) / (POINTS_MAX - 2))
    held = sold = reserved = paid = expired = returned = 0
    moments = [Moment(0.0, capacity, 0, 0, 0, 0, 0, 0)]
    next_ms = first_ms + step_ms

    def look(at_ms: float) -> None:
        at_s = (at_ms - first_ms) / 1_000
        moments.append(Moment(at_s, capacity - held - sold, held, sold, reserved, paid, expired, returned))

    for event in changes:
        while event.at_ms >= next_ms:
            look(next_ms)
            next_ms += step_ms
        units = made.get(event.id, 0)
        match event:
            case Held():
                held, reserved = held + units, reserved + units
            case Paid():
                held, sold, paid = held - units, sold + units, paid + units
            case Expired():
                held, expired = held - units, expired + units
            case Cancelled():
                held, returned = held - units, returned + units
            case Refunded():
                sold, returned = sold - units, returned + units
    look(last_ms)
    return moments


def _latency_ms(histogram: Histogram) -> dict[str, float]:
    p50, p99, p999 = histogram.curve((0.5, 0.99, 0.999))
    return {"p50": p50 / 1_000, "p99": p99 / 1_000, "p999": p999 / 1_000, "max": histogram.largest_us / 1_000}


def _nodes(cluster: Cluster, history: h.History) -> list[NodeReport]:
    killed = {kill.node for kill in cluster.kills}
    counted = zip(cluster.urls, history.requests, strict=True)
    return [NodeReport(url, number in killed, requests) for number, (url, requests) in enumerate(counted)]


def _numbers(options: RushOptions) -> dict[str, float]:
    names = ("connections", "arrivals", "abandon", "duplicates", "cuts", "breakers", "limit", "hold", "seed")
    return {name: getattr(options, name) for name in names}
