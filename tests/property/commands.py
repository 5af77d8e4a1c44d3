"""Random commands over a world so small that they meet: few sales, items, buyers, keys."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from hypothesis import strategies as st

from ticketrush.model import (
    AddStock,
    Cancel,
    CloseSale,
    Command,
    Confirm,
    CreateSale,
    Expire,
    Item,
    OpenSale,
    Outcome,
    Refund,
    Reserve,
    Reserved,
    Sale,
)

HOLD_MS = 100

SALES = [
    Sale("rail", (Item("second", 5, 3), Item("first", 2)), 0, None, HOLD_MS),
    Sale("bus", (Item("second", 4),), 150, 900, 2 * HOLD_MS),
    Sale("ship", (Item("second", 3, 1), Item("first", 0)), None, None, HOLD_MS // 2),
]
OTHER_RAIL = Sale("rail", (Item("second", 6),))

sale_ids = st.sampled_from(["rail", "rail", "rail", "bus", "bus", "ship", "nowhere"])
item_ids = st.sampled_from(["second", "second", "second", "first", "nothing"])
buyers = st.sampled_from(["ann", "bob", "cid"])
keys = st.sampled_from(["", "", "k1", "k2"])
quantities = st.sampled_from([1, 1, 1, 2, 2, 3, 4])
numbers = st.integers(0, 7)

reserves = st.builds(Reserve, st.just(""), sale_ids, item_ids, buyers, quantities, keys)
confirms = st.builds(Confirm, numbers.map(str), st.sampled_from(["p1", "p2"]))
cancels = st.builds(Cancel, numbers.map(str))
refunds = st.builds(Refund, numbers.map(str))
expires = st.builds(Expire, st.sampled_from([1, 2, 1_024]))
operations = st.one_of(
    st.builds(CreateSale, st.sampled_from([*SALES, OTHER_RAIL])),
    st.builds(OpenSale, sale_ids),
    st.builds(CloseSale, sale_ids),
    st.builds(AddStock, sale_ids, item_ids, st.integers(1, 3), st.sampled_from(["s1", "s2", "s3"])),
)
commands = st.one_of(reserves, reserves, reserves, reserves, confirms, cancels, refunds, expires, operations)
batches = st.lists(commands, max_size=8)
steps = st.sampled_from([0, 0, 1, HOLD_MS // 4, HOLD_MS // 2, HOLD_MS, -HOLD_MS])


class Ids:
    """Gives each request a new id, and turns the numbers of random changes into ids of reservations."""

    def __init__(self) -> None:
        self.given = 0
        self.held: list[str] = []

    def settle(self, batch: Iterable[Command]) -> list[Command]:
        """The commands as a caller would send them."""
        return [self._settle(command) for command in batch]

    def learn(self, outcomes: Iterable[Outcome]) -> None:
        """Remember which reservations there are, to choose among the youngest."""
        self.held += [of.reservation.id for of in outcomes if isinstance(of, Reserved) and not of.replayed]

    def _settle(self, command: Command) -> Command:
        if isinstance(command, Reserve):
            self.given += 1
            return msgspec.structs.replace(command, id=f"r{self.given}")
        if isinstance(command, Confirm | Cancel | Refund):
            youngest = ["nobody's", *self.held][-8:]
            return msgspec.structs.replace(command, id=youngest[-1 - int(command.id) % len(youngest)])
        return command
