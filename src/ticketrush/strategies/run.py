"""A comparison from beginning to end: each strategy gets the same crowd, one after the other."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from ticketrush import stop
from ticketrush.crowd import history as h
from ticketrush.crowd.display import PLAIN_EVERY_S
from ticketrush.crowd.errors import Stopped
from ticketrush.crowd.history import Door, Plan
from ticketrush.crowd.operator import address_of
from ticketrush.crowd.send import send
from ticketrush.strategies.options import StrategyOptions
from ticketrush.strategies.product import SALE
from ticketrush.strategies.result import Comparison, Measured, make
from ticketrush.strategies.rivals import Entry, entries, postgres_for, rival
from ticketrush.strategies.store import ITEM

NOBODY: Final = b""
"""No secret: buyers show their names, which open servers take."""

_OnProgress = Callable[[h.Progress], None]


def run(options: StrategyOptions) -> Comparison:
    """Measure every strategy. Progress goes to standard error.

    Raises:
        StrategyError: a server did not start, or did not end as it should.
        CrowdError: the crowd could not do its work.
        NotInstalled: PostgreSQL or its driver is wanted, and is not there.
        Stopped: Ctrl-C, SIGTERM or SIGHUP came; no process, no folder and no database is left.
    """
    done: list[Measured] = []
    try:
        with stop.by_signals():
            return _run(options, done)
    except stop.Stop as stopped:
        who = "Ctrl-C" if stopped.signal == signal.SIGINT else signal.Signals(stopped.signal).name
        names = ", ".join(of.name for of in done) or "nothing"
        raise Stopped(f"stopped by {who}; measured by then: {names}", stopped.signal) from None


def _run(options: StrategyOptions, done: list[Measured]) -> Comparison:
    with _folder() as folder, postgres_for(options, folder) as postgres, _shown(options) as show:
        for entry in entries(options):
            measured = _measure(entry, options, folder, postgres, show(entry))
            done.append(measured)  # one by one: who stops it is told what was measured by then
    return Comparison(options, done)


def _measure(entry: Entry, options: StrategyOptions, folder: Path, postgres: str, on_progress: _OnProgress) -> Measured:
    progress: list[h.Progress] = []

    def note(now: h.Progress) -> None:
        progress.append(now)
        on_progress(now)

    with rival(entry, options, folder, postgres) as server:
        history = send(_plan(options, server.url), note)
        books = server.books()
    return make(entry, options, history, books, progress)


def _plan(options: StrategyOptions, url: str) -> Plan:
    crowd = options.crowd
    return Plan(
        doors=[Door(*address_of(url), options.connections)],
        sale=SALE,
        item=ITEM,
        buyers=options.buyers,
        tickets=options.tickets,
        arrivals=0.0,
        shares=crowd.shares,
        limit=1,
        hold_s=options.hold,
        seed=options.seed,
        secret=NOBODY,
        audience="",
        expires_at_s=0,
        time_limit_s=options.time_limit_s,
        linger_s=options.patience_s,
        comebacks_max=crowd.comebacks_max,
    )


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with contextlib.ExitStack() as stack:
        with stop.postponed():
            folder = Path(tempfile.mkdtemp(prefix="ticketrush-strategies-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


class _Lines:
    """Says that a strategy is measured now, and every few seconds how far it is."""

    def __init__(self, console: Console, name: str, buyers: int) -> None:
        self._console, self._name, self._buyers = console, name, buyers
        self._next_s = PLAIN_EVERY_S
        self._say("begins")

    def __call__(self, now: h.Progress) -> None:
        if now.at_s >= self._next_s:
            self._next_s = now.at_s + PLAIN_EVERY_S
            self._say(f"{now.at_s:.1f} s, {now.buyers:,} of {self._buyers:,} buyers, {now.answers[h.PAID]:,} paid")

    def _say(self, words: str) -> None:
        self._console.print(f"{self._name}: {words}", soft_wrap=True, markup=False)


@contextlib.contextmanager
def _shown(options: StrategyOptions) -> Iterator[Callable[[Entry], _OnProgress]]:
    """How many buyers have come, strategy by strategy: bars on a terminal, else a line now and then."""
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield lambda entry: _Lines(console, entry.name, options.buyers)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:

        def show(entry: Entry) -> _OnProgress:
            bar = bars.add_task(entry.name, total=options.buyers)
            return lambda now: bars.update(bar, completed=now.buyers)

        yield show
