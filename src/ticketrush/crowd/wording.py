"""The invariants in plain words, for those who read a report."""

from __future__ import annotations

from typing import Final

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


def headline(report: Report) -> str:
    """What came out, in one sentence."""
    bought = (
        f"{report.paid:,} of {report.tickets:,} tickets"
        if report.paid != report.tickets
        else f"{report.paid:,} tickets"
    )
    sold = f"{bought} sold to a crowd of {report.buyers:,}"
    if not report.extra.ok:
        return f"{sold}, but not all is well."
    if report.paid == report.tickets:
        return f"{sold}: not one too many, not one too few."
    return f"{sold}: everybody who wanted one and paid has one."
