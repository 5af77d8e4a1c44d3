"""What every order store and every event log promises. Backends stand beside this file and never import one another."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

from ticketrush.orders.model import DeadLetter, Notice, Order, OrderState, Repair


class Totals(NamedTuple):
    """Orders of one item of a sale in one state, and the units in them."""

    sale: str
    item: str
    state: OrderState
    orders: int
    units: int


class OrderStore(Protocol):
    """Where orders are kept. Whatever it is asked has an answer or an error within a bound.

    Raises from every call:
        StoreUnavailable: no answer; see there.
    """

    async def open(self) -> None:
        """Connect, and see that the tables are those that this program knows.

        Raises:
            StoreOutdated: they are not; names `ticketrush migrate`.
        """

    async def close(self) -> None:
        """Let it go. May be called twice."""

    async def pending(self) -> list[str]:
        """The names of the migrations that `migrate` would apply. Makes and changes nothing.

        In the place of `open`, as `migrate`. Raises StoreOutdated as that does.
        """

    async def migrate(self) -> list[str]:
        """Bring the tables to this program's version, alone (others wait); the names of the migrations applied.

        In the place of `open`, on a store that is not open; `close` ends it.

        Raises:
            StoreOutdated: the tables are of a newer program, or something else.
        """

    async def put(
        self,
        notices: Sequence[Notice],
        *,
        dead: Sequence[DeadLetter] = (),
        repairs: Sequence[Repair] = (),
        position: tuple[str, str] | None = None,
    ) -> None:
        """Write all of it in one transaction; when this returns, it is durable.

        What is known already changes nothing: a notice, a dead letter from the same place, a repair. Of two
        times of the same thing the one that was written first stays. `position` (source, where) is how far that
        source has been read.

        Raises:
            NoticeRefused: a notice contradicts what is known or another of the batch (a cancelled order is paid,
                a second claim or payment is another than the first); nothing was written.
        """

    async def position(self, source: str) -> str | None:
        """How far a source has been read; None if it never was."""

    async def order(self, id: str) -> Order | None:
        """One order; None if the store has not heard of it (yet)."""

    async def orders_of(self, buyer: str, *, before: int | None, limit: int) -> list[Order]:
        """Orders of a buyer, newest number first, with numbers below `before` if given; no incomplete ones."""

    async def page(self, after: int, limit: int) -> list[Order]:
        """Orders of everybody, incomplete ones too, oldest number first, with numbers above `after`."""

    async def states(self, ids: Collection[str]) -> Mapping[str, OrderState]:
        """The states of those of the orders that the store has heard of."""

    async def totals(self) -> list[Totals]:
        """Orders and units of all sales, by item and state; incomplete ones have item and sale ""."""

    async def dead_letters(self, *, after: int, limit: int) -> list[DeadLetter]:
        """Dead letters that are not settled, oldest first, with numbers above `after`."""

    async def settle(self, number: int, outcome: str, at_ms: int) -> bool:
        """A dead letter is dealt with, in which way `outcome` says. False if no such one is open (any more).

        It stays in the store, so that its message is known again when it is sent once more.
        """

    async def repairs(self, *, limit: int) -> list[Repair]:
        """The latest repairs, newest first."""


class Message(NamedTuple):
    """One message of a source: what it tells, or what is wrong with it.

    `where` names it in its source, once and for all.
    """

    where: str
    payload: bytes
    notice: Notice | None
    error: str = ""


class Source(Protocol):
    """An event log, read at least once: what was not `done` is sent again after a crash."""

    @property
    def name(self) -> str:
        """Which log it is, for places in it and for how far it was read."""

    async def open(self) -> None:
        """Connect. Raises SourceUnavailable."""

    async def close(self) -> None:
        """Let it go; what is not done will be sent again, to this reader or another. May be called twice."""

    async def next(self, most: int, wait_s: float) -> Sequence[Message]:
        """About `most` messages at most, behind those before; waits `wait_s` at most while there are none.

        Raises:
            SourceUnavailable: no answer; ask again.
            SourceLost: there will be no answer any more.
        """

    def position(self) -> tuple[str, str] | None:
        """How far `next` has come, for a source whose position the store keeps; None if the log keeps it itself."""

    async def done(self) -> None:
        """All that `next` has returned is stored. Raises SourceUnavailable: it may be sent again, which is harmless."""

    async def lag(self) -> int:
        """Messages that are waiting to be read or done. Raises SourceUnavailable. May be asked beside the others."""
