"""`ticketrush audit`."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer
from rich.table import Table

from ticketrush.audit import audit as check
from ticketrush.cli import output
from ticketrush.cli.app import Exit, RefusedError, UsageError
from ticketrush.cli.client import Client
from ticketrush.cli.flags import Config, Token, flag, settings_of
from ticketrush.clock import SystemClock
from ticketrush.cluster.plan import SHARED
from ticketrush.crowd.wording import units
from ticketrush.errors import JournalError
from ticketrush.ledger.embedded import read_for_audit
from ticketrush.settings import Settings, without_password

PROMISES: Final = {
    "I1": "never more held and sold than there is",
    "I2": "capacity = available + leased + held + sold",
    "I3": "every acknowledged reservation is there, with one order",
    "I4": "no reservation that nobody asked for",
    "I5": "one effect for each idempotency key",
    "I6": "no buyer above the purchase limit",
    "I7": "no unit stranded while somebody wants it",
    "I8": "the state equals the replay of its events",
}

EPILOG = """Examples: `ticketrush audit tickets.db` reads the journal itself; the server may go on. ·
`ticketrush audit --url http://127.0.0.1:8000` asks a server, with an operator's token in TICKETRUSH_TOKEN."""


def _url_of(ledger: str | None) -> str | None:
    """The URL of a ledger that may be named by its file alone."""
    return ledger if ledger is None or "://" in ledger else f"sqlite:///{ledger}"


def audit(
    ctx: typer.Context,
    ledger: Annotated[
        str | None,
        typer.Argument(metavar="[LEDGER]", help="The ledger: a file, or like sqlite:///tickets.db.", callback=_url_of),
    ] = None,
    url: Annotated[
        str | None, flag("AUDIT_URL", "Ask this server instead of reading a ledger.", "--url", metavar="URL")
    ] = None,
    token: Token = None,
    config: Config = None,
    as_json: Annotated[bool, flag("AUDIT_JSON", "Print the report as JSON.", "--json")] = False,
) -> None:
    """Check the invariants I1 to I8 over the whole journal; exit code 0 only if all hold.

    An audit after the fact does not know what buyers were told, so it says which invariants had
    nothing to be checked against. `ticketrush rush` audits with that knowledge.
    """
    report = _ask(url, token) if url else _read(settings_of(ctx))
    if as_json:
        output.as_json(report)
    else:
        show_report(report)
    if not all(report.get(name) for name in PROMISES):
        raise typer.Exit(Exit.NOT_WELL)


def _ask(url: str, token: str | None) -> dict[str, Any]:
    report = Client(url, token).call("GET", "/v1/audit").get("report")
    if not isinstance(report, dict) or not report.keys() >= PROMISES.keys():
        raise RefusedError(f"{url} answered no audit report; is it a ticketrush server?")
    return report


def _read(settings: Settings) -> dict[str, Any]:
    if settings.ledger.startswith(SHARED):
        raise UsageError(
            f"{without_password(settings.ledger)} is read through one of its nodes: "
            "ask it with `ticketrush audit --url http://127.0.0.1:8000`, or use `ticketrush reconcile --check`"
        )
    if not settings.ledger_path.exists():
        raise JournalError(
            f"there is no journal {settings.ledger_path}; name its file, like `ticketrush audit tickets.db`, "
            "or ask a server with --url"
        )
    events, state = read_for_audit(settings.ledger_path)
    report = check(events, state=state, now_ms=SystemClock().now_ms())
    return report.to_dict()


def show_report(report: dict[str, Any]) -> None:
    """Print the verdicts of an audit as a table."""
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    table.add_column("invariant")
    table.add_column("verdict")
    for name, promise in PROMISES.items():
        verdict = "[red]violated[/]" if not report[name] else "[green]holds[/]"
        if name in report["vacuous"]:
            verdict = "[yellow]nothing to check it with[/]"
        table.add_row(name, promise, verdict)
    output.console().print(table)
    output.say(
        f"{units(report['events'], 'event')}, {units(report['reservations'], 'reservation')}: "
        f"{units(report['held'], 'unit')} held, {report['sold']:,} sold; oversold {report['oversold']:,}, "
        f"lost {report['lost']:,}, unexpected {report['unexpected']:,}"
    )
    for sentence in report["violations"]:
        output.say(sentence, "red")
