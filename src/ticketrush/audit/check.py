"""The audit: fold the events, then hold them against what was claimed and what was told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from ticketrush.audit.claims import Acknowledged, LedgerState, OrderRecord, Told, Units, digest
from ticketrush.audit.fold import Fold
from ticketrush.audit.report import INVARIANTS, AuditReport, Findings
from ticketrush.events import AnyEvent, Held
from ticketrush.model import State

OVERDUE_MS: Final = 10_000
"""How long after its expiry an unpaid hold counts as stranded, when `now_ms` is given."""

_NONE: Final = Units(0, 0, 0, 0, 0)


def audit(
    events: Iterable[AnyEvent],
    *,
    state: LedgerState | None = None,
    told: Told | None = None,
    asked_for: Callable[[str, str], bool] | None = None,
    demand_exceeds_capacity: bool | None = None,
    now_ms: int | None = None,
    orders: Iterable[OrderRecord] | None = None,
) -> AuditReport:
    """Check I1..I8 over a whole history, from its first event on.

    I1, I2 and I6 are checked at every event. Orders are part of I3: exactly one for a reservation,
    and only HELD -> PAID -> REFUNDED, HELD -> CANCELLED, HELD -> EXPIRED, the last not before its
    time. I4 also forbids reservations outside the sale's opening times, I8 time that runs backwards.

    Args:
        events: all events, in their order; read once, so a generator will do.
        state: what the ledger claims of itself (I8). It is compared when the first `state.seq`
            events are folded, so a history that went on after it is fine.
        told: what buyers were told (I3). Without `asked_for` it also decides I4: each reservation
            must be acknowledged or unknown.
        asked_for: whether a (buyer, key) was ever sent (I4).
        demand_exceeds_capacity: the caller's word that somebody wanted every unit of every item and
            that all faults are healed; only then I7 is checked.
        now_ms: the time of the audit; holds long overdue then count as stranded (I7).
        orders: all that the order store has, once everything has arrived there: each reservation must
            have exactly one, of the same state (I3).
    """
    findings = Findings()
    expected = _expectation(told, asked_for)
    fold = Fold(findings, expected)
    stream = iter(events)
    if state is not None:
        fold.run(islice(stream, state.seq))
        _check_state(fold, state, findings)
    fold.run(stream)
    lost = _check_told(fold, told, findings) if told is not None else 0
    stored = _check_orders(fold, orders, findings) if orders is not None else None
    undersold = _check_stranded(fold, now_ms, findings) if demand_exceeds_capacity else 0
    books = [book for items in fold.books.values() for book in items.values()]
    unchecked = {
        "I1": not fold.orders,
        "I2": not fold.orders,
        "I3": (told is None or not (told.acknowledged or told.paid)) and not stored,
        "I4": expected is None or not fold.orders,
        "I5": not fold.keys,
        "I6": all(book.limit is None for book in books) or not fold.orders,
        "I7": not demand_exceeds_capacity or not books,
        "I8": state is None,
    }
    return AuditReport(
        **{name: name not in findings.counts for name in INVARIANTS},
        vacuous=[name for name in INVARIANTS if unchecked[name] and name not in findings.counts],
        violations=findings.sentences,
        counts=findings.counts,
        oversold=max(_oversold_in(state), sum(book.worst for book in books)),
        undersold=undersold,
        lost=lost,
        unexpected=fold.unexpected,
        unknown=_unknown_happened(fold, told),
        events=fold.seq,
        reservations=len(fold.orders),
        held=sum(book.held for book in books),
        sold=sum(book.sold for book in books),
        paid=fold.ever[State.PAID],
        expired=fold.ever[State.EXPIRED],
        cancelled=fold.ever[State.CANCELLED],
        refunded=fold.ever[State.REFUNDED],
        orders=stored,
    )


def _expectation(told: Told | None, asked_for: Callable[[str, str], bool] | None) -> Callable[[Held], bool] | None:
    """How to know a reservation that somebody asked for; None if there is no way."""
    if asked_for is not None:
        return lambda held: asked_for(held.buyer, held.key)
    if told is None or not (told.acknowledged or told.unknown):
        return None
    acknowledged, unknown = told.acknowledged, set(told.unknown)
    return lambda held: held.id in acknowledged or (held.buyer, held.key) in unknown


def _check_state(fold: Fold, state: LedgerState, findings: Findings) -> None:
    """I8, and I1 and I2 of the levels that the ledger claims."""
    if fold.seq < state.seq:
        findings.add("I8", f"the ledger claims {state.seq} events, the journal has {fold.seq}")
    mine: dict[str, dict[str, Units]] = {}
    for sale in sorted({*fold.books, *state.levels}):
        books, claims = fold.books.get(sale, {}), state.levels.get(sale, {})
        mine[sale] = {}
        for item in sorted({*books, *claims}):
            claimed = claims.get(item, _NONE)
            _check_level(f"{sale}/{item}", claimed, state.seq, findings)
            replayed = mine[sale][item] = books[item].units(claimed.leased) if item in books else _NONE
            if replayed != claimed or item not in books or item not in claims:
                findings.at("I8", fold.seq, f"{sale}/{item}: the ledger claims {claimed}, replay gives {replayed}")
    ours = digest(mine, ((id_, order.state) for id_, order in fold.orders.items()))
    if ours != state.digest:
        findings.at("I8", fold.seq, f"the ledger claims digest {state.digest}, replay gives {ours}")


def _check_level(name: str, claimed: Units, seq: int, findings: Findings) -> None:
    taken = claimed.held + claimed.sold
    if taken > claimed.capacity:
        findings.at("I1", seq, f"the ledger claims {taken} units taken of {name}, of {claimed.capacity}")
    if claimed.capacity != claimed.available + claimed.leased + taken:
        findings.at("I2", seq, f"the units that the ledger claims of {name} do not add up: {claimed}")


def _oversold_in(state: LedgerState | None) -> int:
    if state is None:
        return 0
    return sum(max(0, of.held + of.sold - of.capacity) for items in state.levels.values() for of in items.values())


def _check_told(fold: Fold, told: Told, findings: Findings) -> int:
    """I3: all that was acknowledged is there, as acknowledged. Returns how many are lost."""
    lost: set[str] = set()
    for reservation_id, acknowledged in told.acknowledged.items():
        order = fold.orders.get(reservation_id)
        if order is None:
            buyer, key, *_ = acknowledged
            lost.add(reservation_id)
            findings.add("I3", f"reservation {reservation_id} of buyer {buyer}, key {key!r}, is lost: no event has it")
        elif (kept := _as_acknowledged(order.held)) != acknowledged:
            lost.add(reservation_id)
            findings.add("I3", f"reservation {reservation_id} is {kept}, the buyer was told {acknowledged}")
    for reservation_id in sorted(told.paid):
        order = fold.orders.get(reservation_id)
        if order is None or (order.state is not State.PAID and order.state is not State.REFUNDED):
            lost.add(reservation_id)
            found = "is in no event" if order is None else f"is {order.state}"
            findings.add("I3", f"reservation {reservation_id} {found}, the buyer was told it is paid")
    return len(lost)


def _check_orders(fold: Fold, orders: Iterable[OrderRecord], findings: Findings) -> int:
    """I3: each reservation has exactly one order, which says the same. Returns how many orders there are."""
    seen: set[str] = set()
    count = 0
    for record in orders:
        count += 1
        if record.id in seen:
            findings.add("I3", f"order {record.id} is there more than once")
        seen.add(record.id)
        order = fold.orders.get(record.id)
        if order is None:
            findings.add("I3", f"order {record.id} is of a reservation that no event has")
            continue
        held = order.held
        wanted = OrderRecord(record.id, order.state.value, held.sale, held.item, held.buyer, held.quantity)
        if record != wanted:
            findings.add("I3", f"the store has {record}, the events say {wanted}")
    for reservation_id in fold.orders:
        if reservation_id not in seen:
            findings.add("I3", f"reservation {reservation_id} has no order")
    return count


def _as_acknowledged(held: Held) -> Acknowledged:
    return (held.buyer, held.key, held.sale, held.item, held.quantity)


def _check_stranded(fold: Fold, now_ms: int | None, findings: Findings) -> int:
    """I7: nothing is left over though somebody wanted it. Returns the stranded units."""
    stranded = 0
    for items in fold.books.values():
        for book in items.values():
            left = book.capacity - book.held - book.sold
            if left > 0:
                stranded += left
                findings.add(
                    "I7",
                    f"{left} units of {book.name} are stranded: {book.held} held + {book.sold} sold "
                    f"of {book.capacity}, and more were wanted",
                )
    if now_ms is None:
        return stranded
    for reservation_id, order in fold.orders.items():
        overdue_ms = now_ms - order.held.expires_at_ms
        if order.state is State.HELD and overdue_ms > OVERDUE_MS:
            stranded += order.held.quantity
            findings.add("I7", f"reservation {reservation_id} is unpaid and held {overdue_ms} ms after its expiry")
    return stranded


def _unknown_happened(fold: Fold, told: Told | None) -> int:
    """Of what buyers could not know, how many reservations were made."""
    if told is None or not told.unknown:
        return 0
    unknown, acknowledged = set(told.unknown), told.acknowledged
    return sum(
        (order.held.buyer, order.held.key) in unknown and id_ not in acknowledged for id_, order in fold.orders.items()
    )
