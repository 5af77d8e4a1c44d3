"""Ids: UUIDs of version 7, all different, beside each other in order of time."""

from __future__ import annotations

import time
import uuid

from ticketrush.ids import DRAWN, Ids

MANY = 5_000


def test_ids_are_uuids_of_version_7_with_the_time_in_front() -> None:
    ids = Ids()
    before_ms = time.time_ns() // 1_000_000
    drawn = [ids.draw() for _ in range(MANY)]
    after_ms = time.time_ns() // 1_000_000

    for id in drawn:
        read = uuid.UUID(hex=id)
        assert (len(id), read.hex, read.version, read.variant) == (DRAWN, id, 7, uuid.RFC_4122)
        assert before_ms <= int(id[:12], 16) <= after_ms


def test_no_two_ids_are_the_same_and_each_random_digit_has_every_value() -> None:
    ids = Ids()
    drawn = [ids.draw() for _ in range(MANY)]

    assert len({id[13:16] + id[17:] for id in drawn}) == MANY
    for place in (*range(13, 16), *range(17, DRAWN)):
        assert len({id[place] for id in drawn}) == 16, place


def test_others_draw_other_ids() -> None:
    one, other = Ids(), Ids()
    assert not {one.draw() for _ in range(MANY)} & {other.draw() for _ in range(MANY)}
