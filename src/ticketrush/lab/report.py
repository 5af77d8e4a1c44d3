"""The scenarios of a lab as one HTML page that needs nothing else."""

from __future__ import annotations

import html
import os
import platform
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from ticketrush.crowd.frame import frame
from ticketrush.crowd.page import legend
from ticketrush.crowd.svg import Plot, Series, time_ticks
from ticketrush.crowd.wording import PLAIN, VERDICTS
from ticketrush.lab.drawing import draw_hosts, draw_with_moments
from ticketrush.lab.outcome import STEP_S, Outcome, measured
from ticketrush.lab.scenarios import SCENARIOS
from ticketrush.lab.visit import PATIENCE_S

_COLORS: Final = {
    "done": ("Had what they asked for", "green"),
    "refused": ("Told: sold out", "grey"),
    "busy": ("Not now, come back", "amber"),
    "silent": ("No answer", "red"),
}

_SHARES: Final = {
    "nodes": "Requests that each node answered (purchases and payments)",
    "proxies": "Requests that each Nginx answered, as its log says",
}


def page(outcomes: Sequence[Outcome], ended_at: datetime) -> str:
    """The whole page about what ended at that time."""
    is_well = all(found.ok for found in outcomes)
    verdict = "All that is promised was so" if is_well else "Not all is well"
    mark = VERDICTS["holds" if is_well else "broken"]
    handed_on_by = outcomes[0].handed_on_by
    main = (
        f'<header><div class="brand"><span>ticketrush · edge lab</span><span class="verdict '
        f'{"good" if is_well else "bad"}">{mark} {verdict}</span></div>'
        "<h1>The front door, failed on purpose in the middle of a sale.</h1>"
        '<p class="lead">Buyers come at a constant pace, each with a connection of its own, and repeat what is not '
        "answered. In the middle of each sale something fails; at the end an auditor compares what buyers were told "
        "with the ledger's journal.</p>"
        f'<p style="margin-top:10px">'
        f"{ended_at:%Y-%m-%d %H:%M} UTC. All hosts are network namespaces of one machine, with real programs: FRR, "
        f"{html.escape(handed_on_by)} in the place of LVS, Nginx, nodes of ticketrush, Valkey, as "
        "<code>ticketrush edge</code> configures them.</p></header>"
        f'<section class="tiles">{"".join(map(_tile, outcomes))}</section>'
        f'<section class="cards">{_recovery(outcomes)}{"".join(map(_card, outcomes))}</section>'
        f"<footer>Python {platform.python_version()}, {platform.system()} {platform.release()}, "
        f"{os.cpu_count()} processors for all hosts and the buyers together.</footer>"
    )
    return frame("ticketrush: the front door's lab", main)


def _tile(found: Outcome) -> str:
    mark = VERDICTS["holds" if found.ok else "broken"]
    note = f"{found.sold:,} of {found.tickets:,} sold, {found.lost:,} lost"
    wrong = "" if found.ok else " wrong"
    title = html.escape(found.title.partition(":")[0])
    return f'<div class="tile{wrong}"><span>{title}</span><b>{mark}</b><i>{note}</i></div>'


def _recovery(outcomes: Sequence[Outcome]) -> str:
    """What the loss of a site costs, by durability; "" if no site was lost."""
    rows = [
        (
            found.durability,
            f"{found.figures['rpo_reservations']:,.0f} of {found.acknowledged:,}",
            f"{found.figures['rto_s']:.2f} s",
        )
        for found in outcomes
        if "rto_s" in found.figures
    ]
    if not rows:
        return ""
    head = ("Durability", "Acknowledged reservations lost (RPO)", "Until somebody bought again (RTO)")
    return f'<article class="card wide"><h2>What the loss of a site costs</h2>{_table(rows, head)}</article>'


def _table(rows: Iterable[Sequence[str]], head: Sequence[str] = ()) -> str:
    def row(cells: Sequence[str], kind: str) -> str:
        return "".join(f'<{kind} style="text-align:left;padding:2px 28px 2px 0">{cell}</{kind}>' for cell in cells)

    top = f"<thead><tr>{row(head, 'th')}</tr></thead>" if head else ""
    body = "".join(f"<tr>{row([html.escape(cell) for cell in cells], 'td')}</tr>" for cells in rows)
    return f'<table style="margin:6px 0;font-size:14px;border-spacing:0">{top}<tbody>{body}</tbody></table>'


def _heading(text: str) -> str:
    return f'<p style="margin-top:18px"><b>{html.escape(text)}</b></p>'


def _card(found: Outcome) -> str:
    return (
        f'<article class="card wide"><h2>{html.escape(found.title)}</h2>'
        f"<p>{found.buyers:,} buyers wanted one of {found.tickets:,} tickets each, and got a final answer within "
        f"{found.seconds:.1f} s. Durability {html.escape(found.durability)}.</p>"
        f"{_troubles(found)}{_promises(found)}{_picture(found)}"
        f'<div class="scroll">{_over_time(found)}</div>{_timeline(found)}{_figures(found)}{_shares(found)}'
        f"{_audit(found)}</article>"
    )


def _picture(found: Outcome) -> str:
    scenario = SCENARIOS.get(found.name)
    if scenario is None:
        return ""
    faults = " ".join(moment.what for moment in found.timeline if moment.is_fault)
    words = set(faults.replace(",", " ").replace(":", " ").split())
    note = "<p>Red and dashed: where something was killed.</p>" if words else ""
    return _heading("The hosts") + note + draw_hosts(scenario.plan, words)


def _troubles(found: Outcome) -> str:
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in (*found.violations, *found.odd))
    return f'<div class="trouble"><ul>{lines}</ul></div>' if lines else ""


def _promises(found: Outcome) -> str:
    items = "".join(
        f'<li class="{"holds" if promise.holds else "broken"}"><mark>{VERDICTS["holds" if promise.holds else "broken"]}'
        f"</mark><div><h3>{html.escape(promise.text[0].upper() + promise.text[1:])}</h3></div></li>"
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
        label="Tries per second by what became of them, over the seconds since the first buyer came",
        x=at_s,
        x_ticks=time_ticks(at_s[-1]),
        x_name=lambda index: f"{at_s[index]:.1f} s",
        series=series,
        value_name=lambda value: f"{value:,.0f}",
        kind="layers",
        width=1080,
        height=260,
    )
    axes = _heading("What became of the buyers' tries") + (
        "<p>Upright: tries that ended, per second. Across: seconds since the first buyer came. "
        f"One without an answer ends when its buyer gives it up, after {PATIENCE_S:g} s.</p>"
    )
    return axes + legend(series) + draw_with_moments(plot, [(at.at_s, at.is_fault) for at in found.timeline])


def _timeline(found: Outcome) -> str:
    rows = "".join(
        f"<li>{'<b>' if moment.is_fault else ''}{moment.at_s:.2f} s: {html.escape(moment.what)}"
        f"{'</b>' if moment.is_fault else ''}</li>"
        for moment in found.timeline
    )
    return f'<ol style="margin:8px 0">{rows}</ol>' if rows else ""


def _figures(found: Outcome) -> str:
    rows = measured(found.figures)
    return _heading("Measured from the fault on") + _table(rows) if rows else ""


def _shares(found: Outcome) -> str:
    parts = []
    for kind, counts in found.requests.items():
        largest = max(counts.values(), default=0) or 1
        rows = "".join(
            f'<span>{html.escape(name)}</span><u style="--key:var(--c-blue);width:{count / largest * 100:.1f}%"></u>'
            f"<b>{count:,}</b>"
            for name, count in counts.items()
        )
        parts.append(f'{_heading(_SHARES.get(kind, kind))}<div class="told">{rows}</div>')
    return "".join(parts)


def _audit(found: Outcome) -> str:
    said = []
    for name, holds in found.audit.items():
        verdict = "vacuous" if name in found.vacuous else "holds" if holds else "broken"
        title, sentence = PLAIN[name]
        said.append(f'<span title="{html.escape(sentence)}">{VERDICTS[verdict]} {name} {html.escape(title)}</span>')
    return f"{_heading('What the auditor says of the journal')}<p>{' · '.join(said)}</p>"
