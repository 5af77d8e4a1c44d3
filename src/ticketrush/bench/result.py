"""What a bench run found, as values and as JSON."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

import msgspec

from ticketrush.bench.machine import Machine
from ticketrush.bench.options import BenchOptions
from ticketrush.bench.visible import Visible

RATIO_SOLD_OUT_MIN: Final = 0.75
RATIO_EDGE_MIN: Final = 0.6
RATIO_DURABLE_MIN: Final = 0.45
RATIO_REDIS_MIN: Final = 0.42
RATIO_REDIS_FSYNC_MIN: Final = 0.28
CALLS_PER_RESERVATION_MAX: Final = 0.05
CALLS_PER_SOLD_OUT_MAX: Final = 0.0
DURABLE_MS_P99_MAX: Final = 10.0
LONE_MS_P50_MAX: Final = 1.0
"""What a lone request may take beyond one fdatasync."""
REPLAY_S_MAX: Final = 10.0
POSTGRES_ORDERS_PER_S_MIN: Final = 15_000
SQLITE_ORDERS_PER_S_MIN: Final = 40_000
VISIBLE_MS_P99_MAX: Final = 200.0
WITH_WORKER_MIN: Final = 0.8
WEBHOOKS_PER_S_MIN: Final = 3_000


class Round(msgspec.Struct, frozen=True):
    """One measurement under load. ``*_cores`` are processors kept busy, of those the machine has.

    The store is the Valkey of the ledger, where there is one. `ledger_calls_per_request` counts every call of the
    node to it, those for no buyer in particular too (looking for news, keeping leases alive); `decisions_per_request`
    only the script that decides on purchases.
    """

    requests_per_s: float
    latency_ms_p50: float
    latency_ms_p99: float
    latency_ms_max: float
    server_cpu_us_per_request: float
    server_cores: float
    load_cores: float
    other_cores: float
    store_cpu_us_per_request: float = 0.0
    store_cores: float = 0.0
    ledger_calls_per_request: float = 0.0
    decisions_per_request: float = 0.0


class Measured(msgspec.Struct, frozen=True):
    """A case: the median of its rounds, figure by figure, and the rounds themselves."""

    median: Round
    rounds: tuple[Round, ...]

    @classmethod
    def of(cls, rounds: Sequence[Round]) -> Measured:
        names = Round.__struct_fields__
        return cls(Round(*(statistics.median(getattr(one, name) for one in rounds) for name in names)), tuple(rounds))


class Lone(msgspec.Struct, frozen=True):
    """Durable reservations one after the other on one connection, and the sync that each waits for."""

    requests: int
    latency_ms_p50: float
    latency_ms_p99: float
    fdatasync_ms_p50: float
    fdatasync_ms_p99: float


class Replay(msgspec.Struct, frozen=True):
    """Opening a journal without a snapshot. `rss_mb` is what the process held at its peak."""

    reservations: int
    seconds: float
    journal_mb: float
    rss_mb: float


class BackOffice(msgspec.Struct, frozen=True):
    """What is behind the selling.

    ``*_orders_per_s`` are orders, each held and then paid, that a store takes in; PostgreSQL's is None where there
    is none. `visible` is how soon an order is in SQLite while the node sells at about half its top speed.
    """

    sqlite_orders_per_s: float
    postgres_orders_per_s: float | None
    webhooks_per_s: float
    visible: Visible


class Results(msgspec.Struct, frozen=True):
    """All cases. The limits are nginx answering the requests of the case with an answer of its size.

    `sold_out_edge` is a node behind the rendered Nginx; its store is the node, its `ledger_calls_per_request` those
    that reach the node; None without Jinja2. What needs a Valkey is None where there was none;
    ``*_local_stock_off`` and ``*_shards_*``, the same as `reserve_redis` but for that setting, also unless the
    details were asked for.
    """

    limit_sold_out: Measured
    sold_out: Measured
    limit_reserve: Measured
    reserve_durable: Measured
    reserve_durable_plain_asgi: Measured
    lone_request: Lone
    replay: Replay
    reserve_durable_with_worker: Measured
    back_office: BackOffice
    sold_out_edge: Measured | None = None
    sold_out_redis: Measured | None = None
    reserve_redis: Measured | None = None
    reserve_redis_fsync: Measured | None = None
    reserve_redis_local_stock_off: Measured | None = None
    reserve_redis_shards_2: Measured | None = None
    reserve_redis_shards_4: Measured | None = None


class Ratios(msgspec.Struct, frozen=True):
    """Requests/s through those of nginx in the same round; the median over the rounds."""

    sold_out: float
    reserve_durable: float
    reserve_durable_plain_asgi: float
    reserve_durable_with_worker: float
    sold_out_edge: float | None = None
    sold_out_redis: float | None = None
    reserve_redis: float | None = None
    reserve_redis_fsync: float | None = None
    reserve_redis_local_stock_off: float | None = None
    reserve_redis_shards_2: float | None = None
    reserve_redis_shards_4: float | None = None


class Goal(msgspec.Struct, frozen=True):
    """A target: `measured` is at least or at most `bound`, whichever `relation` says."""

    measured: float
    relation: str
    bound: float
    unit: str
    met: bool

    @property
    def digits(self) -> int:
        """How many of `measured` say something beside `bound`."""
        return 4 if self.bound < 0.1 else 2


class BenchResult(msgspec.Struct, frozen=True):
    """Everything one run found. `warnings` say why a figure may not deserve trust."""

    machine: Machine
    options: BenchOptions
    results: Results
    ratios: Ratios
    targets: dict[str, Goal]
    warnings: tuple[str, ...]

    @property
    def all_met(self) -> bool:
        return all(target.met for target in self.targets.values())

    def to_json(self) -> bytes:
        """The run as indented JSON."""
        plain = msgspec.to_builtins(self, enc_hook=str)
        return msgspec.json.format(msgspec.json.encode(rounded(plain)), indent=2) + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> BenchResult:
        """What `to_json` wrote."""
        return msgspec.json.decode(data, type=cls, dec_hook=lambda kind, text: kind(text))


def rounded(value: object) -> object:
    """`value` with every float in it cut to four decimals: what is beyond is noise."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(part) for part in value]
    return value


def ratios(results: Results) -> Ratios:
    """Each case against the limit of its own round."""
    found: dict[str, float] = {}
    for name in Ratios.__struct_fields__:
        case: Measured | None = getattr(results, name)
        if case is not None:
            found[name] = _ratio(case, results.limit_sold_out if name.startswith("sold_out") else results.limit_reserve)
    return Ratios(**found)


def _ratio(case: Measured, limit: Measured) -> float:
    pairs = zip(case.rounds, limit.rounds, strict=True)
    return statistics.median(one.requests_per_s / best.requests_per_s for one, best in pairs)


def targets(results: Results, ratios: Ratios) -> dict[str, Goal]:
    """The targets, and whether this run met them."""
    lone = results.lone_request
    embedded = {
        "sold_out": _at_least(ratios.sold_out, RATIO_SOLD_OUT_MIN, "of nginx"),
        "reserve_durable": _at_least(ratios.reserve_durable, RATIO_DURABLE_MIN, "of nginx"),
        "reserve_durable_p99": _at_most(results.reserve_durable.median.latency_ms_p99, DURABLE_MS_P99_MAX, "ms"),
        "lone_request_p50": _at_most(lone.latency_ms_p50, LONE_MS_P50_MAX + lone.fdatasync_ms_p50, "ms"),
        "replay": _at_most(results.replay.seconds, REPLAY_S_MAX, "s"),
    }
    if ratios.sold_out_edge is not None:
        embedded["sold_out_edge"] = _at_least(ratios.sold_out_edge, RATIO_EDGE_MIN, "of nginx")
    return embedded | _back_office_targets(results) | _redis_targets(results, ratios)


def _back_office_targets(results: Results) -> dict[str, Goal]:
    """Those of orders and payments."""
    office = results.back_office
    share = _ratio(results.reserve_durable_with_worker, results.reserve_durable)
    found = {
        "orders_sqlite": _at_least(office.sqlite_orders_per_s, SQLITE_ORDERS_PER_S_MIN, "/s"),
        "order_visible_p99": _at_most(office.visible.ms_p99, VISIBLE_MS_P99_MAX, "ms"),
        "selling_with_worker": _at_least(share, WITH_WORKER_MIN, "of without"),
        "webhooks": _at_least(office.webhooks_per_s, WEBHOOKS_PER_S_MIN, "/s"),
    }
    if office.postgres_orders_per_s is not None:
        found["orders_postgres"] = _at_least(office.postgres_orders_per_s, POSTGRES_ORDERS_PER_S_MIN, "/s")
    return found


def _redis_targets(results: Results, ratios: Ratios) -> dict[str, Goal]:
    """Those of the ledger in Valkey; none where it was not measured."""
    found: dict[str, Goal] = {}
    if ratios.reserve_redis is not None:
        found["reserve_redis"] = _at_least(ratios.reserve_redis, RATIO_REDIS_MIN, "of nginx")
    if ratios.reserve_redis_fsync is not None:
        found["reserve_redis_fsync"] = _at_least(ratios.reserve_redis_fsync, RATIO_REDIS_FSYNC_MIN, "of nginx")
    if results.reserve_redis is not None:
        calls = results.reserve_redis.median.ledger_calls_per_request
        found["redis_calls_per_reservation"] = _at_most(calls, CALLS_PER_RESERVATION_MAX, "calls")
    if results.sold_out_redis is not None:
        calls = max(each.decisions_per_request for each in results.sold_out_redis.rounds)
        found["redis_calls_per_sold_out"] = _at_most(calls, CALLS_PER_SOLD_OUT_MAX, "calls")
    return found


def _at_least(measured: float, bound: float, unit: str) -> Goal:
    return Goal(measured, "at least", bound, unit, measured >= bound)


def _at_most(measured: float, bound: float, unit: str) -> Goal:
    return Goal(measured, "at most", bound, unit, measured <= bound)
