"""The invariants in plain words, for those who read a report."""

from __future__ import annotations

from typing import Final

from ticketrush.crowd import report as reports
from ticketrush.crowd.report import Report

PLAIN: Final = {
    "I1": ("Never too many", "Held and sold units together were never more than there are, at any moment."),
    "I2": ("The books balance", "Available, held and sold units always added up to the capacity."),
    "I3": (
        "Nothing forgotten",
        "Every reservation and payment that a buyer was told of is in the journal, with one order.",
    ),
    "I4": ("Nothing invented", "There is no reservation that nobody asked for."),
    "I5": (
        "Once is once",
        "Buyers who sent the same request twice, or again after a cut connection, got one reservation.",
    ),
    "I6": ("Fair shares", "No buyer got more than the purchase limit."),
    "I7": ("Never too few", "While somebody still wanted one, no unit was left over at the end."),
    "I8": ("Replay agrees", "Folding the journal from its first event gives exactly the state that the server claims."),
}
"""A title and a sentence for each."""

VERDICTS: Final = {"holds": "✓", "broken": "✗", "vacuous": "–"}


def verdict(report: Report, name: str) -> str:
    """One of VERDICTS for the invariant `name`: vacuous if there was nothing to check it with."""
    if not report.audit[name]:
        return "broken"
    return "vacuous" if name in report.extra.vacuous else "holds"


def units(count: int, name: str) -> str:
    """1 hold, 2 holds."""
    return f"{count:,} {name}" if count == 1 else f"{count:,} {name}s"


def left_over(report: Report) -> str:
    """How many were left over though wanted; a dash if that was not checked."""
    return f"{report.undersold:,}" if report.undersold or verdict(report, "I7") != "vacuous" else VERDICTS["vacuous"]


def node_names(report: Report) -> list[str]:
    """The nodes by name, in the order of the report."""
    return [f"node-{number}" for number in range(1, len(report.nodes) + 1)]


def brief(report: Report) -> str:
    """What came out, in a few words for a terminal."""
    of = f"{report.paid:,} of {report.tickets:,} tickets"
    match report.extra.outcome:
        case reports.SOLD:
            return "All is well: not one ticket too many, not one too few."
        case reports.WANTED_LESS:
            return f"All is well. {of} sold: the crowd wanted no more."
        case reports.UNPAID:
            who = "who got one paid" if report.paid else "paid"
            left = "not everybody" if report.paid else "nobody"
            return f"Nothing was broken, but {of} are paid: {left} {who}."
        case _:
            return "NOT WELL"


def headline(report: Report) -> str:
    """What came out, in one sentence."""
    bought = f"{report.paid:,}" if report.paid == report.tickets else f"{report.paid:,} of {report.tickets:,}"
    sold = f"{bought} tickets sold to a crowd of {report.buyers:,}"
    match report.extra.outcome:
        case reports.SOLD:
            return f"{sold}: not one too many, not one too few."
        case reports.WANTED_LESS:
            return f"{sold}, who wanted no more."
        case reports.UNPAID:
            return brief(report)
        case _:
            return f"{sold}, but not all is well."


def badge(report: Report) -> str:
    """The verdict over the audits, without claiming what was not checked."""
    verdicts = [verdict(report, name) for name in report.audit]
    if report.extra.outcome == reports.BROKEN:
        return "Not all is well"
    unpaid = ", not every ticket is paid" if report.extra.outcome == reports.UNPAID else ""
    checked = sum(found == "holds" for found in verdicts)
    if checked == len(verdicts):
        return f"All eight audits hold{unpaid}"
    return f"{checked} of 8 audits hold, {len(verdicts) - checked} had nothing to check{unpaid}"
