"""Processes that the bench starts: ended by their id whatever happens, and their CPU time (Linux, ``/proc``)."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

STOP_S: Final = 10
"""Seconds a process has to end by itself after SIGTERM."""

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True, slots=True)
class Child:
    """A running process; what it prints goes to the files `stdout` and `stderr`."""

    name: str
    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    def words(self, most: int = 2_000) -> str:
        """The end of what it wrote to stderr, else to stdout, for an error message."""
        for file in (self.stderr, self.stdout):
            text = file.read_bytes()[-most:].decode(errors="replace").strip()
            if text:
                return text
        return "(it said nothing)"


@contextlib.contextmanager
def child(name: str, command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> Iterator[Child]:
    """Run `command` in `folder` for as long as the block lasts.

    It leads a process group of its own: Ctrl-C reaches the bench alone, which then ends it here.
    """
    stdout, stderr = folder / f"{name}.out", folder / f"{name}.err"
    with stdout.open("wb") as out, stderr.open("wb") as err:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=folder,
            env=None if env is None else dict(env),
            start_new_session=True,
        )
    try:
        yield Child(name, process, stdout, stderr)
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then after STOP_S (or a second Ctrl-C) SIGKILL for the process and what it started."""
    try:
        if process.poll() is None:
            process.terminate()
            process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def cpu_s(pid: int) -> float:
    """CPU seconds, user and system, that `pid` with all its threads and its children have used so far."""
    return sum(_times(stat) for stat in _stats() if pid in (_pid(stat), _parent(stat)))


def busy_s() -> float:
    """CPU seconds that all processors together have been busy since the machine started."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle, waiting = fields[3], fields[4]
    return (sum(fields) - idle - waiting) / TICKS_PER_S


def _stats() -> Iterator[str]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                yield (entry / "stat").read_text(errors="replace")


def _pid(stat: str) -> int:
    return int(stat.split(" ", 1)[0])


def _after_name(stat: str) -> list[str]:
    """The fields from the state on; the name before them may contain spaces and parentheses."""
    return stat.rpartition(")")[2].split()


def _parent(stat: str) -> int:
    return int(_after_name(stat)[1])


def _times(stat: str) -> float:
    fields = _after_name(stat)
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S
