"""A rush from beginning to end: server, sale, crowd, audit, report."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from rich.console import Console

from ticketrush import audit, stop
from ticketrush.cashier import LATE_KEY
from ticketrush.cluster.plan import shares
from ticketrush.crowd import history as h
from ticketrush.crowd import report as reports
from ticketrush.crowd.buyers import Asked
from ticketrush.crowd.display import Display, summary
from ticketrush.crowd.doom import Doom
from ticketrush.crowd.errors import CrowdError, Stopped
from ticketrush.crowd.history import Door, History, Plan, Progress
from ticketrush.crowd.operator import Level, address_of
from ticketrush.crowd.options import RushOptions
from ticketrush.crowd.orders import Orders, check_empty, orders_of
from ticketrush.crowd.page import page
from ticketrush.crowd.report import RushResult
from ticketrush.crowd.send import send
from ticketrush.crowd.target import Target, target_of
from ticketrush.crowd.wording import units
from ticketrush.events import AnyEvent, Held, SaleCreated, SaleScheduled, StockAdded

ITEM: Final = "second"


SETTLE_S: Final = 10.0
"""How much longer than the hold window it may take until no hold remains."""


def run(options: RushOptions, console: Console) -> RushResult:
    """Send the crowd, audit, write the reports that `options` names, and say on `console` what came out.

    Progress goes to standard error. Whether all is well is `RushResult.ok`.

    Raises:
        CrowdError: the rush could not be carried out: no server, no connection, no secret.
        Stopped: Ctrl-C, SIGTERM or SIGHUP came; no process and no folder is left.
    """
    progress: list[Progress] = []
    try:
        with stop.by_signals():
            return _run(options, console, progress)
    except stop.Stop as stopped:
        raise Stopped(_how_far(options, progress, stopped.signal), stopped.signal) from None


def _how_far(options: RushOptions, progress: Sequence[Progress], number: int) -> str:
    who = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    if not progress:
        return f"stopped by {who} before the first buyer came; nothing was audited"
    last = progress[-1]
    return (
        f"stopped by {who} after {last.at_s:.1f} s: {last.buyers:,} of {options.buyers:,} buyers had come; "
        "nothing was audited"
    )


def _run(options: RushOptions, console: Console, progress: list[Progress]) -> RushResult:
    with target_of(options) as target:
        try:
            result = _rush(options, target, progress)
        except CrowdError as error:
            if target.own and (how := "\n".join(target.own.died())):
                target.own.keep = True
                raise CrowdError(f"{how}\nWhat it kept and its log are in {target.own.folder}") from error
            raise
        if target.own:
            extra = result.report.extra
            target.own.keep = options.keep or bool(extra.violations or extra.deaths)
    console.print(summary(result))
    if options.json:
        options.json.write_bytes(result.to_json())
    if options.report:
        options.report.write_text(page(result), encoding="utf-8")
    kept = target.own.folder if target.own and target.own.keep else None
    for what, path in (("report", options.json), ("page", options.report), ("journal", kept)):
        if path:
            console.print(f"{what}: {path}", highlight=False, soft_wrap=True)
    return result


def _rush(options: RushOptions, target: Target, progress: list[Progress]) -> RushResult:
    operator, sale = target.operator, target.sale
    if target.own and target.own.orders:
        check_empty(target.own.orders)
    operator.open_sale(sale, ITEM, options.tickets, options.limit, options.hold)
    before_s, _ = target.cost()
    doom = Doom(options.nodes or 1, options.kill, options.tickets, options.seed)
    plan = _plan(options, target, doom.milestones)
    with Display(options.buyers, options.tickets) as display:

        def on_progress(now: Progress) -> None:
            progress.append(now)
            if target.own and doom.left:
                for kill in doom.look(now.answers[h.PAID], now.at_s, target.own.kill):
                    display.say(f"killed {target.own.nodes[kill.node].name} with {units(kill.paid, 'ticket')} paid")
            if display.wants(now):
                display.show(now, _level(target) if display.live or now.buyers >= options.buyers else None)

        history = send(plan, on_progress)
        after_s, rss_mb = target.cost()
        _let_holds_end(target, options.hold, display)
    demand = history.left_sold_out + history.left_waiting > 0
    state, events = operator.state(), list(operator.events())
    own_events = of_sale(events, sale)
    orders = orders_of(target.own.orders, own_events) if target.own and target.own.orders else None
    audited = _audit(events, own_events, state, history, options.seed, demand=demand, orders=orders)
    cluster = reports.Cluster(target.urls, doom.done, target.own.died() if target.own else [])
    return RushResult(
        report=reports.make(
            options,
            history,
            audited,
            (after_s - before_s, rss_mb),
            cluster,
            demand=demand,
            drained_s=orders.drained_s if orders is not None else None,
        ),
        moments=reports.moments_of(own_events, options.tickets),
        progress=progress,
        curves=reports.curves_of(history),
    )


def _plan(options: RushOptions, target: Target, milestones: list[int]) -> Plan:
    parts = shares(options.connections, options.weights or (1,) * len(target.urls))
    return Plan(
        doors=[Door(*address_of(url), part) for url, part in zip(target.urls, parts, strict=True)],
        sale=target.sale,
        item=ITEM,
        buyers=options.buyers,
        tickets=options.tickets,
        arrivals=options.arrivals,
        shares=options.shares,
        limit=options.limit,
        hold_s=options.hold,
        seed=options.seed,
        secret=target.secret,
        audience=target.audience,
        expires_at_s=target.operator.expires_at_s,
        time_limit_s=options.time_limit_s,
        comebacks_max=options.comebacks_max,
        milestones=milestones,
    )


def _level(target: Target) -> Level | None:
    with contextlib.suppress(CrowdError):
        return target.operator.level(target.sale)
    return None


def _let_holds_end(target: Target, hold_s: float, display: Display) -> None:
    """Wait until what was abandoned has expired, so that the books can be closed."""
    give_up_s = time.monotonic() + hold_s + SETTLE_S
    said = False
    while (held := target.operator.level(target.sale).held) and time.monotonic() < give_up_s:
        if not said:
            display.say(f"the crowd has gone home; waiting for {units(held, 'unpaid hold')} to end")
            said = True
        time.sleep(0.1)


def _audit(
    events: Sequence[AnyEvent],
    own_events: Sequence[AnyEvent],
    state: audit.LedgerState,
    history: History,
    seed: int,
    *,
    demand: bool,
    orders: Orders | None,
) -> audit.AuditReport:
    """I1..I8 of our sale; what the ledger claims of itself (I8) is checked over the whole journal."""
    alone = len(own_events) == len(events)
    ours = audit.audit(
        own_events,
        state=state if alone else None,
        told=history.told,
        asked_for=asked_for(history, seed),
        demand_exceeds_capacity=demand,
        orders=orders.records if orders is not None else None,
    )
    if alone:
        return ours
    whole = audit.audit(events, state=state)
    return msgspec.structs.replace(
        ours,
        I8=ours.I8 and whole.I8,
        vacuous=[name for name in ours.vacuous if name != "I8"],
        violations=ours.violations + [text for text in whole.violations if text.startswith("I8 ")],
    )


def asked_for(history: History, seed: int) -> Callable[[str, str], bool]:
    """Whether a buyer asked for something under a key.

    Who pays so late that the hold is gone asks for the same units once more, under a key that the
    server makes of the lost reservation's id.
    """
    by_key = Asked(seed, history.buyers)
    acknowledged = history.told.acknowledged

    def was_asked(buyer: str, key: str) -> bool:
        if not key.startswith(LATE_KEY):
            return by_key(buyer, key)
        lost = acknowledged.get(key.removeprefix(LATE_KEY))
        return lost is not None and lost[0] == buyer

    return was_asked


def of_sale(events: Sequence[AnyEvent], sale: str) -> list[AnyEvent]:
    """The events of one sale; most name only a reservation that was made in it."""
    ids = {event.id for event in events if isinstance(event, Held) and event.sale == sale}
    chosen: list[AnyEvent] = []
    for event in events:
        match event:
            case SaleCreated():
                belongs = event.sale.id == sale
            case SaleScheduled() | StockAdded():
                belongs = event.sale == sale
            case _:
                belongs = event.id in ids
        if belongs:
            chosen.append(event)
    return chosen
