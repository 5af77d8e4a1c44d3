"""The report as one HTML page that needs nothing else: no script, style or picture from elsewhere."""

from __future__ import annotations

import html
import math
import platform
from importlib.resources import files
from itertools import pairwise
from string import Template
from typing import Final

from ticketrush.crowd import history as h
from ticketrush.crowd.frame import frame
from ticketrush.crowd.report import BROKEN, CURVE, SOLD, Report, RushResult
from ticketrush.crowd.svg import Plot, Series, draw, time_ticks
from ticketrush.crowd.wording import PLAIN, VERDICTS, badge, headline, left_over, node_names, units, verdict

_TEMPLATE: Final = Template(files("ticketrush.crowd").joinpath("page.html").read_text(encoding="utf-8"))

INTERVAL_S_MIN: Final = 0.1
"""Shorter intervals (the last one) say nothing about a rate."""

_COLORS: Final = {
    "sold_out": ("Told: sold out", "grey"),
    "all_held": ("Told: all held, come back", "violet"),
    "other": ("Others", "red"),
    "paid": ("Payments", "green"),
    "held": ("Reservations", "amber"),
}


def page(result: RushResult) -> str:
    """The whole page."""
    report = result.report
    extra = report.extra
    again = " and were sold again" if extra.outcome == SOLD else ""
    rounds = f"Holds that were abandoned: {extra.expired:,}; they expired{again}. " if extra.expired else ""
    text = {
        "tone": "good" if result.ok else "bad",
        "mark": VERDICTS["holds" if result.ok else "broken" if extra.outcome == BROKEN else "vacuous"],
        "verdict": badge(report),
        "headline": headline(report),
        "lead": f"{rounds}Every answer that came was read, and every reservation was held against the journal "
        "afterwards.",
        "requests": f"{report.requests:,}",
        "latency_note": _latency_note(report),
        "footer": _footer(report),
    }
    parts = {
        "tiles": _tiles(report),
        "zeros": _zeros(report),
        "troubles": _troubles(report),
        "stock": _stock(result),
        "answers": _answers(result),
        "states": _states(result),
        "latency": _latency(result),
        "told": _told(report),
        "nodes": _nodes(report),
        "audit": _audit(report),
    }
    main = _TEMPLATE.substitute({name: html.escape(value) for name, value in text.items()} | parts)
    return frame(f"ticketrush: {report.tickets:,} tickets, {report.buyers:,} buyers", main)


def _tiles(report: Report) -> str:
    latency = report.latency_ms
    together = ", all nodes and Valkey" if report.extra.clustered else ""
    tiles = (
        ("Tickets paid", f"{report.paid:,}", "", f"of {report.tickets:,}"),
        ("Buyers served", f"{report.buyers:,}", "", f"in {report.seconds:,.1f} seconds"),
        ("Requests", f"{report.requests_per_s:,}", "/s", f"{report.requests:,} in all"),
        ("Reservations", f"{report.reserve_per_s:,}", "/s", "while the stock was first taken"),
        ("Median latency", f"{latency['p50']:.1f}", " ms", "half of all requests are faster"),
        ("99th percentile", f"{latency['p99']:.1f}", " ms", f"slowest of all {latency['max']:,.0f} ms"),
        ("Server CPU", f"{report.server_cpu_us_per_request:.1f}", " µs", f"for each request{together}"),
        ("Server memory", f"{report.server_rss_mb:,.0f}", " MB", f"at its peak{together}"),
    )
    return "".join(
        f'<div class="tile"><span>{name}</span><b>{value}<small>{unit}</small></b><i>{note}</i></div>'
        for name, value, unit, note in tiles
    )


def _zeros(report: Report) -> str:
    missed = left_over(report)
    fine = {"0", VERDICTS["vacuous"]}
    zeros = (
        ("oversold", f"{report.oversold:,}", "more than there are"),
        ("undersold", missed, "not checked" if missed == VERDICTS["vacuous"] else "left over though wanted"),
        ("lost", f"{report.lost:,}", "told, but not in the journal"),
        ("unexpected", f"{report.unexpected:,}", "that nobody asked for"),
    )
    return "".join(
        f'<div class="tile{"" if count in fine else " wrong"}"><b>{count}</b><span>{name}<i>{note}</i></span></div>'
        for name, count, note in zeros
    )


def _troubles(report: Report) -> str:
    extra = report.extra
    lines = [] if extra.finished else ["The crowd went home at the time limit, before all was done."]
    lines += [f"{sample.status} to {sample.asked}: {sample.body}" for sample in extra.unexpected_answers]
    lines += [*extra.violations, *extra.deaths]
    if not lines:
        return ""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f'<section class="card trouble"><h2>What is wrong</h2><ul>{items}</ul></section>'


def legend(series: list[Series]) -> str:
    """The names of the series of a plot, with their colours."""
    keys = "".join(f'<span style="--key:var(--c-{of.color})">{html.escape(of.name)}</span>' for of in series)
    return f'<div class="legend">{keys}</div>'


def _over_time(label: str, at_s: list[float], series: list[Series], *, layers: bool, width: int, height: int) -> str:
    if len(at_s) < 2:
        return "<p>Nothing happened.</p>"
    plot = Plot(
        label=label,
        x=at_s,
        x_ticks=time_ticks(at_s[-1]),
        x_name=lambda index: f"{at_s[index]:.2f} s",
        series=series,
        value_name=lambda value: f"{value:,.0f}",
        kind="layers" if layers else "lines",
        width=width,
        height=height,
    )
    return legend(series) + draw(plot)


def _stock(result: RushResult) -> str:
    moments = result.moments
    series = [
        Series("Sold", "green", [float(moment.sold) for moment in moments]),
        Series("Held, not paid yet", "amber", [float(moment.held) for moment in moments]),
        Series("Available", "grey", [float(moment.available) for moment in moments]),
    ]
    at_s = [moment.at_s for moment in moments]
    return _over_time("Units sold, held and available over time", at_s, series, layers=True, width=1080, height=300)


def _states(result: RushResult) -> str:
    moments = result.moments
    series = [
        Series("Made", "blue", [float(moment.reserved) for moment in moments]),
        Series("Paid", "green", [float(moment.paid) for moment in moments]),
        Series("Expired", "amber", [float(moment.expired) for moment in moments]),
    ]
    if any(moment.returned for moment in moments):
        series.append(Series("Cancelled or refunded", "red", [float(moment.returned) for moment in moments]))
    at_s = [moment.at_s for moment in moments]
    return _over_time("Reservations made, paid, expired", at_s, series, layers=False, width=520, height=260)


def _answers(result: RushResult) -> str:
    at_s: list[float] = []
    rates: dict[str, list[float]] = {name: [] for name in _COLORS}
    start = h.Progress(0.0, 0, [0] * len(h.ANSWERS), 0)
    for before, now in pairwise([start, *result.progress]):
        length_s = now.at_s - before.at_s
        if length_s < INTERVAL_S_MIN:
            continue
        at_s += [before.at_s, now.at_s]  # a step: the rate is of the whole interval
        counts = dict(zip(h.ANSWERS, (n - b for n, b in zip(now.answers, before.answers, strict=True)), strict=True))
        counts["other"] = sum(count for name, count in counts.items() if name not in _COLORS)
        for name, row in rates.items():
            row += [counts[name] / length_s] * 2
    series = [Series(*_COLORS[name], values) for name, values in rates.items()]
    return _over_time("Answers per second by kind", at_s, series, layers=True, width=520, height=260)


def _latency(result: RushResult) -> str:
    names = {
        "reservation": ("Reservations, durable", "amber"),
        "payment": ("Payments, durable", "green"),
        "refusal": ("Refusals", "violet"),
    }
    series = [Series(*names[name], result.curves[name]) for name in names if name in result.curves]
    if not series:
        return "<p>Nothing was answered.</p>"
    x = [-math.log10(1 - share) for share in CURVE]
    marks = {0.5: "50 %", 0.9: "90 %", 0.99: "99 %", 0.999: "99.9 %", 0.9999: "99.99 %"}
    plot = Plot(
        label="Latency in milliseconds by percentile",
        x=x,
        x_ticks=[(-math.log10(1 - share), label) for share, label in marks.items()],
        x_name=lambda index: f"{CURVE[index] * 100:g} % are faster than",
        series=series,
        value_name=lambda value: f"{value:,.2f} ms",
        log=True,
    )
    return legend(series) + draw(plot)


def _latency_note(report: Report) -> str:
    if report.extra.options["arrivals"]:
        return "Milliseconds, from the moment at which the buyer meant to ask; the scale is logarithmic."
    return "Milliseconds, from sending to the answer; the scale is logarithmic."


def _told(report: Report) -> str:
    extra = report.extra
    rows = (
        ("Reserved", report.answers["held"], "amber"),
        ("Paid", extra.payments["paid"], "green"),
        ("Sold out", report.answers["sold_out"], "grey"),
        ("All held, come back", report.answers["all_held"], "violet"),
        ("The same answer again", report.answers["replayed"], "blue"),
        ("Over the limit", report.answers["purchase_limit"], "blue"),
        ("No answer (cut or late)", extra.unknown, "blue"),
        ("Too busy, come back", extra.busy, "blue"),
        ("Payment pending or refunded", extra.payments["pending"] + extra.payments["refunded"], "blue"),
        ("Error", report.answers["error"] + extra.payments["error"], "red"),
    )
    largest = math.log10(1 + max(count for _, count, _ in rows)) or 1.0
    return (
        '<div class="told">'
        + "".join(
            f'<span>{name}</span><u style="--key:var(--c-{color});'
            f'width:{math.log10(1 + count) / largest * 100:.1f}%"></u><b>{count:,}</b>'
            for name, count, color in rows
            if count or name == "Error"
        )
        + "</div>"
    )


def _nodes(report: Report) -> str:
    """Which nodes sold, and which of them were killed; "" for a single server."""
    if not report.extra.clustered:
        return ""
    kills = {kill.node: kill for kill in report.extra.kills}
    rows = []
    for number, (name, node) in enumerate(zip(node_names(report), report.nodes, strict=True)):
        kill = kills.get(number)
        fate = f"killed after {kill.at_s:.1f} s, with {units(kill.paid, 'ticket')} paid" if kill else "lived"
        color = "red" if kill else "green"
        share = 100 * node.requests / max(1, report.requests)
        rows.append(
            f"<span>{name} <small>{html.escape(node.url)}</small></span>"
            f'<u style="--key:var(--c-{color});width:{share:.1f}%"></u><b>{node.requests:,} requests, {fate}</b>'
        )
    many = "They sold from one stock, leased in parts."
    note = f"{many} Who was cut off by a dead node asked another one, with the same key." if kills else many
    return (
        f'<article class="card wide"><h2>The nodes</h2><p>{note}</p><div class="told">{"".join(rows)}</div></article>'
    )


def _audit(report: Report) -> str:
    items = []
    for name, (title, sentence) in PLAIN.items():
        found = verdict(report, name)
        note = "Not checked, for there was nothing to check it with. The promise: " if found == "vacuous" else ""
        items.append(
            f'<li class="{found}"><mark>{VERDICTS[found]}</mark><div>'
            f"<h3>{html.escape(title)} <small>{name}</small></h3><p>{note}{html.escape(sentence)}</p></div></li>"
        )
    return "".join(items)


def _footer(report: Report) -> str:
    of = report.extra.options
    pace = f"{of['arrivals']:,.0f} buyers a second" if of["arrivals"] else "closed loop"
    return (
        f"{of['connections']:.0f} connections, {pace}; {of['abandon']:.0%} abandon, {of['duplicates']:.1%} send twice, "
        f"{of['cuts']:.2%} cut the connection, {of['breakers']:.1%} try to break the limit of {of['limit']:.0f}; "
        f"holds of {of['hold']:g} s; seed {of['seed']:.0f}. Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}."
    )
