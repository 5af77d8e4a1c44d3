"""What came out of a scenario, and how it is read from what buyers and proxies saw."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

import msgspec

from ticketrush.audit import AuditReport
from ticketrush.lab.visit import Fate, Seen, Try

STEP_S: Final = 0.2
"""How long the intervals of `Outcome.curve` are."""

GAP_S: Final = 1.0
"""After so long without one, tries on a dead node are no more than probes."""

FIGURES: Final = {
    "withdrawn_s": "until the balancer withdrew the virtual address",
    "route_s": "until the router led nobody there any more",
    "back_s": "from its restart until the router led buyers there again",
    "noticed_s": "until no more requests were tried on it, but for probes",
    "promoted_s": "until the sentinels named another primary",
    "rto_s": "until somebody bought again",
    "silence_s": "the longest time in which nobody at all was answered",
    "last_unanswered_s": "until the last new request was sent that got no answer",
    "last_repeat_unanswered_s": "until the last repeated request was sent that got no answer",
}
"""What the figures of an outcome mean that are seconds, most of them after the fault."""

_ANSWERED: Final = frozenset({Fate.DONE, Fate.REFUSED})


_IF_NONE: Final = {
    "last_unanswered_s": "all new requests were answered",
    "last_repeat_unanswered_s": "all repeated requests were answered",
}


class Moment(msgspec.Struct, frozen=True):
    """Something that happened, in seconds since the first buyer came."""

    at_s: float
    what: str
    is_fault: bool = False


class Promise(msgspec.Struct, frozen=True):
    """What must be so, and whether it was."""

    text: str
    holds: bool


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario.

    Times are seconds. `figures` are those of the scenario, by name. `requests` counts what each node and each proxy
    answered; what a killed proxy had not yet written down is missing. `curve` counts tries in intervals of STEP_S,
    by their fate. `lost` are acknowledged reservations that the ledger does not have.
    """

    name: str
    title: str
    durability: str
    handed_on_by: str
    buyers: int
    tickets: int
    acknowledged: int
    paid: int
    sold: int
    lost: int
    oversold: int
    unanswered: int
    waiting: int
    seconds: float
    timeline: list[Moment]
    figures: dict[str, float]
    requests: dict[str, dict[str, int]]
    curve: dict[str, list[int]]
    audit: dict[str, bool]
    vacuous: list[str]
    violations: list[str]
    odd: list[str]
    promises: list[Promise]

    @property
    def ok(self) -> bool:
        """Whether all that was promised was so."""
        return all(promise.holds for promise in self.promises)


class Line(msgspec.Struct, frozen=True):
    """A request as a proxy wrote it down: seconds since 1970, how long, and the nodes that it was tried on."""

    msec: float
    request_s: float
    path: str
    node: str

    @property
    def nodes(self) -> list[str]:
        """Addresses with ports, the first that was asked first."""
        return self.node.replace(" : ", ", ").split(", ") if self.node else []


def lines_of(log: Path) -> list[Line]:
    """What a proxy wrote into its access log; a half line at its end, which a killed one leaves, is left out."""
    if not log.exists():
        return []
    whole = log.read_bytes().rpartition(b"\n")[0]
    return [msgspec.convert(json.loads(text), Line) for text in whole.splitlines()]


def answered_by(lines: Iterable[Line], names: dict[str, str]) -> dict[str, int]:
    """How many purchases and payments each node answered, by the name that goes with its address."""
    found = Counter(line.nodes[-1] for line in lines if line.nodes and line.path.startswith("/v1/"))
    return {name: found[address] for address, name in names.items()}


def tried_on(lines: Iterable[Line], address: str, fault_s: float) -> list[float]:
    """When requests that were tried on the node at `address` began, seconds after `fault_s` (since 1970)."""
    began = (line.msec - line.request_s - fault_s for line in lines if address in line.nodes)
    return sorted(at_s for at_s in began if at_s >= 0)


def burst_s(at_s: Sequence[float]) -> float:
    """The last moment before nothing happened for GAP_S; 0.0 if nothing did at all."""
    for before, after in pairwise(at_s):
        if after - before > GAP_S:
            return before
    return at_s[-1] if at_s else 0.0


def last_unanswered_s(tries: Iterable[Try], fault_s: float, *, again: bool = False) -> float:
    """How long after the fault a new request was sent that got no answer; 0.0 if all were answered.

    With `again` it looks at those that repeat an earlier one.
    """
    silent = (of.at_s - fault_s for of in tries if of.fate is Fate.SILENT and of.again is again)
    return max((at_s for at_s in silent if at_s > 0), default=0.0)


def longest_silence_s(tries: Iterable[Try], fault_s: float, until_s: float) -> float:
    """The longest time, from the fault to `until_s`, in which nobody had a final answer."""
    ends = (of.at_s + of.took_s for of in tries if of.fate in _ANSWERED)
    moments = [fault_s, *sorted(end_s for end_s in ends if fault_s < end_s < until_s), until_s]
    return max(after - before for before, after in pairwise(moments))


def sells_again_s(tries: Iterable[Try], fault_s: float) -> float:
    """How long after the fault somebody got a reservation who asked for it after the fault; -1.0 if nobody did."""
    again = [of.at_s + of.took_s for of in tries if of.fate is Fate.DONE and not of.pays and of.at_s > fault_s]
    return min(again) - fault_s if again else -1.0


def curve_of(seen: Seen) -> dict[str, list[int]]:
    """Tries in intervals of STEP_S, by fate; each counts when it ended."""
    steps = int((seen.ended_s - seen.began_s) / STEP_S) + 1
    rows = {fate.value: [0] * steps for fate in Fate}
    for of in seen.tries:
        at = int((of.at_s + of.took_s - seen.began_s) / STEP_S)
        rows[of.fate.value][min(max(at, 0), steps - 1)] += 1
    return rows


def measured(figures: Mapping[str, float]) -> list[tuple[str, str]]:
    """How long, and what, for those of `figures` that are seconds: [("2.91 s", "until the router ..."), ...]."""
    return [
        ("", _IF_NONE[name]) if name in _IF_NONE and not figures[name] else (f"{figures[name]:.2f} s", text)
        for name, text in FIGURES.items()
        if name in figures
    ]


def exactly_sold(found: AuditReport, seen: Seen, tickets: int) -> list[Promise]:
    """That all is sold, nothing twice, nothing lost (no buyer was told so either), and that the auditor agrees."""
    return [
        Promise(f"all {tickets:,} tickets are sold, none twice", found.sold == tickets and found.oversold == 0),
        Promise("no acknowledged reservation is lost", found.lost == 0 and not seen.lost),
        Promise("the auditor finds I1 to I8 true", found.ok and not found.vacuous),
    ]
