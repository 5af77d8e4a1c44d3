"""Plots as inline SVG, drawn for light and dark pages: colours are CSS variables of the page.

What the pointer shows (a line, and the values at it) comes from the numbers in ``data-plot``, read
by the page's script. Without a script the plots are complete, only silent.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import msgspec

LEFT: Final = 56
RIGHT: Final = 16
TOP: Final = 12
BOTTOM: Final = 30


@dataclass(frozen=True, slots=True)
class Series:
    """One line or layer: `color` names a CSS variable (``--c-<color>``), `values` go with the plot's x."""

    name: str
    color: str
    values: Sequence[float]


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot of some series over the same x. `x_ticks` are (x, label); `x_name` labels one x for the pointer."""

    label: str
    x: Sequence[float]
    x_ticks: Sequence[tuple[float, str]]
    x_name: Callable[[int], str]
    series: Sequence[Series]
    value_name: Callable[[float], str]
    kind: Literal["layers", "lines"] = "lines"
    log: bool = False
    width: int = 520
    height: int = 260


def short(value: float) -> str:
    """A number for an axis: 950, 12k, 1.5M."""
    for size, suffix in ((1_000_000, "M"), (1_000, "k")):
        if abs(value) >= size:
            return f"{value / size:.1f}".rstrip("0").rstrip(".") + suffix
    return f"{value:g}"


def ticks(largest: float, about: int = 4) -> list[float]:
    """Round numbers from 0 up to `largest` or just above."""
    if largest <= 0:
        return [0.0, 1.0]
    raw = largest / about
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw * 0.999)
    return [step * number for number in range(math.ceil(largest / step - 1e-9) + 1)]


def time_ticks(last_s: float) -> list[tuple[float, str]]:
    """Ticks of a time axis that ends at `last_s`."""
    return [(tick, f"{tick:g} s") for tick in ticks(last_s, 6) if tick <= last_s * 1.001]


def draw(plot: Plot) -> str:
    """The plot as an ``<svg>`` element."""
    return _Drawing(plot).svg()


class _Drawing:
    def __init__(self, plot: Plot) -> None:
        self.plot = plot
        self.tops = _stacked(plot.series) if plot.kind == "layers" else [list(of.values) for of in plot.series]
        largest = max((value for of in self.tops for value in of), default=1.0)
        if plot.log:
            smallest = min((value for of in self.tops for value in of if value > 0), default=1.0)
            low, high = math.floor(math.log10(smallest)), math.ceil(math.log10(max(largest, smallest * 1.01)))
            self.y_ticks = [10.0**power for power in range(low, max(high, low + 1) + 1)]
        else:
            self.y_ticks = ticks(largest)
        self.x_low, self.x_high = (plot.x[0], plot.x[-1]) if len(plot.x) > 1 else (0.0, 1.0)

    def x_at(self, value: float) -> float:
        span = (self.x_high - self.x_low) or 1.0
        return LEFT + (value - self.x_low) / span * (self.plot.width - LEFT - RIGHT)

    def y_at(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        if self.plot.log:
            share = math.log10(max(value, low) / low) / math.log10(high / low)
        else:
            share = (value - low) / (high - low)
        return self.plot.height - BOTTOM - share * (self.plot.height - BOTTOM - TOP)

    def svg(self) -> str:
        plot = self.plot
        parts = [*self._grid(), *(self._layers() if plot.kind == "layers" else self._lines())]
        parts.append(f'<line class="at" y1="{TOP}" y2="{plot.height - BOTTOM}"/>')
        data = html.escape(msgspec.json.encode(self._data()).decode())
        return (
            f'<svg viewBox="0 0 {plot.width} {plot.height}" role="img" aria-label="{html.escape(plot.label)}" '
            f'data-plot="{data}">{"".join(parts)}</svg>'
        )

    def _grid(self) -> list[str]:
        plot, parts = self.plot, []
        for tick in self.y_ticks:
            y = self.y_at(tick)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{plot.width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{short(tick)}</text>')
        for value, label in plot.x_ticks:
            if self.x_low <= value <= self.x_high:
                x, y = self.x_at(value), plot.height - BOTTOM
                parts.append(f'<line class="tick" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 4}"/>')
                parts.append(f'<text x="{x:.1f}" y="{y + 19}" text-anchor="middle">{html.escape(label)}</text>')
        return parts

    def _lines(self) -> list[str]:
        return [
            f'<path class="line" style="stroke:var(--c-{of.color})" d="{self._path(self.tops[number])}"/>'
            for number, of in enumerate(self.plot.series)
        ]

    def _layers(self) -> list[str]:
        parts = []
        below = [0.0] * len(self.plot.x)
        for number, of in enumerate(self.plot.series):
            top = self.tops[number]
            back = " ".join(
                f"{self.x_at(x):.1f},{self.y_at(y):.1f}"
                for x, y in zip(reversed(self.plot.x), reversed(below), strict=True)
            )
            path = f"{self._path(top)} L{back} Z"
            parts.append(f'<path class="layer" style="fill:var(--c-{of.color})" d="{path}"/>')
            below = top
        return parts

    def _path(self, values: Sequence[float]) -> str:
        points = [f"{self.x_at(x):.1f},{self.y_at(y):.1f}" for x, y in zip(self.plot.x, values, strict=True)]
        return "M" + " ".join(points)

    def _data(self) -> dict[str, object]:
        plot = self.plot
        return {
            "w": plot.width,
            "x": [round(self.x_at(x), 1) for x in plot.x],
            "names": [plot.x_name(index) for index in range(len(plot.x))],
            "rows": [
                {"name": of.name, "color": of.color, "values": [plot.value_name(value) for value in of.values]}
                for of in (reversed(plot.series) if plot.kind == "layers" else plot.series)
            ],
        }


def _stacked(series: Sequence[Series]) -> list[list[float]]:
    tops: list[list[float]] = []
    for of in series:
        below = tops[-1] if tops else [0.0] * len(of.values)
        tops.append([low + value for low, value in zip(below, of.values, strict=True)])
    return tops
