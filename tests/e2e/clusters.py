"""`ticketrush up` as a person runs it: a process of its own, which says in one line what it has started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

START_S: Final = 60.0
STOP_S: Final = 60.0


class Up:
    """A running ``ticketrush up --json``; its temporary files are in `temporary`."""

    def __init__(self, folder: Path, *flags: str, env: Mapping[str, str] | None = None) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self._stdout, self._stderr = folder / "up.out", folder / "up.err"
        own = {name: value for name, value in os.environ.items() if not name.startswith("TICKETRUSH_")}
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ticketrush", "up", "--json", "--port", "0", *flags],
                cwd=folder,
                env=own | {"TMPDIR": str(self.temporary)} | dict(env or {}),
                stdout=out,
                stderr=err,
            )
        self.facts: dict[str, Any] = {}

    def wait_until_ready(self) -> None:
        """Wait for the line that says what there is."""
        until = time.monotonic() + START_S
        while not self._stdout.read_bytes().endswith(b"\n"):
            assert time.monotonic() < until, f"not ready within {START_S:g} s: {self.errors()}"
            assert self.process.poll() is None, self.errors()
            time.sleep(0.05)
        (line,) = self._stdout.read_text().splitlines()
        self.facts = json.loads(line)

    @property
    def urls(self) -> list[str]:
        return [node["url"] for node in self.facts["nodes"]]

    @property
    def pids(self) -> list[int]:
        """Of every process that it has started."""
        return [each["pid"] for each in (*self.facts["nodes"], *self.facts["valkey"])]

    def errors(self) -> str:
        return self._stderr.read_text()

    def wait_for_word(self, word: str, within_s: float = 20.0) -> None:
        """Wait until it says something on standard error."""
        until = time.monotonic() + within_s
        while word not in self.errors():
            assert time.monotonic() < until, f"{word!r} is not said within {within_s:g} s: {self.errors()}"
            time.sleep(0.05)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_S)

    def kill(self) -> None:
        """End it, if it has not ended yet; what it has started ends with it."""
        self.process.kill()
        self.process.wait()


def buy(url: str) -> int:
    """One demo ticket; the code of the answer: 1 is a ticket, -1 none is left."""
    with urllib.request.urlopen(f"{url}/buy/ticket", timeout=10) as answer:
        code: int = json.loads(answer.read())["code"]
        return code


def status_of(url: str) -> int:
    """The HTTP status of a GET."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            status: int = answer.status
            return status
    except urllib.error.HTTPError as error:
        return error.code
