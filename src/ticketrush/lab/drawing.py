"""The hosts of a lab as an inline SVG, in the colours of the page."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Final

from ticketrush.crowd.svg import BOTTOM, LEFT, RIGHT, TOP, Plot, draw
from ticketrush.lab.plan import CLIENTS, ROUTER, WITNESS, LabPlan

WIDTH: Final = 1_040
_BOX_W: Final = 120
_BOX_H: Final = 34
_ROW: Final = 58
_APART: Final = 15
"""Numbers that are less apart are drawn one below the other."""


def draw_with_moments(plot: Plot, moments: Sequence[tuple[float, bool]]) -> str:
    """The plot, with a numbered upright line at each moment (its x, and whether it is the fault), in their order."""
    first, last = plot.x[0], plot.x[-1]
    lines, before, row = [], -float(plot.width), 0
    for number, (x, is_fault) in enumerate(moments, start=1):
        at = LEFT + (x - first) / (last - first) * (plot.width - LEFT - RIGHT)
        row = row + 1 if at - before < _APART else 0
        before = at
        color, width = ("red", 2) if is_fault else ("blue", 1)
        lines.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{plot.height - BOTTOM}" '
            f'style="stroke:var(--c-{color})" stroke-width="{width}" stroke-dasharray="4 3"/>'
            f'<text x="{at + 4:.1f}" y="{TOP + 10 + 13 * row}" style="fill:var(--c-{color});font-weight:700">'
            f"{number}</text>"
        )
    return draw(plot).replace("</svg>", f"{''.join(lines)}</svg>")


def draw_hosts(plan: LabPlan, dead: set[str]) -> str:
    """Rows of hosts from the clients down to the ledger; those in `dead` were killed."""
    top = [CLIENTS, *([WITNESS] if plan.watchers else [])]
    rows = [top, [ROUTER], *([place.name for place in places] for places in (plan.balancers, plan.nodes, plan.ledgers))]
    where = {name: _place(number, len(row), level) for level, row in enumerate(rows) for number, name in enumerate(row)}
    cables = "".join(_cable(where[one], where[other]) for one, other in _cables(plan, rows))
    boxes = "".join(_box(name, at, is_dead=name in dead) for name, at in where.items())
    height = _ROW * len(rows)
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="The hosts of the lab" '
        f'style="width:100%;height:auto">{cables}{boxes}</svg>'
    )


def _place(number: int, count: int, level: int) -> tuple[float, float]:
    """The middle of a box."""
    return WIDTH * (number + 0.5) / count, _ROW * (level + 0.5)


def _cables(plan: LabPlan, rows: list[list[str]]) -> list[tuple[str, str]]:
    """Who speaks to whom: to every host of the next row, among the nodes' and ledgers' rows too."""
    found = [(name, ROUTER) for name in rows[0]] + [(ROUTER, name) for name in rows[2]]
    found += [(balancer, node) for balancer in rows[2] for node in rows[3]]
    return found + [(node, plan.ledgers[0].name) for node in rows[3]]


def _cable(one: tuple[float, float], other: tuple[float, float]) -> str:
    return (
        f'<line x1="{one[0]:.0f}" y1="{one[1] + _BOX_H / 2:.0f}" x2="{other[0]:.0f}" y2="{other[1] - _BOX_H / 2:.0f}" '
        'style="stroke:var(--c-grey)" stroke-width="1" opacity="0.5"/>'
    )


def _box(name: str, at: tuple[float, float], *, is_dead: bool) -> str:
    color = "red" if is_dead else "green"
    dashes = ' stroke-dasharray="5 4"' if is_dead else ""
    return (
        f'<rect x="{at[0] - _BOX_W / 2:.0f}" y="{at[1] - _BOX_H / 2:.0f}" width="{_BOX_W}" height="{_BOX_H}" rx="7" '
        f'fill="none" style="stroke:var(--c-{color})" stroke-width="2"{dashes}/>'
        f'<text x="{at[0]:.0f}" y="{at[1] + 4:.0f}" text-anchor="middle" fill="currentColor" font-size="13">'
        f"{html.escape(name)}</text>"
    )
