"""What is done to the front door in the middle of a sale, and what must then be so."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ticketrush.audit import AuditReport
from ticketrush.cluster.plan import Durability
from ticketrush.lab import outcome as o
from ticketrush.lab.lab import Lab, lab
from ticketrush.lab.ledgers import primary_of, until
from ticketrush.lab.outcome import Moment, Outcome, Promise
from ticketrush.lab.plan import NODE_PORT, WITNESS, LabPlan
from ticketrush.lab.sale import Crowd, Sale
from ticketrush.lab.visit import Fate, Seen

MOVES_S: Final = 5.0
"""Within so long after a fault at the front door everybody who comes is answered."""

SELLS_S: Final = 15.0
"""Within so long after the loss of a site somebody can buy again."""

FAULT_AT: Final = 0.3
"""The share of the tickets that are reserved when it happens."""

NOTICED_S: Final = 30.0

Say = Callable[[str], None]


@dataclass(slots=True)
class Run:
    """A scenario that goes on: what happened so far, in seconds of the monotonic clock."""

    lab: Lab
    sale: Sale
    say: Say
    moments: list[tuple[float, str, bool]] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    fault_s: float = 0.0

    def fault(self, at_s: float, what: str) -> None:
        """It was done at `at_s`."""
        self.fault_s = at_s
        self.moments.append((at_s, what, True))
        self.say(what)

    def notice(self, name: str, what: str, is_so: Callable[[], bool]) -> float:
        """Wait until it is so, and note how long after the fault that was, as the figure `name`."""
        at_s = until(is_so, NOTICED_S, what, every_s=0.05)
        self.moments.append((at_s, what, False))
        self.figures[name] = round(at_s - self.fault_s, 3)
        self.say(f"{what}, {at_s - self.fault_s:.1f} s after the fault")
        return at_s


@dataclass(frozen=True, slots=True)
class Scenario:
    """A sale with a fault in it. `judge` says what must be so, and may add figures."""

    name: str
    title: str
    plan: LabPlan
    fault: Callable[[Run], None]
    judge: Callable[[Run, Seen, AuditReport, list[o.Line]], list[Promise]]
    is_calm: bool = False


# --- the faults -------------------------------------------------------------------------------------------------


def _nothing(_: Run) -> None:
    """All is well."""


def _kill_balancer(run: Run) -> None:
    victim = run.lab.plan.balancers[0]
    run.fault(run.lab.kill([victim.name]), f"{victim.name} is cut off and killed")
    run.notice("route_s", "the router leads no more to it", lambda: victim.address not in run.lab.ways())


def _kill_node(run: Run) -> None:
    victim = run.lab.plan.nodes[0]
    run.fault(run.lab.kill([victim.name]), f"{victim.name} is cut off and killed")


def _kill_nginx(run: Run) -> None:
    victim = run.lab.plan.balancers[0]
    run.fault(run.lab.kill_nginx(victim.name), f"Nginx on {victim.name} is killed")
    run.notice("withdrawn_s", f"{victim.name} withdraws the address", lambda: not run.lab.announces(victim.name))
    run.notice("route_s", "the router leads no more to it", lambda: victim.address not in run.lab.ways())
    began_s = time.monotonic()
    run.lab.start_nginx(victim.name, victim.site)
    run.moments.append((began_s, f"Nginx on {victim.name} is started again", False))
    back_s = run.notice("back_s", f"the router leads to {victim.name} again", lambda: victim.address in run.lab.ways())
    run.figures["back_s"] = round(back_s - began_s, 3)


def _kill_site(run: Run) -> None:
    plan = run.lab.plan
    lost, address = plan.sites[0], plan.ledgers[0].address
    victims = plan.hosts_of(lost)
    witness = run.lab.host(WITNESS)
    at_s = run.lab.kill(victims)
    run.fault(at_s, f"site {lost} is lost: {', '.join(victims)}")
    gone = {place.address for place in plan.balancers if place.site == lost}
    run.notice("route_s", "the router leads no more to it", lambda: not gone & run.lab.ways())
    run.notice("promoted_s", "the sentinels name another primary", lambda: primary_of(witness) not in {"", address})


# --- what must be so ----------------------------------------------------------------------------------------------


def _all_is_answered(run: Run, seen: Seen, found: AuditReport, lines: list[o.Line]) -> list[Promise]:
    nodes = o.answered_by(lines, _addresses(run.lab.plan))
    least, most = min(nodes.values()), max(nodes.values())
    ways = run.lab.led_to()
    run.figures |= {f"led_to_{name}": float(count) for name, count in ways.items()}
    fair = sum(nodes.values()) / len(nodes)
    apart = max(0.05 * fair, len(ways))  # each proxy shares out its own requests, to the last one
    return [
        Promise("every request is answered", not any(of.fate is Fate.SILENT for of in seen.tries)),
        Promise(
            "the nodes get equal shares, within 5 % or a request for each proxy",
            fair - apart <= least and most <= fair + apart,
        ),
        Promise("the router leads 35 % to 65 % to each balancer", min(ways.values()) > 0.35 * sum(ways.values())),
        *o.exactly_sold(found, seen, run.sale.crowd.tickets),
    ]


def _traffic_moves(run: Run, seen: Seen, found: AuditReport, _: list[o.Line]) -> list[Promise]:
    last_s, silence_s = run.figures["last_unanswered_s"], run.figures["silence_s"]
    return [
        Promise(f"who comes {MOVES_S:g} s after the fault is answered", last_s <= MOVES_S),
        Promise(f"there are answers again within {MOVES_S:g} s", silence_s <= MOVES_S),
        Promise("there was something to answer", seen.ended_s - run.fault_s > MOVES_S),
        *o.exactly_sold(found, seen, run.sale.crowd.tickets),
    ]


def _node_is_noticed(run: Run, seen: Seen, found: AuditReport, lines: list[o.Line]) -> list[Promise]:
    address = f"{run.lab.plan.nodes[0].address}:{NODE_PORT}"
    tried = o.tried_on(lines, address, run.fault_s + time.time() - time.monotonic())
    run.figures["noticed_s"] = round(o.burst_s(tried), 3)
    run.figures["tried_on_it"] = float(len(tried))
    run.moments.append((run.fault_s + o.burst_s(tried), "no more requests go to the dead node, but for probes", False))
    return [
        Promise(f"the node is noticed within {MOVES_S:g} s", o.burst_s(tried) <= MOVES_S),
        Promise("requests were tried on it", bool(tried)),
        *_traffic_moves(run, seen, found, lines),
    ]


def _sells_elsewhere(run: Run, seen: Seen, found: AuditReport, _: list[o.Line]) -> list[Promise]:
    again_s = _rpo_and_rto(run, seen, found)
    return [
        Promise(f"somebody can buy again within {SELLS_S:g} s", 0 <= again_s <= SELLS_S),
        *o.exactly_sold(found, seen, run.sale.crowd.tickets),
    ]


def _sells_elsewhere_with_less(run: Run, seen: Seen, found: AuditReport, _: list[o.Line]) -> list[Promise]:
    """What was acknowledged and not yet copied may be lost: it is measured, not promised."""
    again_s = _rpo_and_rto(run, seen, found)
    return [
        Promise(f"somebody can buy again within {SELLS_S:g} s", 0 <= again_s <= SELLS_S),
        Promise(
            "the ledger has sold exactly what there is", found.sold == run.sale.crowd.tickets and not found.oversold
        ),
    ]


def _rpo_and_rto(run: Run, seen: Seen, found: AuditReport) -> float:
    again_s = o.sells_again_s(seen.tries, run.fault_s)
    run.figures |= {"rto_s": round(again_s, 3), "rpo_reservations": float(found.lost)}
    if again_s >= 0:
        run.moments.append((run.fault_s + again_s, "somebody buys again", False))
    return again_s


def _site(durability: Durability, more: str) -> Scenario:
    plan = LabPlan(sites=("a", "b"), durability=durability)
    judge = _sells_elsewhere if durability == "replica" else _sells_elsewhere_with_less
    return Scenario(f"site-{durability}", f"A site is lost, durability {durability}: {more}", plan, _kill_site, judge)


SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario("calm", "Nothing fails", LabPlan(), _nothing, _all_is_answered, is_calm=True),
        Scenario("balancer", "A balancer is killed", LabPlan(), _kill_balancer, _traffic_moves),
        Scenario("node", "A node is killed", LabPlan(), _kill_node, _node_is_noticed),
        Scenario("nginx", "The Nginx of a balancer is killed", LabPlan(), _kill_nginx, _traffic_moves),
        _site("replica", "a success was at a replica before"),
        _site("memory", "copies come after the success"),
        _site("fsync", "copies come after the success"),
    )
}


def play(scenario: Scenario, crowd: Crowd, say: Say, *, keep: Path | None = None) -> Outcome:
    """Build the lab, sell, do what the scenario wants, audit.

    Raises:
        NoLab: this machine cannot have one.
        LabError, ClusterError: something does not start, or does not come to an end.
    """
    say(f"{scenario.title}: starting")
    with lab(scenario.plan, keep=keep) as made:
        run = Run(made, Sale(made, crowd), say)
        run.sale.open()
        if not scenario.is_calm:
            goal = round(crowd.tickets * FAULT_AT)
            most_s = 60 + crowd.tickets / crowd.per_second
            run.sale.wait_until(lambda now: now.acknowledged >= goal, most_s, f"{goal} reservations")
            scenario.fault(run)
        seen = run.sale.finish()
        found = run.sale.audit(seen)
        return _outcome(scenario, run, seen, found)


def _outcome(scenario: Scenario, run: Run, seen: Seen, found: AuditReport) -> Outcome:
    made, crowd = run.lab, run.sale.crowd
    lines = {name: made.log_of(name) for name in made.proxies}
    together = [line for own in lines.values() for line in own]
    if not scenario.is_calm:
        run.figures["last_unanswered_s"] = round(o.last_unanswered_s(seen.tries, run.fault_s), 3)
        run.figures["last_repeat_unanswered_s"] = round(o.last_unanswered_s(seen.tries, run.fault_s, again=True), 3)
        come_s = seen.began_s + crowd.buyers / crowd.per_second
        run.figures["silence_s"] = round(o.longest_silence_s(seen.tries, run.fault_s, come_s), 3)
    promises = scenario.judge(run, seen, found, together)
    promises.append(Promise("no answer was odd, and everybody had one", not seen.odd and seen.waiting == 0))
    moments = sorted(run.moments)
    return Outcome(
        name=scenario.name,
        title=scenario.title,
        durability=scenario.plan.durability,
        handed_on_by=made.handed_on_by,
        buyers=crowd.buyers,
        tickets=crowd.tickets,
        acknowledged=len(seen.told.acknowledged),
        paid=len(seen.told.paid),
        sold=found.sold,
        lost=found.lost,
        oversold=found.oversold,
        unanswered=sum(of.fate is Fate.SILENT for of in seen.tries),
        waiting=seen.waiting,
        seconds=round(seen.ended_s - seen.began_s, 3),
        timeline=[Moment(round(at_s - seen.began_s, 3), what, is_fault) for at_s, what, is_fault in moments],
        figures=run.figures,
        requests={
            "nodes": o.answered_by(together, _addresses(scenario.plan)),
            "proxies": {
                name: len([line for line in own if line.path.startswith("/v1/")]) for name, own in lines.items()
            },
        },
        curve=o.curve_of(seen),
        audit=found.invariants(),
        vacuous=found.vacuous,
        violations=found.violations,
        odd=seen.odd,
        promises=promises,
    )


def _addresses(plan: LabPlan) -> dict[str, str]:
    """The names of the nodes by where they listen."""
    return {f"{place.address}:{NODE_PORT}": place.name for place in plan.nodes}
