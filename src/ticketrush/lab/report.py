"""The scenarios of a lab as one HTML page that needs nothing else."""

from __future__ import annotations

import html
import platform
from collections.abc import Sequence
from typing import Final

from ticketrush.crowd.frame import frame
from ticketrush.crowd.page import legend
from ticketrush.crowd.svg import Plot, Series, draw, time_ticks
from ticketrush.crowd.wording import PLAIN, VERDICTS
from ticketrush.lab.drawing import draw_hosts
from ticketrush.lab.outcome import STEP_S, Outcome
from ticketrush.lab.scenarios import SCENARIOS

_COLORS: Final = {
    "done": ("Had what they asked for", "green"),
    "refused": ("Told: sold out", "grey"),
    "busy": ("Not now, come back", "amber"),
    "silent": ("No answer", "red"),
}

_FIGURES: Final = {
    "route_s": "the router leads past it after",
    "withdrawn_s": "the balancer withdraws the address after",
    "back_s": "once it is well, it is led to again after",
    "noticed_s": "no more requests are tried on it after",
    "promoted_s": "another primary is named after",
    "rto_s": "somebody buys again after",
    "silence_s": "longest time without an answer to anybody",
    "last_unanswered_s": "last new request that got no answer, sent after",
    "last_repeat_unanswered_s": "last repeated request that got no answer, sent after",
}


def page(outcomes: Sequence[Outcome]) -> str:
    """The whole page."""
    is_well = all(found.ok for found in outcomes)
    verdict = "All that is promised was so" if is_well else "Not all is well"
    mark = VERDICTS["holds" if is_well else "broken"]
    handed_on_by = outcomes[0].handed_on_by
    main = (
        f'<header><div class="brand"><span>ticketrush · edge lab</span><span class="verdict '
        f'{"good" if is_well else "bad"}">{mark} {verdict}</span></div>'
        "<h1>The front door, failed on purpose in the middle of a sale.</h1>"
        f'<p class="lead">Every host is a network namespace with real programs: FRR, {html.escape(handed_on_by)} '
        "in the place of LVS, Nginx, nodes, Valkey. All of their configuration is rendered from one cluster file.</p>"
        "</header>"
        f'<section class="tiles">{"".join(map(_tile, outcomes))}</section>'
        f'<section class="cards">{_recovery(outcomes)}{"".join(map(_card, outcomes))}</section>'
        f"<footer>Python {platform.python_version()}, {platform.system()} {platform.release()}.</footer>"
    )
    return frame("ticketrush: the front door's lab", main)


def _tile(found: Outcome) -> str:
    mark = VERDICTS["holds" if found.ok else "broken"]
    note = f"{found.sold:,} of {found.tickets:,} sold, {found.lost:,} lost"
    wrong = "" if found.ok else " wrong"
    return f'<div class="tile{wrong}"><span>{html.escape(found.name)}</span><b>{mark}</b><i>{note}</i></div>'


def _recovery(outcomes: Sequence[Outcome]) -> str:
    """What the loss of a site costs, by durability; "" if no site was lost."""
    rows = "".join(
        f"<tr><td>{html.escape(found.durability)}</td><td>{found.figures['rpo_reservations']:,.0f} of "
        f"{found.acknowledged:,}</td><td>{found.figures['rto_s']:.1f} s</td></tr>"
        for found in outcomes
        if "rto_s" in found.figures
    )
    if not rows:
        return ""
    return (
        '<article class="card wide"><h2>A site is lost</h2><table><thead><tr><th>Durability</th><th>Acknowledged '
        "reservations lost (RPO)</th><th>Until somebody buys again (RTO)</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></article>"
    )


def _card(found: Outcome) -> str:
    return (
        f'<article class="card wide"><h2>{html.escape(found.title)}</h2>'
        f"<p>{found.buyers:,} buyers, {found.tickets:,} tickets, durability {html.escape(found.durability)}; "
        f"{found.seconds:.1f} s.</p>{_picture(found)}{_troubles(found)}{_promises(found)}"
        f'<div class="scroll">{_over_time(found)}</div>{_timeline(found)}{_figures(found)}{_shares(found)}'
        f"{_audit(found)}</article>"
    )


def _picture(found: Outcome) -> str:
    scenario = SCENARIOS.get(found.name)
    if scenario is None:
        return ""
    faults = " ".join(moment.what for moment in found.timeline if moment.is_fault)
    words = set(faults.replace(",", " ").replace(":", " ").split())
    return draw_hosts(scenario.plan, words)


def _troubles(found: Outcome) -> str:
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in (*found.violations, *found.odd))
    return f'<div class="trouble"><ul>{lines}</ul></div>' if lines else ""


def _promises(found: Outcome) -> str:
    items = "".join(
        f'<li class="{"holds" if promise.holds else "broken"}"><mark>{VERDICTS["holds" if promise.holds else "broken"]}'
        f"</mark><div><h3>{html.escape(promise.text)}</h3></div></li>"
        for promise in found.promises
    )
    return f'<ul class="audit">{items}</ul>'


def _over_time(found: Outcome) -> str:
    steps = len(found.curve["done"])
    if steps < 2:
        return "<p>Nothing happened.</p>"
    at_s = [number * STEP_S for number in range(steps)]
    series = [
        Series(*_COLORS[name], [count / STEP_S for count in counts])
        for name, counts in found.curve.items()
        if name in _COLORS
    ]
    plot = Plot(
        label="Answers per second by kind",
        x=at_s,
        x_ticks=time_ticks(at_s[-1]),
        x_name=lambda index: f"{at_s[index]:.1f} s",
        series=series,
        value_name=lambda value: f"{value:,.0f}",
        kind="layers",
        width=1080,
        height=260,
    )
    return legend(series) + draw(plot)


def _timeline(found: Outcome) -> str:
    rows = "".join(
        f"<li>{'<b>' if moment.is_fault else ''}{moment.at_s:.2f} s: {html.escape(moment.what)}"
        f"{'</b>' if moment.is_fault else ''}</li>"
        for moment in found.timeline
    )
    return f"<ol>{rows}</ol>" if rows else ""


def _figures(found: Outcome) -> str:
    said = [f"{text} {found.figures[name]:.2f} s" for name, text in _FIGURES.items() if name in found.figures]
    return f"<p>After the fault: {html.escape('; '.join(said))}.</p>" if said else ""


def _shares(found: Outcome) -> str:
    parts = []
    for kind, counts in found.requests.items():
        largest = max(counts.values(), default=0) or 1
        rows = "".join(
            f'<span>{html.escape(name)}</span><u style="--key:var(--c-blue);width:{count / largest * 100:.1f}%"></u>'
            f"<b>{count:,}</b>"
            for name, count in counts.items()
        )
        parts.append(f'<p>Requests, by {html.escape(kind)}</p><div class="told">{rows}</div>')
    return "".join(parts)


def _audit(found: Outcome) -> str:
    said = []
    for name, holds in found.audit.items():
        verdict = "vacuous" if name in found.vacuous else "holds" if holds else "broken"
        said.append(f'<span title="{html.escape(PLAIN[name][0])}">{VERDICTS[verdict]} {name}</span>')
    return f"<p>The audit: {' '.join(said)}</p>"
