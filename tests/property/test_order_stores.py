"""Notices in any order, any number of times, in any batches: both stores say what the plainest idea of orders says."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.orders import Contradiction, Naive, claim, ended, held, paid, row_of
from tests.postgres import fresh_database
from tests.property.profiles import PROFILE
from ticketrush.cluster.postgres import Postgres
from ticketrush.orders import sqlite
from ticketrush.orders.errors import NoticeRefused
from ticketrush.orders.model import Kind, Notice
from ticketrush.orders.protocol import OrderStore
from ticketrush.orders.rows import Row, rows_of
from ticketrush.wiring import store_of

pytestmark = pytest.mark.timeout(400)  # only a failure takes that long: Hypothesis makes it small on a real server

_examples = itertools.count()

TIMES = st.integers(0, 5)
CLAIMS = st.builds(
    claim, st.sampled_from(["ann", "bob"]), quantity=st.integers(1, 2), key=st.sampled_from(["", "k-1", "k-2"])
)
LIVES = [(), (Kind.PAID,), (Kind.PAID, Kind.REFUNDED), (Kind.CANCELLED,), (Kind.EXPIRED,)]

Batches = list[list[Notice]]


@st.composite
def any_notice(draw: st.DrawFn, order: str) -> Notice:
    """One notice of an order, which may contradict any other."""
    kind = draw(st.sampled_from(Kind))
    if kind is Kind.HELD:
        return held(order, draw(CLAIMS), draw(TIMES))
    if kind is Kind.PAID:
        return paid(order, draw(st.sampled_from(["p-1", "p-2"])), draw(TIMES))
    return ended(order, kind, draw(TIMES))


@st.composite
def life(draw: st.DrawFn, order: str) -> list[Notice]:
    """What really happened to an order, as far as it went, each thing at its one time."""
    told = [held(order, draw(CLAIMS), draw(TIMES))]
    for kind in draw(st.sampled_from(LIVES)):
        at_ms = draw(TIMES)
        told.append(paid(order, "p-1", at_ms) if kind is Kind.PAID else ended(order, kind, at_ms))
    return told


@st.composite
def batches(draw: st.DrawFn, *, legal: bool) -> Batches:
    """Notices of a few orders, repeated, shuffled and cut into batches."""
    orders = [f"o{number}" for number in range(draw(st.integers(1, 4)))]
    if legal:
        facts = [notice for order in orders for notice in draw(life(order))]
        lost = draw(st.sets(st.sampled_from(range(len(facts)))))  # that have not come yet
        again = draw(st.lists(st.sampled_from(facts), max_size=6))
        told = draw(st.permutations([each for number, each in enumerate(facts) if number not in lost] + again))
    else:
        told = draw(st.lists(st.sampled_from(orders).flatmap(any_notice), min_size=1, max_size=12))
    cuts = sorted(draw(st.lists(st.integers(0, len(told)), max_size=4)))
    return [list(told[a:b]) for a, b in itertools.pairwise([0, *cuts, len(told)])]


class Shelf:
    """Open stores on one event loop, for as many examples as there are."""

    def __init__(self, urls: list[str]) -> None:
        self._runner = asyncio.Runner()
        self._stores = [store_of(url) for url in urls]
        for store in self._stores:
            for step in (store.migrate, store.close, store.open):
                self._run(step)

    def _run(self, step: Callable[[], Awaitable[Any]]) -> Any:
        async def ran() -> Any:
            return await step()

        return self._runner.run(ran())

    def close(self) -> None:
        for store in self._stores:
            self._run(store.close)
        self._runner.close()

    def check(self, told: Batches) -> None:
        """Tell the stores and the naive one; they take and refuse the same batches and end with the same orders."""
        for store in self._stores:
            example = f"{next(_examples)}-"  # a store never forgets, so each example has orders of its own
            mine = [[Notice(example + n.order, n.kind, n.at_ms, n.claim, n.payment) for n in part] for part in told]
            self._run(lambda store=store, mine=mine: self._told(store, mine))  # type: ignore[misc]

    @staticmethod
    async def _told(store: OrderStore, told: Batches) -> None:
        naive = Naive()
        for part in told:
            try:
                naive.put(part)
            except Contradiction:
                with pytest.raises(NoticeRefused):
                    await store.put(part)
            else:
                await store.put(part)
        found = {}
        for id in {notice.order for part in told for notice in part}:
            order = await store.order(id)
            if order is not None:
                found[id] = row_of(order)
        assert found == naive.rows()
        assert await store.states(naive.rows()) == {id: row[0] for id, row in naive.rows().items()}


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Shelf]:
    folder: Path = tmp_path_factory.mktemp("orders")
    shelf = Shelf([f"sqlite:///{folder}/orders.db", fresh_database(postgres)])
    yield shelf
    shelf.close()


@settings(PROFILE)
@given(told=batches(legal=True))
def test_what_happened_makes_the_same_orders_however_it_is_told(shelf: Shelf, told: Batches) -> None:
    shelf.check(told)


@settings(PROFILE)
@given(told=batches(legal=False))
def test_a_batch_with_a_contradiction_is_refused_whole_and_no_other_is(shelf: Shelf, told: Batches) -> None:
    shelf.check(told)


# --- canaries: a store that does one thing wrong is found out --------------------------------


Rows = list[Row]


def _forgets_expired(said: Rows) -> Rows:
    return [(*row[:13], None, row[14]) for row in said]


def _takes_any_claim(said: Rows) -> Rows:
    return [row if row[1] is None else (*row[:3], "ann", *row[4:]) for row in said]


def _forgets_keys(said: Rows) -> Rows:
    return [row if row[1] is None else (*row[:8], "", *row[9:]) for row in said]


def _moves_times(said: Rows) -> Rows:
    return [(*row[:10], None if row[10] is None else int(row[10]) + 1, *row[11:]) for row in said]


@pytest.mark.parametrize("bug", [_forgets_expired, _takes_any_claim, _forgets_keys, _moves_times])
def test_a_planted_bug_is_found(tmp_path: Path, bug: Callable[[Rows], Rows]) -> None:
    told: Batches = [[held("a", claim("bob", key="k-1"))], [ended("a", Kind.EXPIRED)], [held("a", claim("ann"))]]
    shelf = Shelf([f"sqlite:///{tmp_path}/orders.db"])
    try:
        shelf.check(told)
        with (
            patch.object(sqlite, "rows_of", lambda notices: bug(rows_of(notices))),
            pytest.raises((AssertionError, pytest.fail.Exception)),
        ):
            shelf.check(told)
    finally:
        shelf.close()
