"""`ticketrush reconcile`."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, cast

import msgspec
import typer
from rich.table import Table

from ticketrush import logs
from ticketrush.audit import AuditReport
from ticketrush.audit import audit as check_all
from ticketrush.cli import output
from ticketrush.cli.app import Exit, UsageError
from ticketrush.cli.audit import show_report
from ticketrush.cli.flags import Config, flag, setting, settings_of
from ticketrush.clock import SystemClock
from ticketrush.cluster.plan import SHARED
from ticketrush.crowd.wording import units
from ticketrush.orders.recall import recall
from ticketrush.orders.reconciler import Differences, Reconciler
from ticketrush.settings import Settings, without_password
from ticketrush.wiring import ledger_of, records_of, store_of

if TYPE_CHECKING:
    from ticketrush.events import AnyEvent
    from ticketrush.ledger.redis import RedisLedger
    from ticketrush.ledger.redis_reconcile import Report

EPILOG = """Examples: `ticketrush reconcile --ledger redis://127.0.0.1:6379/0 --check` says whether all is well. ·
`TICKETRUSH_LEDGER=rediss://operator:PASSWORD@valkey:6379/0 ticketrush reconcile` keeps the password out of `ps`. ·
Exit codes: 0 all is well · 1 something is lost, oversold or violated · 2 wrong usage or settings of the server ·
3 the server does not answer, or refuses to write: run it again · 4 the order store does not answer: run it again."""

EVENTS_AT_ONCE: Final = 10_000
SHOWN_MAX: Final = 20


def reconcile(
    ctx: typer.Context,
    ledger: Annotated[str | None, setting("ledger", "--ledger", metavar="URL")] = None,
    durability: Annotated[Literal["fsync", "memory", "replica"] | None, setting("durability", "--durability")] = None,
    orders: Annotated[str | None, setting("orders", "--orders", metavar="URL")] = None,
    check: Annotated[
        bool,
        flag(
            "RECONCILE_CHECK",
            "Mend nothing: read all events and the state, and check I1 to I8.",
            "--check",
        ),
    ] = False,
    restore: Annotated[
        bool,
        flag(
            "RECONCILE_RESTORE",
            "Write reservations that only the order store knows into the ledger. The store must be of this ledger: "
            "orders of another one would take units here.",
            "--restore",
        ),
    ] = False,
    config: Config = None,
    as_json: Annotated[bool, flag("RECONCILE_JSON", "Print what was found as JSON.", "--json")] = False,
) -> None:
    """Make a ledger in Redis or Valkey whole again, and the order store agree with it.

    The ledger: all leases are void, what is taken is counted, and the stock is built anew. Nodes do this by
    themselves when another server answers in the place of the one they knew. It is for the cases that they
    cannot see: after a backup was put back, or keys were damaged. Nodes may go on; for a moment their buyers are
    answered 503 `unavailable`, then they sell under new leases. Running it when nothing is wrong is harmless,
    and so is running it again after it was interrupted.

    Reservations that a server has forgotten are written again by the nodes that acknowledged them in the last
    minute, when they see that server. What no living node remembers, this command writes again, with the same ids,
    with --restore and --orders that names a store that knows it. It has to be soon: what was sold to others by then is
    lost, and told. Without --restore such orders are only counted.

    Then the orders, where --orders names a store: each reservation that has rested for ten seconds is compared with
    its order. What the store lacks is written, and kept with its reason (`ticketrush orders repairs`); what
    contradicts, or what only the store knows, is told. This works for a ledger in a file, too.

    With --check no reservation, no unit and no order is touched.
    """
    settings = settings_of(ctx)
    is_shared = settings.ledger.startswith(SHARED)
    if not is_shared and not settings.orders:
        raise UsageError(
            f"{settings.ledger} is no ledger of many nodes; name a Redis or Valkey, like --ledger "
            "redis://127.0.0.1:6379/0, or an order store with --orders. A journal in a file is whole by itself; "
            "`ticketrush audit` checks it"
        )
    if restore and (check or not (is_shared and settings.orders)):
        raise UsageError(
            "--restore writes what an order store knows into a Redis or Valkey: name both, without --check"
        )
    logs.configure("error", "console")  # that epochs change is what this is for
    if settings.orders:
        asyncio.run(_see(settings.orders))
    facts: dict[str, Any] = {"ok": True}
    if is_shared:
        facts |= _ledger_facts(settings, check=check, restore=restore, as_json=as_json)
    if settings.orders:
        found = asyncio.run(_compare(settings, mend=not check))
        facts |= {"ok": facts["ok"] and found.is_well and not (check and found.repaired)}
        facts["orders"] = msgspec.to_builtins(found)
        if not as_json:
            _show_orders(found, check=check)
    if as_json:
        output.as_json(facts)
    if not facts["ok"]:
        raise typer.Exit(Exit.NOT_WELL)


@dataclass
class Told:
    """What the order store told the ledger: orders that it lacks, and by sale those that it has no place for."""

    lacking: int = 0
    placeless: Counter[str] = field(default_factory=Counter)


def _ledger_facts(settings: Settings, *, check: bool, restore: bool, as_json: bool) -> dict[str, Any]:
    """Make the ledger whole, or check it, and show that; what was found."""
    if check:
        report = asyncio.run(_check(settings))
        facts, sales = {"ok": report.ok} | report.to_dict(), report.events
        if not as_json:
            show_report(report.to_dict())
    else:
        told, done = asyncio.run(_mend(settings, restore=restore))
        facts, sales = _facts(done), done.sales
        if restore:
            facts["ok"] = facts["ok"] and not told.placeless
            facts["recalled"] = {"lacking": told.lacking, "placeless": dict(told.placeless)}
        if not as_json:
            _show(done, settings)
            _show_told(told)
    if not sales:
        where = without_password(settings.ledger)
        output.say(f"there is no sale in {where}; is it the right server and database?", "yellow", aside=True)
    return facts


async def _see(orders: str) -> None:
    """See that the store is there, before anything is changed."""
    store = store_of(orders)
    try:
        await store.open()
    finally:
        await store.close()


async def _compare(settings: Settings, *, mend: bool) -> Differences:
    """Hold the order store against the ledger."""
    records, store = records_of(settings.ledger, _name()), store_of(settings.orders)
    try:
        await store.open()
        await records.open()
        return await Reconciler(records, store).run(SystemClock().now_ms(), mend=mend)
    finally:
        await records.close()
        await store.close()


def _show_orders(found: Differences, *, check: bool) -> None:
    repaired = "would be repaired" if check else "repaired"
    output.say(
        f"orders: {found.compared:,} compared, {found.in_flight:,} in flight, {found.repaired:,} {repaired}, "
        f"{found.contradictions:,} contradict the ledger, {found.forgotten:,} that the ledger does not know",
        "bold",
    )
    for id in found.repaired_orders[:SHOWN_MAX]:
        output.say(f"  {id} {repaired}", "yellow")
    for id, words in list(zip(found.contradicting_orders, found.contradicting_words, strict=True))[:SHOWN_MAX]:
        output.say(f"  {id} contradicts the ledger: {words}", "red")
    for id in found.forgotten_orders[:SHOWN_MAX]:
        output.say(f"  {id} not known to the ledger", "red")
    if found.forgotten and not check:
        output.say("if they are of this ledger, which has lost them: ticketrush reconcile --restore writes them again")


def _name() -> str:
    return f"reconcile-{socket.gethostname()}-{os.getpid()}"


def _ledger(settings: Settings, durability: str) -> RedisLedger:
    return cast("RedisLedger", ledger_of(settings.ledger, durability=durability, node=_name()))


async def _mend(settings: Settings, *, restore: bool) -> tuple[Told, Report]:
    """Make the ledger whole, with what the order store knows of it if `restore`."""
    ledger = _ledger(settings, settings.durability)
    try:
        await ledger.open_for_operator()
        told = await _remind(ledger, settings.orders) if restore else Told()
        return told, await ledger.reconcile()
    finally:
        await ledger.close()


async def _remind(ledger: RedisLedger, orders: str) -> Told:
    told, store = Told(), store_of(orders)
    try:
        await store.open()
        async for rows in recall(store):
            reminded = await ledger.remind(rows)
            told.lacking += reminded.lacking
            told.placeless.update(row.sale for row in reminded.placeless)
    finally:
        await store.close()
    return told


async def _check(settings: Settings) -> AuditReport:
    ledger = _ledger(settings, "memory")  # it reads whatever the server promises
    try:
        await ledger.open_for_operator()
        state = await ledger.state()
        history: list[AnyEvent] = []
        while len(history) < state.seq:
            page = await ledger.events(len(history), min(EVENTS_AT_ONCE, state.seq - len(history)))
            if not page:
                break
            history += [event for _, event in page]
    finally:
        await ledger.close()
    return check_all(history, state=state, now_ms=SystemClock().now_ms())


def _facts(report: Report) -> dict[str, Any]:
    facts: dict[str, Any] = msgspec.to_builtins(report)
    return {"ok": report.is_well} | facts


def _show(report: Report, settings: Settings) -> None:
    output.say(
        f"{without_password(settings.ledger)}: {units(report.sales, 'sale')} made whole in {report.seconds:g} s, "
        f"{units(report.restored, 'reservation')} restored, {len(report.lost):,} lost",
        "bold",
    )
    table = Table(box=None, pad_edge=False)
    columns = ("capacity", "available", "leased", "held", "sold")
    for column in ("sale", "item", "", *columns, "leases ended"):
        table.add_column(column, justify="left" if column in {"sale", "item", ""} else "right")
    for item in report.items:
        before, after = ([f"{getattr(level, column):,}" for column in columns] for level in (item.before, item.after))
        table.add_row(item.sale, item.item, "before", *before, "")
        table.add_row("", "", "after", *after, f"{item.leases:,}")
    output.console().print(table)
    for item in report.items:
        if item.is_oversold:
            output.say(f"oversold: {item.sale}/{item.item} has more held and sold than there is", "red")
    for id in report.lost[:SHOWN_MAX]:
        output.say(f"lost: reservation {id} was acknowledged, and its units or its key belong to another now", "red")
    if len(report.lost) > SHOWN_MAX:
        output.say(f"lost: {len(report.lost) - SHOWN_MAX:,} more, all of them with --json", "red")


def _show_told(told: Told) -> None:
    if told.lacking:
        output.say(f"{told.lacking:,} orders were further than the ledger, which has forgotten them", "yellow")
    for sale, count in told.placeless.most_common(SHOWN_MAX):
        output.say(
            f"{count:,} orders of sale {sale!r} have no place in the ledger: it has no such sale, or another one under "
            "this name. If it has forgotten the sale, create it again as it was, and run this once more",
            "red",
        )
