"""The answers of the fast lane: prepared once for many, and yet each one's own."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from ticketrush import model as m
from ticketrush.engine import Engine
from ticketrush.http.lane import Lane, Limits
from ticketrush.http.purchase import Purchases
from ticketrush.ledger.embedded import EmbeddedLedger

HELD_AT_MS = 1_800_000_000_000


@pytest.fixture
def lane(tmp_path: Path) -> Lane:
    return Lane(Purchases(Engine(EmbeddedLedger(tmp_path / "j.db")), None), Limits(), None)


def test_an_answer_prepared_for_many_says_what_the_application_says(lane: Lane) -> None:
    ids = itertools.count(1)
    for _ in range(3):
        for sale, item, quantity, at_ms, window_ms in itertools.product(
            ["a", "b~1"], ["x", "y.2"], [1, 1000], [HELD_AT_MS, HELD_AT_MS + 1], [1, 86_400_000]
        ):
            id = f"{next(ids):032x}"
            new = m.Reservation(id, sale, item, "ada", quantity, "k", at_ms, at_ms + window_ms, m.State.HELD, at_ms)
            outcome = m.Reserved(new)

            assert lane.answer(sale, outcome) == lane.render(lane.purchases.answer(outcome))


def test_a_repeated_answer_is_not_taken_for_a_new_one(lane: Lane) -> None:
    new = m.Reservation("0" * 32, "a", "x", "ada", 1, "k", HELD_AT_MS, HELD_AT_MS + 1, m.State.HELD, HELD_AT_MS)
    paid = m.Reservation("0" * 32, "a", "x", "ada", 1, "k", HELD_AT_MS, HELD_AT_MS + 1, m.State.PAID, HELD_AT_MS, "p")
    lane.answer("a", m.Reserved(new))

    answer = lane.answer("a", m.Reserved(paid, replayed=True))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"idempotent-replayed: true" in answer
    assert b'"state":"paid"' in answer


def test_the_date_of_an_answer_follows_the_clock(lane: Lane) -> None:
    new = m.Reservation("0" * 32, "a", "x", "ada", 1, "k", HELD_AT_MS, HELD_AT_MS + 1, m.State.HELD, HELD_AT_MS)
    lane.answer("a", m.Reserved(new))
    lane.watch.tick += 1
    lane.watch.date_line = b"date: later\r\n"

    assert b"date: later\r\n" in lane.answer("a", m.Reserved(new))
