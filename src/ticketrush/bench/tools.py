"""The programs the bench needs from the system: wrk (the load) and nginx (the limit)."""

from __future__ import annotations

import dataclasses
import subprocess

from ticketrush.bench.errors import BenchError
from ticketrush.edge.programs import look_for


@dataclasses.dataclass(frozen=True, slots=True)
class Tools:
    """Paths of the programs."""

    wrk: str
    nginx: str


def find() -> Tools:
    """The programs, or an error that names the packages that are missing.

    Raises:
        BenchError: wrk or nginx is not installed.
    """
    found = {name: look_for(name) for name in ("wrk", "nginx")}
    missing = " ".join(name for name, path in found.items() if path is None)
    if missing:
        raise BenchError(
            f"the bench needs {missing.replace(' ', ' and ')}, not found in PATH; "
            f"on Debian or Ubuntu: apt-get install {missing} (`make bench` does it)"
        )
    return Tools(wrk=found["wrk"] or "", nginx=found["nginx"] or "")


def version(program: str) -> str:
    """What ``program -v`` calls itself: its first line, without copyright."""
    done = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=10, check=False)
    first = (done.stderr or done.stdout).strip().split("\n", 1)[0]
    return first.split(" Copyright", 1)[0].removeprefix("nginx version: ").removesuffix(" [epoll]")
