"""A power cut between any two writes to the disk: with durability "fsync" all that was acknowledged is there.

With "memory" it need not be, which shows that the cuts below do cut; but what is there is a whole
beginning or is refused, never half believed.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.faults.nursery import CONTEXT
from tests.faults.power import CUTS, write_with_cuts
from ticketrush.errors import JournalError
from ticketrush.events import AnyEvent
from ticketrush.ledger.embedded import load
from ticketrush.ledger.journal import Journal
from ticketrush.ledger.machine import Machine

WRITE_S: Final = 60.0
SEEDS: Final = 3


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[Executor]:
    """A process of its own: with that disk in this one, CPython 3.11 ended a run in a SystemError of `ast.parse`."""
    with ProcessPoolExecutor(1, mp_context=CONTEXT) as executor:
        yield executor


def after(path: Path) -> Machine | JournalError:
    """What a start after the cut believes."""
    try:
        journal = Journal(path)
    except JournalError as error:
        return error
    try:
        return load(journal)[0]
    except JournalError as error:
        return error
    finally:
        journal.close()


def is_a_beginning(machine: Machine, events: list[AnyEvent]) -> bool:
    again = Machine()
    again.replay(events[: machine.seq])
    return machine.snapshot() == again.snapshot()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_power_cut_loses_nothing_that_was_acknowledged(seed: int, elsewhere: Executor, tmp_path: Path) -> None:
    story = elsewhere.submit(write_with_cuts, tmp_path, "fsync", seed).result(WRITE_S)
    assert len(story.cuts) > CUTS // 2
    for path, acknowledged in story.cuts.items():
        machine = after(path)
        assert isinstance(machine, Machine), f"{path.parent.name}: {machine}"
        assert machine.seq >= acknowledged, f"{path.parent.name}: {machine.seq} of {acknowledged} events"
        assert is_a_beginning(machine, story.events)


def test_without_fsync_a_power_cut_loses_some_but_nothing_is_half_believed(elsewhere: Executor, tmp_path: Path) -> None:
    story = elsewhere.submit(write_with_cuts, tmp_path, "memory", 1).result(WRITE_S)
    lost = 0
    for path, acknowledged in story.cuts.items():
        machine = after(path)
        if isinstance(machine, Machine):
            lost += machine.seq < acknowledged
            assert is_a_beginning(machine, story.events)
        else:
            lost += 1
    assert lost > 5, "the cuts do not cut"
