"""Processes that we start: ended by their id whatever happens, and what they cost (Linux, ``/proc``).

Each leads a process group of its own, so that Ctrl-C reaches us alone, and ends (on Linux) when we
are killed outright. What it prints goes to files.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import resource
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGTERM, Signals
from typing import Final

from ticketrush import stop

STOP_S: Final = 10
"""Seconds a process has to end by itself after SIGTERM."""

OPEN_FILES: Final = 65_536

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def allow_connections() -> None:
    """Let this process have `OPEN_FILES` open, or as many as the system lets it: a shell begins with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):  # a system with another limit of its own
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@dataclasses.dataclass(slots=True)
class Child:
    """A process of ours, running or ended; what it prints goes to the files `stdout` and `stderr`."""

    name: str
    process: subprocess.Popen[bytes]
    stdout: Path
    stderr: Path
    was_asked: bool = False
    """Whether it was told to end."""

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def ended(self) -> bool:
        return self.process.poll() is not None

    @property
    def exit_code(self) -> int | None:
        """How it ended; negative is the signal that ended it; None while it runs."""
        return self.process.poll()

    def words(self, most: int = 2_000) -> str:
        """The end of what it wrote to stderr, else to stdout, for an error message."""
        for file in (self.stderr, self.stdout):
            with contextlib.suppress(OSError):
                text = _end_of(file, most).strip()
                if text:
                    return text
        return "(it said nothing)"

    def first_line(self, within_s: float) -> bytes | None:
        """The first line on its standard output; None if it ends without one, or after `within_s`."""
        give_up_s = time.monotonic() + within_s
        while time.monotonic() < give_up_s:
            ended = self.ended
            line, end, _ = self.stdout.read_bytes().partition(b"\n")
            if end:
                return line
            if ended:
                return None
            time.sleep(0.01)
        return None

    def signal(self, number: Signals) -> None:
        """Send it a signal; nothing happens if it has ended."""
        self.process.send_signal(number)

    def ask_to_stop(self, number: Signals = SIGTERM) -> None:
        """The signal that ends it, without waiting, and only once: a second one could cut its end short.

        One that was paused is woken for it.
        """
        if not self.was_asked and not self.ended:
            self.was_asked = True
            self.signal(number)
            self.signal(SIGCONT)

    def stop(self, within_s: float | None = None) -> int:
        """SIGTERM, then after `within_s` (or a second Ctrl-C) SIGKILL for it and what it started; its exit code."""
        try:
            self.ask_to_stop()
            if not self.ended:
                self.process.wait(STOP_S if within_s is None else within_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if not self.ended:
                self.kill()
        return self.process.returncode

    def kill(self) -> None:
        """SIGKILL for it and what it started, as a power cut would end it."""
        if not self.ended:
            os.killpg(self.pid, SIGKILL)
        self.process.wait()


def start(
    name: str,
    command: Sequence[str],
    folder: Path,
    env: Mapping[str, str] | None = None,
    *,
    at_our_end: Signals = SIGTERM,
) -> Child:
    """Run `command` in `folder`; its output is added to `name`.out, its errors to `name`.err there.

    The caller ends it; if we are killed before that, Linux sends it `at_our_end`.
    """
    stdout, stderr = folder / f"{name}.out", folder / f"{name}.err"
    with stdout.open("wb") as out, stderr.open("ab") as err:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=folder,
            env=None if env is None else dict(env),
            start_new_session=True,
            preexec_fn=stop.with_parent(at_our_end),  # noqa: PLW1509 - no thread of ours holds a lock here
        )
    return Child(name, process, stdout, stderr)


def run(
    command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None, *, text: str = "", within_s: float
) -> subprocess.CompletedProcess[str]:
    """Run `command` in `folder` to its end, with `text` as its input; Ctrl-C does not reach it.

    Raises:
        subprocess.TimeoutExpired: it took longer than `within_s`, and was killed.
    """
    return subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=within_s,
        check=False,
        cwd=folder,
        env=None if env is None else dict(env),
        start_new_session=True,
        preexec_fn=stop.with_parent(SIGTERM),
    )


@contextlib.contextmanager
def child(name: str, command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> Iterator[Child]:
    """Run `command` in `folder` for as long as the block lasts."""
    running = start(name, command, folder, env)
    try:
        yield running
    finally:
        running.stop()


def plain_environment() -> dict[str, str]:
    """Our environment without any setting of ticketrush: what we start, we set ourselves."""
    return {name: value for name, value in os.environ.items() if not name.startswith("TICKETRUSH_")}


def cpu_s(pid: int) -> float:
    """CPU seconds, user and system, that `pid` with all its threads and its children have used so far."""
    return sum(_times(stat) for stat in _stats() if pid in (_pid(stat), _parent(stat)))


def cpu_of(pid: int) -> float | None:
    """CPU seconds that `pid` with all its threads has used so far, None where that cannot be known."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        return _times(Path(f"/proc/{pid}/stat").read_text(errors="replace"))
    return None


def children_of(pid: int) -> list[int]:
    """The processes that `pid` started and that have not been reaped; none where that cannot be known."""
    with contextlib.suppress(OSError):
        return [_pid(stat) for stat in _stats() if _parent(stat) == pid]
    return []


def running_of(pids: Sequence[int]) -> list[int]:
    """Those of `pids` that run, which need not be children of ours."""
    return [pid for pid in pids if _runs(pid)]


def wait_until_ended(pids: Sequence[int], within_s: float) -> None:
    """Return when none of `pids`, which need not be children of ours, runs any more, or after `within_s`."""
    give_up_s = time.monotonic() + within_s
    while running_of(pids) and time.monotonic() < give_up_s:
        time.sleep(0.001)


def rss_mb_max(pid: int) -> float | None:
    """The most memory the process ever had, in megabytes, None where that cannot be known."""
    with contextlib.suppress(OSError):
        match = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text("ascii"), re.MULTILINE)
        return int(match[1]) * 1024 / 1e6 if match else None
    return None


def busy_s() -> float:
    """CPU seconds that all processors together have been busy since the machine started."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    idle, waiting = fields[3], fields[4]
    return (sum(fields) - idle - waiting) / TICKS_PER_S


def _end_of(file: Path, most: int) -> str:
    with file.open("rb") as stream:
        stream.seek(max(0, stream.seek(0, os.SEEK_END) - most))
        return stream.read().decode(errors="replace")


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


def _runs(pid: int) -> bool:
    """Whether `pid` is there and has not ended (a zombie has)."""
    with contextlib.suppress(OSError):
        return _after_name(Path(f"/proc/{pid}/stat").read_text(errors="replace"))[0] not in {"Z", "X"}
    return False


def _times(stat: str) -> float:
    fields = _after_name(stat)
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S
