"""`ticketrush rush` as a person runs it: a process of its own, with files to write and an exit code."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

PATIENCE_S: Final = 100.0
"""How long a small rush may take on a busy machine."""


@dataclass(frozen=True)
class Rush:
    """A rush that is over: how it ended, what it printed, and where it wrote."""

    code: int
    output: str
    errors: str
    json: Path
    page: Path

    def report(self) -> dict[str, Any]:
        """What it wrote to the file of ``--json``."""
        report: dict[str, Any] = json.loads(self.json.read_bytes())
        return report


class RunningRush:
    """A rush under way in `folder`, which has its files and its temporary ones."""

    def __init__(self, folder: Path, *flags: str, env: Mapping[str, str] | None = None) -> None:
        self.json, self.page = folder / "rush.json", folder / "rush.html"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        own = {name: value for name, value in os.environ.items() if not name.startswith("TICKETRUSH_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ticketrush", "rush", "--json", str(self.json), "--report", str(self.page), *flags],
            cwd=folder,
            env=own | {"TMPDIR": str(self.temporary)} | dict(env or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self) -> Rush:
        """Wait until it is over."""
        try:
            output, errors = self.process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            output, errors = self.process.communicate()
            raise AssertionError(f"the rush did not end within {PATIENCE_S:g} s: {output}{errors}") from None
        return Rush(self.process.returncode, output, errors, self.json, self.page)

    def child(self, command: str) -> int | None:
        """The process id of its child with `command` in its command line."""
        listed = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for pid in listed.split():
            if command in Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " "):
                return int(pid)
        return None

    def kill(self) -> None:
        """End it and its children, if they have not ended yet."""
        if self.process.poll() is None:
            for command in ("ticketrush.crowd", "ticketrush serve"):
                pid = self.child(command)
                if pid is not None:
                    os.kill(pid, signal.SIGKILL)
            self.process.kill()
            self.process.communicate()


def rush(folder: Path, *flags: str, env: Mapping[str, str] | None = None) -> Rush:
    """A whole rush in `folder`. It must leave nothing behind but its two files."""
    running = RunningRush(folder, *flags, env=env)
    done = running.end()
    assert not list(running.temporary.iterdir()), "temporary files are left over"
    return done
