"""Measures ticketrush against nginx answering the same requests, side by side in one run.

`run` measures, `report` draws the result for a terminal, `BenchResult.to_json` writes it down.
How to read the figures is in ``docs/performance.md``.
"""

from __future__ import annotations

from ticketrush.bench.errors import BenchError
from ticketrush.bench.options import BenchOptions
from ticketrush.bench.result import BenchResult
from ticketrush.bench.rounds import run
from ticketrush.bench.tables import report

__all__ = ["BenchError", "BenchOptions", "BenchResult", "report", "run"]
