"""The comparison as one HTML page that needs nothing else."""

from __future__ import annotations

import html
import math
import platform
from collections.abc import Callable
from importlib.resources import files
from string import Template
from typing import Final

from ticketrush.crowd.frame import frame
from ticketrush.crowd.page import legend
from ticketrush.crowd.report import CURVE
from ticketrush.crowd.svg import Plot, Series, draw, time_ticks
from ticketrush.crowd.wording import VERDICTS, units
from ticketrush.strategies.result import Comparison, Measured
from ticketrush.strategies.table import troubles

_TEMPLATE: Final = Template(files("ticketrush.strategies").joinpath("page.html").read_text(encoding="utf-8"))
_COLORS: Final = {
    "order-first, sqlite": "amber",
    "pay-first, sqlite": "red",
    "order-first, postgres": "violet",
    "pay-first, postgres": "blue",
    "reserve-first, sqlite": "green",
    "reserve-first, postgres": "teal",
}
_MARKS: Final = {0.5: "50 %", 0.9: "90 %", 0.99: "99 %", 0.999: "99.9 %"}
_POINTS: Final = 200


def page(comparison: Comparison) -> str:
    """The whole page."""
    options, measured = comparison.options, comparison.measured
    text = {
        "tone": "good" if comparison.ok else "bad",
        "mark": VERDICTS["holds" if comparison.ok else "broken"],
        "verdict": "reserve-first is exact" if comparison.ok else "reserve-first is not exact",
        "headline": "Order first, pay first, reserve first: the same crowd, three ways to deduct stock.",
        "lead": f"{units(options.buyers, 'buyer')} want {units(options.tickets, 'ticket')}; {options.abandon:.0%} of "
        "those who get one never pay. Every strategy runs in a process of its own and gets the same people, over real "
        "HTTP.",
        "tickets": f"{options.tickets:,}",
        "footer": _footer(comparison),
    }
    parts = {
        "tiles": "".join(_tile(of, options.tickets) for of in measured),
        "troubles": _troubles(measured),
        "paid": _paid(measured),
        "rates": _bars(measured, lambda of: of.figures.requests_per_s, lambda value: f"{value:,.0f}"),
        "latency": _latency(measured),
        "oversold": _bars(measured, lambda of: of.figures.oversold, lambda value: f"{value:,.0f}"),
        "undersold": _bars(measured, lambda of: of.figures.undersold, lambda value: f"{value:,.0f}"),
        "transactions": _bars(measured, lambda of: of.figures.transactions_per_sale, lambda value: f"{value:,.2f}"),
    }
    main = _TEMPLATE.substitute({name: html.escape(value) for name, value in text.items()} | parts)
    return frame("ticketrush: three ways to deduct stock", main)


def _tile(of: Measured, tickets: int) -> str:
    figures = of.figures
    wrong = [f"{count:,} {what}" for count, what in _wrongs(of)]
    note = " · ".join(wrong) or "not one too many, not one too few"
    return (
        f'<div class="tile"><span>{html.escape(of.name)}</span>'
        f"<b>{figures.paid:,}<small> of {tickets:,} paid</small></b><i>{note}</i></div>"
    )


def _wrongs(of: Measured) -> list[tuple[int, str]]:
    figures = of.figures
    return [
        (count, what) for count, what in ((figures.oversold, "oversold"), (figures.undersold, "undersold")) if count
    ]


def _troubles(measured: list[Measured]) -> str:
    lines = "".join(f"<li>{html.escape(line)}</li>" for of in measured for line in troubles(of))
    return f'<section class="card trouble"><h2>What is wrong</h2><ul>{lines}</ul></section>' if lines else ""


def _paid(measured: list[Measured]) -> str:
    last_s = 1.1 * max((_last_payment_s(of) for of in measured), default=0.0)
    if not last_s:
        return "<p>Nothing happened.</p>"
    at_s = [last_s * number / _POINTS for number in range(_POINTS + 1)]
    series = [Series(of.name, _COLORS[of.name], [_paid_by(of, moment) for moment in at_s]) for of in measured]
    plot = Plot(
        label="Tickets paid over time, by strategy",
        x=at_s,
        x_ticks=time_ticks(last_s),
        x_name=lambda index: f"{at_s[index]:.2f} s",
        series=series,
        value_name=lambda value: f"{value:,.0f}",
        width=1080,
        height=300,
    )
    return legend(series) + draw(plot)


def _last_payment_s(of: Measured) -> float:
    """When the last ticket was paid; after that a strategy only waits."""
    most = of.paid_over_time[-1][1]
    return next(at_s for at_s, paid in of.paid_over_time if paid == most)


def _paid_by(of: Measured, moment_s: float) -> float:
    """Tickets that were paid `moment_s` after the first request, on a line between what is known."""
    before = after = of.paid_over_time[0]
    for after in of.paid_over_time:
        if after[0] >= moment_s:
            break
        before = after
    if after[0] <= before[0]:
        return float(after[1])
    share = min(1.0, max(0.0, (moment_s - before[0]) / (after[0] - before[0])))
    return before[1] + share * (after[1] - before[1])


def _latency(measured: list[Measured]) -> str:
    series = [Series(of.name, _COLORS[of.name], of.curve) for of in measured if any(of.curve)]
    if not series:
        return "<p>Nothing was answered.</p>"
    plot = Plot(
        label="Latency in milliseconds by percentile",
        x=[-math.log10(1 - share) for share in CURVE],
        x_ticks=[(-math.log10(1 - share), label) for share, label in _MARKS.items()],
        x_name=lambda index: f"{CURVE[index] * 100:g} % are faster than",
        series=series,
        value_name=lambda value: f"{value:,.2f} ms",
        log=True,
        width=1080,
        height=300,
    )
    return legend(series) + draw(plot)


def _bars(measured: list[Measured], value_of: Callable[[Measured], float], text_of: Callable[[float], str]) -> str:
    """A bar for each strategy."""
    largest = max(map(value_of, measured), default=0.0) or 1.0
    rows = "".join(
        f'<span>{html.escape(of.name)}</span><u style="--key:var(--c-{_COLORS[of.name]});'
        f'width:{value_of(of) / largest * 100:.1f}%"></u><b>{text_of(value_of(of))}</b>'
        for of in measured
    )
    return f'<div class="told">{rows}</div>'


def _footer(comparison: Comparison) -> str:
    of = comparison.options
    return (
        f"{of.connections} connections, closed loop; holds of {of.hold:g} s in reserve-first; buyers come back for "
        f"{of.patience_s:g} s after everybody has come; seed {of.seed}. Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}."
    )
