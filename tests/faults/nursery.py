"""Servers born in a moment: ``ticketrush serve`` forked from a process that has imported everything.

Each is a process of its own with its own sockets, threads and lock, and is ended by its process id;
only the second that Python takes to import is saved, so that a hundred crashes take no hour.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from ticketrush.cli import app

START_S: Final = 20.0
STOP_S: Final = 15.0
_DIE_WITH_PARENT: Final = 1

CONTEXT: Final = multiprocessing.get_context("forkserver")
"""Makes processes by forking one that has imported everything and has no threads."""
CONTEXT.set_forkserver_preload(["pytest", "tests.faults.nursery", "tests.faults.planted"])

Patch = Callable[[], None]


def serve(folder: str, arguments: list[str], patches: tuple[Patch, ...], variables: dict[str, str]) -> None:
    """The whole life of a server process. `patches` plant a bug in it, or make a rare thing frequent."""
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(folder)
    for number, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        output = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if number == 1 else 0))
        os.dup2(output, number)
        os.close(output)
    for name in [name for name in os.environ if name.startswith("TICKETRUSH_")]:
        del os.environ[name]
    os.environ.update(variables)
    for patch in patches:
        patch()
    app(arguments)


class Child:
    """An open server: ``X-Buyer`` names the buyer. Its output is in `folder`, its journal too.

    With `ledger` its journal is that file, or its ledger is at that URL.
    """

    def __init__(
        self,
        folder: Path,
        *flags: str,
        ledger: Path | str | None = None,
        patches: tuple[Patch, ...] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Start it; `serving` waits until it serves."""
        self.folder = folder
        self.ledger = ledger if isinstance(ledger, Path) else folder / "tickets.db"
        url = ledger if isinstance(ledger, str) else f"sqlite:///{self.ledger}"
        self.port = 0
        (folder / "stdout.txt").write_text("")
        arguments = ["serve", "--open", "--json", "--port", "0", "--ledger", url, *flags]
        self.process = CONTEXT.Process(target=serve, args=(str(folder), arguments, patches, dict(variables or {})))
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    async def serving(self) -> None:
        """Wait until it accepts connections. Raises AssertionError with its output if it ends instead."""
        until_s = time.monotonic() + START_S
        while time.monotonic() < until_s and self.process.exitcode is None:
            line = (self.folder / "stdout.txt").read_text()
            if line.endswith("\n"):
                self.port = int(json.loads(line)["url"].rpartition(":")[2])
                return
            await asyncio.sleep(0.004)
        self.kill()
        raise AssertionError(f"the server did not start: {self.errors()}")

    def errors(self) -> str:
        """The end of what it wrote to standard error."""
        return (self.folder / "stderr.txt").read_text(errors="replace")[-3_000:]

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        if self.process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> int:
        """``kill -9``, and its exit code: -9, or what it had ended with before."""
        self.send(signal.SIGKILL)
        return self.wait()

    def stop(self) -> int:
        """Ask it to stop; its exit code. It is killed if it does not."""
        self.send(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Its exit code once it has ended; killed after a bounded wait."""
        self.process.join(STOP_S)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join(STOP_S)
        assert self.process.exitcode is not None
        return self.process.exitcode
