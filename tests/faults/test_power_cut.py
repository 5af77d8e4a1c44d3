"""A power cut between any two writes to the disk: with durability "fsync" all that was acknowledged is there.

With "memory" it need not be, which shows that the cuts below do cut; but what is there is a whole
beginning or is refused, never half believed.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from tests.faults.damage import batches, make
from tests.faults.power import Platter, disk_with
from ticketrush.errors import JournalError
from ticketrush.events import AnyEvent
from ticketrush.ledger.embedded import load
from ticketrush.ledger.journal import Journal
from ticketrush.ledger.machine import Machine

BATCHES: Final = 80
CUTS: Final = 70
CHECKPOINT_PAGES: Final = 12
"""So small that the WAL is often brought into the main file, where cuts are the most dangerous."""


@dataclass
class Story:
    """What was written, and the power cuts in it: folder -> events acknowledged by then."""

    events: list[AnyEvent] = field(default_factory=list)
    acknowledged: int = 0
    cuts: dict[Path, int] = field(default_factory=dict)


def write_with_cuts(folder: Path, durability: str, seed: int) -> Story:
    """A sale in many commits, with power cuts at random writes."""
    dice = random.Random(seed)
    made = make(folder / "tickets.db", count=3)
    made.wal.unlink(missing_ok=True)
    story = Story(list(made.events), len(made.events))
    platter = Platter(dice)
    platter.put(made.path)

    def perhaps_cut() -> None:
        if dice.random() < 0.15 and len(story.cuts) < CUTS:
            image = folder / f"cut-{len(story.cuts)}"
            platter.cut(image)
            story.cuts[image / "tickets.db"] = story.acknowledged

    with disk_with(platter):
        journal = Journal(made.path, durability=durability)
        machine, _ = load(journal)
        journal._connection.pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
        platter.on_write = perhaps_cut
        for now, batch in enumerate(batches(BATCHES, first=3), 2_000):
            _, events = machine.execute(now, batch)
            story.events += events
            journal.append(events)
            story.acknowledged += len(events)
            if now % 20 == 0:
                journal.save_snapshot(machine.snapshot())
        platter.on_write = lambda: None
        journal.close()
    return story


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


@pytest.mark.parametrize("seed", range(3))
def test_a_power_cut_loses_nothing_that_was_acknowledged(seed: int, tmp_path: Path) -> None:
    story = write_with_cuts(tmp_path, "fsync", seed)
    assert len(story.cuts) > CUTS // 2
    for path, acknowledged in story.cuts.items():
        machine = after(path)
        assert isinstance(machine, Machine), f"{path.parent.name}: {machine}"
        assert machine.seq >= acknowledged, f"{path.parent.name}: {machine.seq} of {acknowledged} events"
        assert is_a_beginning(machine, story.events)


def test_without_fsync_a_power_cut_loses_some_but_nothing_is_half_believed(tmp_path: Path) -> None:
    story = write_with_cuts(tmp_path, "memory", 1)
    lost = 0
    for path, acknowledged in story.cuts.items():
        machine = after(path)
        if isinstance(machine, Machine):
            lost += machine.seq < acknowledged
            assert is_a_beginning(machine, story.events)
        else:
            lost += 1
    assert lost > 5, "the cuts do not cut"
