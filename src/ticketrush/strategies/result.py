"""What came out of a comparison: the figures of each strategy, as values and as JSON."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from ticketrush.crowd import history as h
from ticketrush.crowd.histogram import Histogram
from ticketrush.crowd.history import History, Progress, Sample
from ticketrush.crowd.report import CURVE
from ticketrush.strategies.options import StrategyOptions
from ticketrush.strategies.product import RESERVE_FIRST
from ticketrush.strategies.rivals import Entry
from ticketrush.strategies.store import Books

SAMPLES_MAX: Final = 3


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """What one strategy did with the crowd.

    `requests_per_s` is measured until the last buyer has come; after that the crowd only waits for units
    that might come back. `latency_ms` is of all requests. `told_success` buyers were told that they got a
    ticket, `oversold` of those could not pay when they tried. `paid` is what the database says at the end,
    and `undersold` what was left unpaid though somebody had wanted it. `transactions` are those of the
    database, those that only read too. `errors` are answers that should not have come. `complete` says
    that everybody came before the time limit.
    """

    database: str
    buyers: int
    requests: int
    requests_per_s: int
    latency_ms: dict[str, float]
    told_success: int
    paid: int
    oversold: int
    undersold: int
    transactions: int
    transactions_per_sale: float
    seconds: float
    errors: int
    complete: bool

    @property
    def exact(self) -> bool:
        """Not one too many, not one too few, and nobody got an answer that makes no sense."""
        return not (self.oversold or self.undersold or self.errors) and self.complete


class Measured(msgspec.Struct, frozen=True):
    """A strategy that was measured; `paid_over_time` are (seconds, tickets paid by then), `curve` is ms at CURVE.

    `held` units were neither paid nor given up when the crowd's patience ended.
    """

    strategy: str
    figures: Figures
    paid_over_time: list[tuple[float, int]]
    curve: list[float]
    samples: list[Sample]
    held: int = 0

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.strategy}, {self.figures.database}"


class Comparison(msgspec.Struct, frozen=True):
    """All that were measured, by the same crowd."""

    options: StrategyOptions
    measured: list[Measured]

    @property
    def ok(self) -> bool:
        """Whether reserve-first kept its promises; the others made none."""
        return all(of.figures.exact for of in self.measured if of.strategy == RESERVE_FIRST)

    def of(self, database: str) -> dict[str, Figures]:
        """The figures with one database, by strategy."""
        return {of.strategy: of.figures for of in self.measured if of.figures.database == database}

    def to_json(self) -> bytes:
        """The figures of each strategy under its name; with several databases all of them in "databases"."""
        first, *more = self.options.databases
        report: dict[str, Any] = dict(self.of(first))
        if more:
            report["databases"] = {database: self.of(database) for database in self.options.databases}
        names = ("buyers", "tickets", "abandon", "hold", "patience_s", "connections", "seed")
        report["options"] = {name: getattr(self.options, name) for name in names} | {"database": first}
        report["ok"] = self.ok
        return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def make(entry: Entry, options: StrategyOptions, history: History, books: Books, progress: list[Progress]) -> Measured:
    """The figures of a strategy, from what the buyers saw and from its books."""
    answers = history.answers
    latencies = Histogram.merged(Histogram.of_sparse(of.buckets, of.largest_us) for of in history.latencies.values())
    wanted = history.left_sold_out + history.gave_up + history.left_waiting
    requests = sum(answers)
    by_then, in_s = (history.came_answers, history.came_s) if history.came_s else (requests, history.seconds)
    return Measured(
        entry.strategy,
        Figures(
            database=entry.database,
            buyers=history.buyers,
            requests=requests,
            requests_per_s=round(by_then / max(in_s, 1e-9)),
            latency_ms={"p50": latencies.quantile_us(0.5) / 1_000, "p99": latencies.quantile_us(0.99) / 1_000},
            told_success=len(history.told.acknowledged),
            paid=books.paid,
            oversold=answers[h.REFUNDED] + max(0, books.paid - options.tickets),
            undersold=min(max(0, options.tickets - books.paid), wanted),
            transactions=books.transactions,
            transactions_per_sale=round(books.transactions / max(1, books.paid), 2),
            seconds=round(history.seconds, 3),
            errors=answers[h.ERROR] + answers[h.PAYMENT_ERROR],
            complete=history.buyers == options.buyers,
        ),
        [(0.0, 0), *((now.at_s, now.answers[h.PAID]) for now in progress)],
        [us / 1_000 for us in latencies.curve(CURVE)],
        history.samples[:SAMPLES_MAX],
        books.held,
    )
