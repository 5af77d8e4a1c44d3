"""A small disk of our own that can be filled, emptied and made read-only."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

BLOCK: Final = 4_096


class Disk:
    """A mounted file system of a few megabytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._filler = folder / "filler"

    def free_bytes(self) -> int:
        state = os.statvfs(self.folder)
        return state.f_bavail * state.f_frsize

    def fill(self, leave: int = 0) -> None:
        """Write a filler file until only `leave` bytes are free."""
        with self._filler.open("ab", buffering=0) as filler:
            while (room := self.free_bytes() - leave) > 0:
                try:
                    filler.write(bytes(min(room, 64 * BLOCK)))
                except OSError as error:
                    if error.errno == errno.ENOSPC:
                        return
                    raise

    def make_room(self) -> None:
        """Delete the filler."""
        self._filler.unlink()

    def read_only(self) -> None:
        """Let nobody write any more."""
        _mount("-o", "remount,ro", str(self.folder))


@contextlib.contextmanager
def small_disk(parent: Path, megabytes: int = 8) -> Iterator[Disk]:
    """A tmpfs of that size, mounted below `parent`; unmounted again whatever happens."""
    assert os.geteuid() == 0, "filling a disk needs a disk of its own: run the fault tests as root, who may mount one"
    folder = parent / "disk"
    folder.mkdir()
    _mount("-t", "tmpfs", "-o", f"size={megabytes}m,mode=700", "ticketrush-test", str(folder))
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"mount {' '.join(arguments)}: {done.stderr}"
