"""The comparison for a terminal."""

from __future__ import annotations

from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ticketrush.crowd.wording import units
from ticketrush.strategies.result import Comparison, Measured

_COLUMNS: Final = (
    "requests\na second",
    "p99\nms",
    "told\nsuccess",
    "paid",
    "over-\nsold",
    "under-\nsold",
    "trans-\nactions\na sale",
)

BUYERS_MIN: Final = 1_000
"""Fewer have come before anything is warm."""

_MEANING: Final = """oversold      told success, but no ticket was left when they paid
undersold     left unpaid at the end, though somebody still wanted it
transactions  that the database committed, those that only read too"""


def summary(comparison: Comparison) -> Group:
    """A row for each strategy, what the columns mean, and what went wrong."""
    options = comparison.options
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("strategy", no_wrap=True, vertical="bottom")
    table.add_column("in", no_wrap=True, vertical="bottom")
    for name in _COLUMNS:
        table.add_column(name, justify="right", no_wrap=True, vertical="bottom")
    for of in comparison.measured:
        table.add_row(*_row(of))
    crowd = f"{units(options.buyers, 'buyer')}, {units(options.tickets, 'ticket')}, {options.abandon:.0%} never pay"
    parts: list[RenderableType] = [Text(), Text(crowd, "bold"), Text(), table, Text(), Text(_MEANING, "dim")]
    if options.buyers < BUYERS_MIN:
        few = (
            f"{units(options.buyers, 'buyer')} are too few for requests a second and p99: take them for no measurement"
        )
        parts.append(Text(few, "yellow"))
    parts += [Text(line, "red") for of in comparison.measured for line in troubles(of)]
    return Group(*parts)


def _row(of: Measured) -> list[RenderableType]:
    figures = of.figures
    return [
        Text(of.strategy),
        Text(figures.database, "dim"),
        f"{figures.requests_per_s:,}",
        f"{figures.latency_ms['p99']:,.1f}",
        f"{figures.told_success:,}",
        f"{figures.paid:,}",
        _zero(figures.oversold),
        _zero(figures.undersold),
        f"{figures.transactions_per_sale:,.2f}",
    ]


def _zero(count: int) -> Text:
    """A count that should be zero."""
    return Text(f"{count:,}", "bold red" if count else "green")


def troubles(of: Measured) -> list[str]:
    """What was not as it should be with the measurement itself."""
    figures, lines = of.figures, []
    if not figures.complete:
        lines.append(f"{of.name}: only {units(figures.buyers, 'buyer')} came before the time limit")
    if figures.undersold and of.held:
        lines.append(
            f"{of.name}: {units(of.held, 'unit')} still held when the crowd's patience ended; give it more --patience, "
            "or a shorter --hold"
        )
    if figures.errors:
        lines.append(f"{of.name}: {units(figures.errors, 'answer')} that should not have come, for example:")
        lines += [f"  {sample.status} to {sample.asked}: {sample.body}" for sample in of.samples]
    return lines
