"""Planted bugs: machines that go wrong in one way each, as published systems did.

A bug replaces decisions of the sound machine; `sprung` says that it has happened. Where a bug
makes up an event, it folds it in as the sound machine would: the ledger believes in it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from tests.property.rush import HOLD_MS
from ticketrush.events import AnyEvent, Cancelled, Expired, Held, Paid
from ticketrush.ledger.machine import Machine
from ticketrush.ledger.stockroom import Shelf, Stockroom
from ticketrush.model import (
    Cancel,
    Changed,
    Command,
    Confirm,
    Expire,
    ExpiredSome,
    Outcome,
    Reason,
    Refused,
    Reservation,
    Reserve,
    Reserved,
    State,
)

Decision = tuple[Outcome, list[AnyEvent]]


class Bug(Machine):
    """A machine that decides one command after another, each by `decide`."""

    def __init__(self) -> None:
        super().__init__()
        self.sprung = False
        self.victim: tuple[str, str] | None = None

    def execute(self, now_ms: int, commands: Sequence[Command]) -> tuple[list[Outcome], list[AnyEvent]]:
        decisions = [self.decide(max(now_ms, self.now_ms), command) for command in commands]
        return [outcome for outcome, _ in decisions], [event for _, events in decisions for event in events]

    def decide(self, now_ms: int, command: Command) -> Decision:
        """The decision on one command; here the sound one."""
        outcomes, events = super().execute(now_ms, [command])
        return outcomes[0], events

    def shelf(self, sale: str, item: str) -> Shelf:
        return self._counters[sale].shelves[item]

    def has(self, ask: Reserve) -> bool:
        return self.shelf(ask.sale, ask.item).available >= ask.quantity

    def hold(self, now_ms: int, ask: Reserve) -> Decision:
        """A reservation against the rules."""
        self.sprung = True
        event = Held(now_ms, ask.id, ask.sale, ask.item, ask.buyer, ask.quantity, ask.key, now_ms + HOLD_MS)
        return Reserved(self._on_held(event)), [event]

    def count(self, reservation: Reservation) -> bool:
        """Count the units towards the buyer's purchase limit, if it allows them."""
        shelf = self.shelf(reservation.sale, reservation.item)
        units = shelf.bought.get(reservation.buyer, 0) + reservation.quantity
        if shelf.limit is not None and units > shelf.limit:
            return False
        shelf.bought[reservation.buyer] = units
        return True

    def become(self, other: Stockroom) -> None:
        """Take over the whole state of another machine."""
        for slot in Stockroom.__slots__:
            setattr(self, slot, getattr(other, slot))


class SellsOneTooMany(Bug):
    """`total >= sold` before the increment."""

    def decide(self, now_ms: int, command: Command) -> Decision:
        outcome, events = super().decide(now_ms, command)
        if isinstance(command, Reserve) and isinstance(outcome, Refused) and outcome.reason is Reason.SOLD_OUT:
            shelf = self.shelf(command.sale, command.item)
            if command.quantity == 1 and shelf.capacity >= shelf.held + shelf.sold:
                return self.hold(now_ms, command)
        return outcome, events


class SellsOneTooFew(Bug):
    """`sold < stock` after the increment."""

    def decide(self, now_ms: int, command: Command) -> Decision:
        if isinstance(command, Reserve) and command.sale in self._counters:
            shelf = self.shelf(command.sale, command.item)
            if shelf.held + shelf.sold + command.quantity >= shelf.capacity:
                self.sprung = True
                return Refused(Reason.SOLD_OUT), []
        return super().decide(now_ms, command)


class ReplayBurnsAUnit(Bug):
    """The unit is taken before the key is looked up, and not given back."""

    def decide(self, now_ms: int, command: Command) -> Decision:
        outcome, events = super().decide(now_ms, command)
        if isinstance(outcome, Reserved) and outcome.replayed:
            shelf = self.shelf(outcome.reservation.sale, outcome.reservation.item)
            if shelf.available:
                self.sprung = True
                shelf.available -= 1
        return outcome, events


class RejectionBurnsAUnit(Bug):
    """The unit is taken before the purchase limit is looked at; the books are made to fit."""

    def decide(self, now_ms: int, command: Command) -> Decision:
        outcome, events = super().decide(now_ms, command)
        if isinstance(command, Reserve) and isinstance(outcome, Refused) and outcome.reason is Reason.PURCHASE_LIMIT:
            shelf = self.shelf(command.sale, command.item)
            if shelf.available:
                self.sprung = True
                shelf.available -= 1
                shelf.capacity -= 1
        return outcome, events


class AnswersBeforeTheCommit(Bug):
    """The third buyer is told of success, then the batch is lost in a crash."""

    def decide(self, now_ms: int, command: Command) -> Decision:
        before = self.snapshot()
        outcome, events = super().decide(now_ms, command)
        if isinstance(outcome, Reserved) and not outcome.replayed and not self.sprung and len(before.reservations) == 2:
            self.sprung = True
            self.victim = (outcome.reservation.buyer, outcome.reservation.key)
            self.become(Machine.restore(before))
            return outcome, []
        return outcome, events


class PaysAnExpiredHold(Bug):
    """The state is checked before the lock: a hold expires, and is paid all the same."""

    def decide(self, now_ms: int, command: Command) -> Decision:
        reservation = self.reservation(command.id) if isinstance(command, Confirm) else None
        if (
            isinstance(command, Confirm)
            and reservation is not None
            and reservation.state is State.EXPIRED
            and self.count(reservation)
        ):
            self.sprung = True
            event = Paid(now_ms, command.id, command.payment)
            self.apply(event)
            return Changed(self._reservations[command.id]), [event]
        return super().decide(now_ms, command)


class ExpiresAPaidHold(Bug):
    """The other way round: the first hold that is paid expires all the same."""

    def decide(self, now_ms: int, command: Command) -> Decision:
        if isinstance(command, Expire) and not self.sprung:
            for reservation in self.reservations():
                if reservation.state is State.PAID and reservation.expires_at_ms <= now_ms:
                    self.sprung = True
                    event = Expired(now_ms, reservation.id)
                    self.apply(event)
                    shelf = self.shelf(reservation.sale, reservation.item)
                    shelf.held += reservation.quantity
                    shelf.sold -= reservation.quantity
                    return ExpiredSome(1, more=True), [event]
        return super().decide(now_ms, command)


class ExpiresTooEarly(Bug):
    """Seconds and milliseconds are mixed up."""

    def decide(self, now_ms: int, command: Command) -> Decision:
        if isinstance(command, Expire):
            for reservation in self.reservations():
                if reservation.state is State.HELD and reservation.expires_at_ms > now_ms:
                    self.sprung = True
                    event = Expired(now_ms, reservation.id)
                    self.apply(event)
                    return ExpiredSome(1, more=True), [event]
        return super().decide(now_ms, command)


class IgnoresTheLimit(Bug):
    """A buyer gets more than the limit, where there are units."""

    def decide(self, now_ms: int, command: Command) -> Decision:
        outcome, events = super().decide(now_ms, command)
        limited = isinstance(outcome, Refused) and outcome.reason is Reason.PURCHASE_LIMIT
        if isinstance(command, Reserve) and limited and self.has(command):
            return self.hold(now_ms, command)
        return outcome, events


class ForgetsToReturnUnits(Bug):
    """A cancelled reservation's units do not come back."""

    def decide(self, now_ms: int, command: Command) -> Decision:
        outcome, events = super().decide(now_ms, command)
        for event in events:
            if isinstance(event, Cancelled):
                self.sprung = True
                reservation = self._reservations[event.id]
                self.shelf(reservation.sale, reservation.item).available -= reservation.quantity
        return outcome, events


class NeverExpires(Bug):
    """The expiry job is dead; unpaid holds stay for ever."""

    def decide(self, now_ms: int, command: Command) -> Decision:
        if isinstance(command, Expire):
            due_at_ms = self.next_expiry_at_ms()
            self.sprung = due_at_ms is not None and due_at_ms <= now_ms
            return ExpiredSome(0, more=False), []
        return super().decide(now_ms, command)


class ReservesAgainOnARepeat(Bug):
    """The key is looked up, but kept only for a moment: a repeat is a second reservation."""

    def decide(self, now_ms: int, command: Command) -> Decision:
        outcome, events = super().decide(now_ms, command)
        if isinstance(command, Reserve) and isinstance(outcome, Reserved) and outcome.replayed:
            shelf = self.shelf(command.sale, command.item)
            has = shelf.bought.get(command.buyer, 0)
            if shelf.available >= command.quantity and shelf.limit and has + command.quantity <= shelf.limit:
                return self.hold(now_ms, command)
        return outcome, events


class ServesANobody(Bug):
    """A future of a failed batch is resolved with the next one's success."""

    def decide(self, now_ms: int, command: Command) -> Decision:
        outcome, events = super().decide(now_ms, command)
        if isinstance(command, Reserve) and events and not self.sprung and self.has(command):
            ghost = msgspec.structs.replace(command, id=command.id + "-ghost", buyer="nobody")
            return outcome, [*events, *self.hold(now_ms, ghost)[1]]
        return outcome, events


class SellsBeforeTheSaleOpens(Bug):
    """Nobody looks at the clock."""

    def decide(self, now_ms: int, command: Command) -> Decision:
        outcome, events = super().decide(now_ms, command)
        if isinstance(command, Reserve) and isinstance(outcome, Refused) and outcome.reason is Reason.NOT_OPEN:
            return self.hold(now_ms, command)
        return outcome, events


class SnapshotForgetsAReservation(Bug):
    """After a restart the first cancelled reservation is not known any more."""

    forgets: type[Command] = Cancel

    def decide(self, now_ms: int, command: Command) -> Decision:
        outcome, events = super().decide(now_ms, command)
        if isinstance(command, self.forgets) and isinstance(outcome, Changed) and not self.sprung:
            self.sprung = True
            forgotten = outcome.reservation
            whole = self.snapshot()
            kept = [row for row in whole.reservations if row.id != forgotten.id]
            self.become(Machine.restore(msgspec.structs.replace(whole, reservations=kept)))
            if forgotten.state is State.PAID:
                self.count(forgotten)
        return outcome, events


class SnapshotForgetsASoldTicket(SnapshotForgetsAReservation):
    """After a restart the first paid reservation is not known any more, and its units are sold again."""

    forgets = Confirm


class TheCounterIsEvicted(Bug):
    """The store drops the counter when an item is sold out, and the sale starts again from the first unit."""

    def decide(self, now_ms: int, command: Command) -> Decision:
        outcome, events = super().decide(now_ms, command)
        if isinstance(outcome, Refused) and outcome.reason is Reason.SOLD_OUT and not self.sprung:
            assert isinstance(command, Reserve)
            self.sprung = True
            shelf = self.shelf(command.sale, command.item)
            shelf.available, shelf.held, shelf.sold = shelf.capacity, 0, 0
        return outcome, events


class TheClockJumpsBack(Bug):
    """Wall time is believed when it is set back."""

    def decide(self, now_ms: int, command: Command) -> Decision:
        outcome, events = super().decide(now_ms, command)
        if events and isinstance(events[0], Cancelled) and now_ms > 0:
            self.sprung = True
            return outcome, [Cancelled(now_ms - 1, events[0].id)]
        return outcome, events
