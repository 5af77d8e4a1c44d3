"""The store held against the ledger: what it lacks is put right and told, what cannot be is only told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest

from tests.in_loop import in_loop
from tests.orders import claim, ended, held, paid, rows_in
from ticketrush import events as ev
from ticketrush import model as m
from ticketrush.clock import iso
from ticketrush.errors import LedgerUnavailable
from ticketrush.events import AnyEvent
from ticketrush.ledger.journal import Journal
from ticketrush.orders import reconciler as reconciler_module
from ticketrush.orders.journal_records import JournalRecords
from ticketrush.orders.model import Kind, Notice, OrderState
from ticketrush.orders.protocol import OrderStore
from ticketrush.orders.reconciler import Differences, Reconciler, notices_of
from ticketrush.orders.sqlite import SqliteOrders

NOW_MS: Final = 100_000
IN_FLIGHT_MS: Final = 10_000
RECENT_MS: Final = NOW_MS - IN_FLIGHT_MS + 1

SALE: Final = ev.SaleCreated(500, m.Sale("g1", (m.Item("second", 1_000, price_minor=55_300),)))


def made(id: str, at_ms: int = 1_000) -> ev.Held:
    """The event that `held(id)` tells of."""
    return ev.Held(at_ms, id, "g1", "second", "ann", 1, "", 2_000)


@dataclass
class World:
    """A journal, a store, and what compares them."""

    journal: Journal
    records: JournalRecords
    store: OrderStore

    def happens(self, *events: AnyEvent) -> None:
        self.journal.append(events)

    async def compared(self, *, mend: bool = True) -> Differences:
        return await Reconciler(self.records, self.store).run(NOW_MS, mend=mend, in_flight_ms=IN_FLIGHT_MS)

    async def state(self, id: str) -> OrderState | None:
        return (await self.store.states([id])).get(id)

    async def agrees(self) -> None:
        """A second look finds nothing, and writes nothing."""
        before = await rows_in(self.store), await self.store.repairs(limit=100)
        found = await self.compared()
        assert (found.is_well, found.repaired) == (True, 0)
        assert (await rows_in(self.store), await self.store.repairs(limit=100)) == before


@asynccontextmanager
async def world(folder: Path, *events: AnyEvent, told: Sequence[Notice] = ()) -> AsyncIterator[World]:
    """A ledger in which `events` happened, and a store that was told something of it."""
    journal = Journal(folder / "t.db", durability="memory")
    _, batches = journal.load()
    assert not list(batches)
    journal.append([SALE, *events])
    store, records = SqliteOrders(folder / "o.db"), JournalRecords(folder / "t.db")
    try:
        await store.migrate()
        await store.open()
        await records.open()
        await store.put(told)
        yield World(journal, records, store)
    finally:
        await records.close()
        await store.close()
        journal.close()


ENDS: Final[dict[str, tuple[list[AnyEvent], list[Notice]]]] = {
    "held": ([], []),
    "paid": ([ev.Paid(1_100, "o", "p-1")], [paid("o")]),
    "cancelled": ([ev.Cancelled(1_200, "o")], [ended("o", Kind.CANCELLED)]),
    "expired": ([ev.Expired(1_200, "o")], [ended("o", Kind.EXPIRED)]),
    "refunded": (
        [ev.Paid(1_100, "o", "p-1"), ev.Refunded(1_200, "o")],
        [paid("o", at_ms=1_200), ended("o", Kind.REFUNDED)],
    ),
}
"""What a ledger does to an order, and what its record then says: when a refunded one was paid is not in it."""


# --- the store is behind ----------------------------------------------------------------------


@pytest.mark.parametrize("end", ENDS)
@in_loop
async def test_a_missing_order_is_written_with_all_that_is_known(tmp_path: Path, end: str) -> None:
    events, notices = ENDS[end]
    async with world(tmp_path, made("o"), *events) as here:
        found = await here.compared()

        assert (found.compared, found.repaired, found.repaired_orders, found.is_well) == (1, 1, ["o"], True)
        (repair,) = await here.store.repairs(limit=10)
        assert (repair.order, repair.before, repair.after, repair.at_ms) == ("o", "missing", end, NOW_MS)
        assert repair.reason == (
            f"the ledger has it {end} since {iso(([made('o'), *events])[-1].at_ms)}, the event log had not brought that"
        )
        repaired = await rows_in(here.store)
        await here.store.put([held("o"), *notices])  # as the log would have told it, late
        assert await rows_in(here.store) == repaired
        assert await here.state("o") is OrderState(end)
        await here.agrees()


@pytest.mark.parametrize("end", [end for end in ENDS if end != "held"])
@in_loop
async def test_an_order_that_is_behind_is_brought_up(tmp_path: Path, end: str) -> None:
    events, _ = ENDS[end]
    async with world(tmp_path, made("o"), *events, told=[held("o")]) as here:
        found = await here.compared()

        assert found.repaired_orders == ["o"]
        assert await here.state("o") is OrderState(end)
        (repair,) = await here.store.repairs(limit=10)
        assert (repair.before, repair.after) == ("held", end)
        await here.agrees()


@in_loop
async def test_a_refund_that_was_missed_keeps_the_time_of_the_payment(tmp_path: Path) -> None:
    events, _ = ENDS["refunded"]
    async with world(tmp_path, made("o"), *events, told=[held("o"), paid("o")]) as here:
        await here.compared()

        order = await here.store.order("o")
        assert order is not None
        assert (order.state, order.paid_at_ms, order.refunded_at_ms) == (OrderState.REFUNDED, 1_100, 1_200)


@in_loop
async def test_an_incomplete_order_is_completed(tmp_path: Path) -> None:
    events, notices = ENDS["paid"]
    async with world(tmp_path, made("o"), *events, told=notices) as here:
        assert await here.state("o") is OrderState.INCOMPLETE

        found = await here.compared()

        assert found.repaired_orders == ["o"]
        assert await here.state("o") is OrderState.PAID
        assert (await here.store.repairs(limit=1))[0].before == "incomplete"
        await here.agrees()


@in_loop
async def test_what_agrees_is_left_alone(tmp_path: Path) -> None:
    for end, (events, notices) in ENDS.items():
        folder = tmp_path / end
        folder.mkdir()
        async with world(folder, made("o"), *events, told=[held("o"), *notices]) as here:
            await here.agrees()
            assert await here.store.repairs(limit=10) == []


@in_loop
async def test_told_to_mend_nothing_it_writes_nothing(tmp_path: Path) -> None:
    told = [held("behind"), held("cancelled-here"), ended("cancelled-here", Kind.CANCELLED), held("forgotten")]
    events = [made(id) for id in ("missing", "behind", "cancelled-here")]
    async with world(
        tmp_path, *events, ev.Paid(1_100, "behind", "p-1"), ev.Paid(1_100, "cancelled-here", "p-2"), told=told
    ) as here:
        before = await rows_in(here.store)

        found = await here.compared(mend=False)

        assert (await rows_in(here.store), await here.store.repairs(limit=10)) == (before, [])
        assert set(found.repaired_orders) == {"missing", "behind"}
        assert found.contradicting_orders == ["cancelled-here"]
        assert found.forgotten_orders == ["forgotten"]
        again = await here.compared()
        assert msgspec.structs.asdict(again) == msgspec.structs.asdict(found), "what it would do is what it does"


@in_loop
async def test_pages_of_any_size_are_compared_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ticketrush.orders.journal_records.ROWS", 3)
    monkeypatch.setattr("ticketrush.orders.journal_records.PAGE", 4)
    monkeypatch.setattr(reconciler_module, "PAGE", 2)
    monkeypatch.setattr(reconciler_module, "TOLD_MAX", 5)
    ids = [f"o{number}" for number in range(10)]
    async with world(tmp_path, *map(made, ids), told=[held(f"forgotten-{id}") for id in ids]) as here:
        found = await here.compared()

        assert (found.compared, found.repaired, found.forgotten) == (10, 10, 10)
        assert found.repaired_orders == ids[:5], "some are named, all are counted"
        assert len(found.forgotten_orders) == 5
        assert set(await rows_in(here.store)) == {*ids, *(f"forgotten-{id}" for id in ids)}


@in_loop
async def test_a_page_is_repaired_at_once_and_a_refused_order_hinders_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [f"o{number}" for number in range(500)]
    async with world(tmp_path, *map(made, ids)) as here:
        calls = 0
        put = here.store.put

        async def counted(*args: Any, **kwargs: Any) -> None:
            nonlocal calls
            calls += 1
            await put(*args, **kwargs)

        monkeypatch.setattr(here.store, "put", counted)
        assert (await here.compared()).repaired == 500
        assert calls == 1
        await here.agrees()
    refused = tmp_path / "refused"
    refused.mkdir()
    async with world(
        refused, *map(made, ids), told=[paid("o7", "p-x", at_ms=1_100), held("eve", claim("eve"))]
    ) as here:
        here.happens(*(ev.Paid(1_100, id, "p-1") for id in ids))
        found = await here.compared()
        assert (found.repaired, found.contradicting_orders) == (499, ["o7"])


# --- what nobody can put right ----------------------------------------------------------------


@pytest.mark.parametrize("mend", [True, False])
@pytest.mark.parametrize("theirs", [end for end in ENDS if end in {"cancelled", "expired"}])
@in_loop
async def test_a_contradiction_is_told_and_not_papered_over(tmp_path: Path, theirs: str, mend: bool) -> None:
    _, notices = ENDS[theirs]
    async with world(tmp_path, made("o"), *ENDS["paid"][0], told=[held("o"), *notices]) as here:
        before = await rows_in(here.store)

        found = await here.compared(mend=mend)

        assert (found.contradictions, found.contradicting_orders, found.repaired) == (1, ["o"], 0)
        assert found.contradicting_words == [
            "the ledger has it paid (1970-01-01T00:00:01.100Z, payment p-1), "
            f"the store {theirs} (1970-01-01T00:00:01.200Z)"
        ]
        assert not found.is_well
        assert (await rows_in(here.store), await here.store.repairs(limit=10)) == (before, [])


@in_loop
async def test_a_repair_that_the_store_refuses_is_a_contradiction(tmp_path: Path) -> None:
    async with world(tmp_path, made("o"), *ENDS["paid"][0], told=[held("o", claim("eve"))]) as here:
        before = await rows_in(here.store)

        found = await here.compared()

        assert (found.contradicting_orders, found.repaired, found.is_well) == (["o"], 0, False)
        (words,) = found.contradicting_words
        assert words.startswith("the ledger has it paid (1970-01-01T00:00:01.100Z, payment p-1), the store held (")
        assert "order o is refused: " in words
        assert (await rows_in(here.store), await here.store.repairs(limit=10)) == (before, [])


@in_loop
async def test_a_repair_of_an_order_that_the_store_will_not_take_at_all_is_one_too(tmp_path: Path) -> None:
    unwritable = ev.Held(1_000, "o", "g1", "second", "ann\0", 1, "", 2_000)
    async with world(tmp_path, unwritable, made("other")) as here:
        found = await here.compared()

        assert (found.contradicting_orders, found.repaired_orders) == (["o"], ["other"])
        (words,) = found.contradicting_words
        assert words.startswith("the ledger has it held (1970-01-01T00:00:01.000Z), the store has no such order: ")
        assert words.endswith(r"no store can write '\x00' in a text")


@in_loop
async def test_what_the_ledger_has_forgotten_is_told_and_stays(tmp_path: Path) -> None:
    told = [held("gone"), held("older"), paid("older"), held("o"), paid("half")]
    async with world(tmp_path, made("o"), made("older"), told=told) as here:
        before = await rows_in(here.store)

        found = await here.compared()

        assert (found.forgotten, set(found.forgotten_orders)) == (3, {"gone", "older", "half"})
        assert not found.is_well
        assert (await rows_in(here.store), await here.store.repairs(limit=10)) == (before, [])


# --- both move on -----------------------------------------------------------------------------


@in_loop
async def test_what_changed_a_moment_ago_is_left_alone(tmp_path: Path) -> None:
    events: list[AnyEvent] = [
        made("new", RECENT_MS),
        made("o"),
        ev.Paid(RECENT_MS, "o", "p-1"),
        made("old", RECENT_MS - 1),
    ]
    async with world(tmp_path, *events, told=[held("o"), held("not-in-the-journal-yet", at_ms=RECENT_MS)]) as here:
        found = await here.compared()

        assert (found.in_flight, found.compared, found.repaired_orders) == (2, 1, ["old"])
        assert found.is_well
        assert (await here.state("new"), await here.state("o")) == (None, OrderState.HELD)


class Moving:
    """A store to which something happens between two questions about states."""

    def __init__(self, here: World, then: Sequence[AnyEvent], told: Sequence[Notice]) -> None:
        self._here, self._then, self._told = here, then, told
        self._store, self._states = here.store, here.store.states

    async def states(self, ids: Sequence[str]) -> dict[str, OrderState]:
        found = dict(await self._states(ids))
        if self._then:
            self._here.happens(*self._then)
            self._then = ()
            await self._store.put(self._told)
        return found


@pytest.mark.parametrize("is_told", [True, False])
@in_loop
async def test_what_happens_while_it_compares_is_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_told: bool
) -> None:
    async with world(tmp_path, made("o"), made("p"), told=[held("p")]) as here:
        then = [ev.Paid(RECENT_MS, id, f"p-{id}") for id in ("o", "p")]
        told = [held("o"), paid("o", "p-o", RECENT_MS), paid("p", "p-p", RECENT_MS)] if is_told else []
        monkeypatch.setattr(here.store, "states", Moving(here, then, told).states)

        found = await here.compared()

        assert (found.repaired, found.contradictions, found.forgotten) == (0, 0, 0)
        assert await here.store.repairs(limit=10) == []


@in_loop
async def test_a_ledger_that_moves_between_the_questions_is_not_one_that_has_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, made("o")) as here:
        ask = here.records.reservations

        async def and_then(ids: Collection[str]) -> Mapping[str, m.Reservation]:
            found = await ask(ids)
            here.happens(ev.Paid(RECENT_MS, "o", "p-1"))
            await here.store.put([held("o"), paid("o", at_ms=RECENT_MS)])
            return found

        monkeypatch.setattr(here.records, "reservations", and_then)
        found = await here.compared()

        assert (found.contradictions, found.forgotten) == (0, 0)
        assert await here.state("o") is OrderState.PAID


# --- the records of a journal -----------------------------------------------------------------


@in_loop
async def test_records_are_those_of_the_journal_as_it_is_now(tmp_path: Path) -> None:
    async with world(tmp_path, made("o"), *ENDS["refunded"][0]) as here:
        record = (await here.records.reservations(["o"]))["o"]
        assert (record.state, record.payment, record.changed_at_ms) == (m.State.REFUNDED, "p-1", 1_200)
        assert [each.kind for each in notices_of(record, here.records.prices)] == [
            Kind.HELD,
            Kind.PAID,
            Kind.REFUNDED,
        ]
        assert set(await here.records.reservations(["o", "later"])) == {"o"}
        here.happens(
            made("later"), ev.SaleScheduled(1_000, "g1", None, None), ev.StockAdded(1_000, "g1", "second", 1, "")
        )
        assert set(await here.records.reservations(["o", "later"])) == {"o", "later"}


@in_loop
async def test_a_journal_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    records = JournalRecords(tmp_path / "t.db")
    with pytest.raises(LedgerUnavailable, match=r"t\.db"):
        await records.open()
    await records.close()
    await records.close()
