"""What every ledger promises. Backends stand beside this file and never import one another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from ticketrush import model as m
from ticketrush.audit import LedgerState
from ticketrush.events import AnyEvent


class Ledger(Protocol):
    """The authority on stock and reservations.

    `execute` is the one way to change anything. Reads see only what has been committed.
    """

    overlap: int
    """Calls of `execute` that may be under way at a time: 1 where one process does all the work."""

    async def start(self) -> None:
        """Be ready: own the storage and know its state.

        Raises:
            JournalError: the storage cannot be used; nothing was written to it.
        """

    async def close(self) -> None:
        """Finish the commit under way and let the storage go. May be called twice."""

    async def execute(self, now_ms: int, commands: Sequence[m.Command]) -> list[m.Outcome]:
        """Decide a batch in arrival order; when this returns, all its effects are durable.

        Each command is atomic and sees the effects of those before it. Callers overlap at most `overlap` calls.
        Where a ledger commits in parts and one of them fails, its commands are refused as UNKNOWN (it may have
        happened) or UNAVAILABLE (it did not), and the others have their outcomes.

        Raises:
            LedgerUnavailable: the whole commit failed; each command of the batch may or may not have
                happened, and repeating it with the same key is safe.
        """

    def sales(self) -> list[m.Sale]:
        """All sales, in the order in which they were created."""

    def stock(self, sale: str) -> m.Stock | None:
        """Levels of a sale after the last commit; None for an unknown one."""

    def changes(self) -> set[str]:
        """Sales whose committed stock changed since this was last asked; after `start`, all of them."""

    @property
    def ready(self) -> bool:
        """Whether the ledger can be asked, as far as is known without asking."""

    def watch(self, changed: Callable[[], None]) -> None:
        """Have `changed` called when there are `changes` that no call of `execute` here has made."""

    def new_id(self, sale: str, buyer: str) -> str:
        """An id for a new reservation that nobody can guess: 72 random bits, and where it is to be found."""

    def remembers(self, sale: str, key: str) -> bool:
        """Whether a reservation was made in `sale` under the idempotency key `key`, by anybody.

        May be true too early, for a commit under way; is never false too late.
        """

    def next_expiry_at_ms(self) -> int | None:
        """When the first hold falls due; None while nothing is held."""

    def last_event_at_ms(self) -> int:
        """Time of the last event; 0 before the first. No later event has an earlier time."""

    async def reservation(self, id: str) -> m.Reservation | None:
        """A committed reservation; None for an unknown id."""

    async def reservation_for(self, sale: str, buyer: str, key: str) -> m.Reservation | None:
        """The committed reservation that `buyer` made in `sale` under `key`; None if there is none."""

    async def events(self, after: int, limit: int) -> list[tuple[int, AnyEvent]]:
        """At most `limit` committed events with numbers above `after`, in order, with their numbers."""

    def calls(self) -> Mapping[str, int]:
        """Calls to a server so far, by script or command; nothing where the ledger is in this process."""

    async def state(self) -> LedgerState:
        """What the ledger holds in memory to be true, for the auditor to compare with the events (I8)."""
