"""The machine the figures belong to."""

from __future__ import annotations

import os
import platform
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from ticketrush._version import __version__
from ticketrush.bench.errors import BenchError
from ticketrush.bench.pace import pace_ms
from ticketrush.bench.tools import Tools, version

IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})
"""File systems on which a sync costs nothing and proves nothing."""


class Machine(msgspec.Struct, frozen=True):
    """What a reader needs to know to judge the figures; `cores` are those this process may use.

    `python` says how fast the interpreter is (`pace`), since builds of one version differ by a third.
    """

    ticketrush: str
    cpu: str
    cores: int
    python: str
    kernel: str
    nginx: str
    wrk: str
    filesystem: str
    valkey: str = ""


def machine(tools: Tools, folder: Path, valkey: str = "") -> Machine:
    """The facts of this machine, and of the file system that `folder` is on; `valkey` is the ledger's server."""
    return Machine(
        ticketrush=__version__,
        cpu=_cpu(Path("/proc/cpuinfo").read_text()),
        cores=len(os.sched_getaffinity(0)),
        python=f"{platform.python_implementation()} {platform.python_version()} (pace {pace_ms():.1f} ms)",
        kernel=platform.release(),
        nginx=version(tools.nginx),
        wrk=version(tools.wrk),
        filesystem=filesystem(folder),
        valkey=valkey,
    )


def journal_folder(asked: Path | None) -> Path:
    """`asked`, or the first of the temporary folder and the current one that is on a disk.

    Raises:
        BenchError: `asked` is not a folder to write in.
    """
    if asked is not None:
        if not asked.is_dir() or not os.access(asked, os.W_OK):
            raise BenchError(f"{asked} is not a folder that can be written in")
        return asked
    candidates = [Path(tempfile.gettempdir()), Path.cwd()]
    on_disk = (place for place in candidates if os.access(place, os.W_OK) and filesystem(place) not in IN_MEMORY)
    return next(on_disk, candidates[0])


def filesystem(folder: Path) -> str:
    """The type of the file system that `folder` is on, "unknown" if the kernel does not tell."""
    return filesystem_of(folder.resolve(), Path("/proc/self/mountinfo").read_text())


def filesystem_of(folder: Path, mounts: str) -> str:
    """The type of the innermost of `mounts` (the text of ``mountinfo``) that `folder` is in."""
    found, depth = "unknown", 0
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        point = Path(before.split()[4].replace("\\040", " "))
        if folder.is_relative_to(point) and len(point.parts) >= depth:
            found, depth = after.split()[0], len(point.parts)
    return found


def _cpu(cpuinfo: str) -> str:
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()
