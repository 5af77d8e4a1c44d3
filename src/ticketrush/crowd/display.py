"""What a rush shows on the terminal: how far it is, and what came out."""

from __future__ import annotations

from types import TracebackType
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ticketrush.crowd import history as h
from ticketrush.crowd.operator import Level
from ticketrush.crowd.report import Report, RushResult
from ticketrush.crowd.wording import VERDICTS, brief, left_over, node_names, units, verdict

PLAIN_EVERY_S: Final = 5.0

_STYLES: Final = {"holds": "green", "broken": "bold red", "vacuous": "yellow"}


class Display:
    """Shows progress on standard error while the crowd is at work: live on a terminal, else a few lines."""

    def __init__(self, buyers: int, tickets: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._buyers = buyers
        self._tickets = tickets
        self._last: h.Progress | None = None
        self._level: Level | None = None
        self._plain_at_s = 0.0
        self._view: Live | None = None
        if self._console.is_terminal:
            self._view = Live(console=self._console, auto_refresh=False, transient=True)

    @property
    def live(self) -> bool:
        """Whether somebody watches on a terminal."""
        return self._view is not None

    def __enter__(self) -> Self:
        if self._view is not None:
            self._view.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._view is not None:
            self._view.stop()

    def wants(self, now: h.Progress) -> bool:
        """Whether it is time to show something again."""
        return self.live or now.at_s >= self._plain_at_s

    def say(self, text: str) -> None:
        """Show a line of text."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def show(self, now: h.Progress, level: Level | None) -> None:
        """Show `now` if it is time; `level` is the stock, None if it is not known."""
        self._level = level or self._level
        if not self.wants(now):
            return
        rate = self._rate(now)  # since what was shown last
        self._last = now
        if self._view is not None:
            self._view.update(self._picture(now, rate), refresh=True)
        else:
            self._plain_at_s = now.at_s + PLAIN_EVERY_S
            facts = [
                f"{now.at_s:5.1f} s",
                f"{now.buyers:,} of {self._buyers:,} buyers",
                f"{now.answers[h.HELD]:,} reserved",
                f"{now.answers[h.PAID]:,} of {self._tickets:,} paid",
            ]
            if rate:
                facts.append(f"{rate:,.0f} requests/s")
            if now.p99_us:
                facts.append(f"p99 {now.p99_us / 1_000:.1f} ms")
            self.say("  ".join([*facts, *filter(None, [self._why_waiting(now)])]))

    def _why_waiting(self, now: h.Progress) -> str:
        """What is waited for when everybody has come, "" before."""
        if now.buyers < self._buyers or self._level is None:
            return ""
        if not self._level.held:
            return "waiting for those who were told to come back"
        return f"waiting for {units(self._level.held, 'hold')} to be paid or to end"

    def _rate(self, now: h.Progress) -> float:
        if self._last is None or now.at_s <= self._last.at_s:
            return sum(now.answers) / now.at_s if now.at_s else 0.0
        return (sum(now.answers) - sum(self._last.answers)) / (now.at_s - self._last.at_s)

    def _picture(self, now: h.Progress, rate: float) -> Group:
        level = self._level
        sold = level.sold if level else now.answers[h.PAID]
        bars = Table.grid(padding=(0, 2))
        bars.add_column(style="dim")
        bars.add_column(width=40)
        bars.add_column(justify="right")
        bars.add_row("buyers", ProgressBar(self._buyers, now.buyers), f"{now.buyers:,} of {self._buyers:,}")
        bars.add_row("sold", ProgressBar(self._tickets, sold, complete_style="green"), f"{sold:,} of {self._tickets:,}")
        facts = Text("  ").join(
            Text.assemble((f"{name} ", "dim"), (value, "bold"))
            for name, value in (
                ("time", f"{now.at_s:5.1f} s"),
                ("held", f"{level.held if level else 0:>6,}"),
                ("requests/s", f"{rate:>7,.0f}"),
                ("p99", f"{now.p99_us / 1_000:6.1f} ms"),
            )
        )
        return Group(bars, facts, Text(self._why_waiting(now), "dim"))


def summary(result: RushResult) -> Group:
    """The result for a terminal: verdict, figures, audit."""
    report = result.report
    figures = Table.grid(padding=(0, 3))
    figures.add_column(style="dim")
    figures.add_column(justify="right")
    figures.add_column(style="dim")
    figures.add_column(justify="right")
    latency = report.latency_ms
    who = "nodes and Valkey" if report.extra.clustered else "server"
    rows = (
        ("buyers", f"{report.buyers:,}", "seconds", f"{report.seconds:,.1f}"),
        ("tickets", f"{report.tickets:,}", "requests", f"{report.requests:,}"),
        ("paid", f"{report.paid:,}", "requests/s", f"{report.requests_per_s:,}"),
        ("oversold", f"{report.oversold:,}", "reservations/s at first", f"{report.reserve_per_s:,}"),
        ("undersold", left_over(report), "latency p50 · p99", f"{latency['p50']:.1f} · {latency['p99']:.1f} ms"),
        ("lost", f"{report.lost:,}", f"{who} CPU a request", f"{report.server_cpu_us_per_request:.1f} µs"),
        ("unexpected", f"{report.unexpected:,}", f"{who} memory", f"{report.server_rss_mb:,.0f} MB"),
    )
    for row in rows:
        figures.add_row(*row)
    if report.extra.orders is not None:
        late = report.extra.orders_drained_s
        figures.add_row(
            "orders", f"{report.extra.orders:,}", "all stored after", "never" if late is None else f"{late:.2f} s"
        )
    verdicts = {name: verdict(report, name) for name in report.audit}
    audits = Text("  ").join(Text(f"{name} {VERDICTS[it]}", style=_STYLES[it]) for name, it in verdicts.items())
    if "vacuous" in verdicts.values():
        audits.append("   – nothing to check it with", "dim")
    title = Text(brief(report), "bold green" if result.ok else "bold red")
    troubles = [Text(f"  {trouble}", style="red") for trouble in _troubles(result)]
    nodes = [_nodes(report)] if report.extra.clustered else []
    return Group(Text(), title, *troubles, Text(), figures, *nodes, Text(), audits)


def _nodes(report: Report) -> Table:
    table = Table.grid(padding=(0, 3))
    table.add_row()
    for name, node in zip(node_names(report), report.nodes, strict=True):
        fate = Text("killed", "yellow") if node.killed else Text("")
        table.add_row(Text(name, "dim"), node.url, f"{node.requests:,} requests", fate)
    return table


def _troubles(result: RushResult) -> list[str]:
    extra = result.report.extra
    errors = result.report.answers["error"] + extra.payments["error"]
    troubles = [] if extra.finished else ["The crowd went home at the time limit, before all was done."]
    if errors:
        troubles.append(f"{errors:,} answers that should not have come, for example:")
        troubles += [f"{sample.status} to {sample.asked}: {sample.body}" for sample in extra.unexpected_answers[:3]]
    return troubles + extra.violations + extra.deaths
