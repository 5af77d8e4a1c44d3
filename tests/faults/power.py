"""A disk that can lose its power: an SQLite VFS that knows what has really been written.

What was synced stays. Of what was written since, an arbitrary part stays: any of the writes, in any
combination, as a disk with a cache may leave them.
"""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from unittest.mock import patch

import apsw

from tests.faults.damage import batches, make
from ticketrush.events import AnyEvent
from ticketrush.ledger.embedded import load
from ticketrush.ledger.journal import Journal

BATCHES: Final = 80
CUTS: Final = 70
CHECKPOINT_PAGES: Final = 12
"""So small that the WAL is often brought into the main file, where cuts are the most dangerous."""

_NAME: Final = "ticketrush-test-disk"

Write = tuple[int, bytes]
"""Offset, data. No data: the file is cut at the offset."""


class Platter:
    """What is on the disk: of each file what is safe, and the writes that may be lost."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._safe: dict[str, bytes] = {}
        self._pending: dict[str, list[Write]] = {}
        self.on_write: Callable[[], None] = lambda: None
        """Called before every write."""

    def put(self, path: Path) -> None:
        """A file that is safe from the beginning."""
        self.sync(str(path))

    def write(self, name: str, write: Write) -> None:
        self.on_write()
        self._pending.setdefault(name, []).append(write)

    def sync(self, name: str) -> None:
        self._safe[name] = Path(name).read_bytes()
        self._pending.pop(name, None)

    def cut(self, folder: Path) -> None:
        """Put what is left after a power cut at this moment into `folder`."""
        folder.mkdir(parents=True)
        luck = self._dice.choice((0.0, 0.3, 0.7, 1.0))
        for name in {*self._safe, *self._pending}:
            content = bytearray(self._safe.get(name, b""))
            for offset, data in self._pending.get(name, ()):
                if self._dice.random() >= luck:
                    continue
                if data:
                    content.extend(bytes(max(0, offset - len(content))))
                    content[offset : offset + len(data)] = data
                else:
                    del content[offset:]
            if content or name in self._safe:
                (folder / Path(name).name).write_bytes(content)


class _File(apsw.VFSFile):
    def __init__(self, platter: Platter, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._platter = platter
        self._name = name.filename() if isinstance(name, apsw.URIFilename) else str(name)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._platter.write(self._name, (offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._platter.write(self._name, (newsize, b""))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self._platter.sync(self._name)


class _System(apsw.VFS):
    def __init__(self, platter: Platter) -> None:
        super().__init__(_NAME, "")
        self._platter = platter

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _File(self._platter, name, flags)


@contextlib.contextmanager
def disk_with(platter: Platter) -> Iterator[None]:
    """Every journal that is opened inside writes to `platter` too."""
    system = _System(platter)
    try:
        with patch.object(apsw, "Connection", functools.partial(apsw.Connection, vfs=_NAME)):
            yield
    finally:
        system.unregister()


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
        if dice.random() < 0.4 and len(story.cuts) < CUTS:
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
