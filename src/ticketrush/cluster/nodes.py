"""Nodes of ours: processes of ``ticketrush serve`` that sell from one ledger."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from ticketrush import processes
from ticketrush.cluster.errors import ClusterError
from ticketrush.cluster.ports import LOCALHOST

COMMAND: Final = (sys.executable, "-m", "ticketrush", "serve")
START_S: Final = 45.0
"""How long a node may take until it serves; many start at once, and share the processors."""

STOP_S: Final = 20.0
"""How long it may take to answer what it has accepted, and end; longer than graceful_timeout_s."""


class _Serving(msgspec.Struct):
    url: str
    pid: int


class Node:
    """A process that sells; its output and its log are in `folder`, under its name.

    `launch` does not wait, so that several may start side by side; `wait_until_ready` follows.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        flags: Sequence[str],
        env: Mapping[str, str],
        *,
        port: int = 0,
        weight: int = 1,
        command: Sequence[str] = COMMAND,
    ) -> None:
        """`flags` are those of ``serve``; port 0 takes a free one, and keeps it for a restart."""
        self.name, self.folder, self.weight = name, folder, weight
        self.url = ""
        self.killed = False
        """Whether `kill` has ended it; what else ends it is a failure."""
        self._command, self._flags, self._env, self._port = tuple(command), tuple(flags), dict(env), port
        self._child: processes.Child | None = None

    @property
    def child(self) -> processes.Child:
        """Its process, the last one that was launched."""
        if self._child is None:
            raise ClusterError(f"{self.name} was not launched yet")
        return self._child

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def log(self) -> Path:
        """Where it writes its log."""
        return self.folder / f"{self.name}.err"

    @property
    def is_running(self) -> bool:
        return self._child is not None and not self._child.ended

    def launch(self) -> None:
        """Start the process, for the first time or again at the same address."""
        command = [*self._command, "--json", "--host", LOCALHOST, "--port", str(self._port), *self._flags]
        self._child = processes.start(self.name, command, self.folder, self._env)
        self.killed = False

    def wait_until_ready(self) -> None:
        """Wait until it accepts connections.

        Raises:
            ClusterError: it ended, or did not say so in time; has the end of its log.
        """
        line = self.child.first_line(START_S)
        try:
            serving = msgspec.json.decode(line or b"", type=_Serving)
        except msgspec.MsgspecError:
            self.child.kill()
            raise ClusterError(f"{self.name} did not start:\n{self.child.words()}") from None
        self.url = serving.url
        self._port = int(serving.url.rpartition(":")[2])

    def restart(self) -> None:
        """Stop it gracefully if it runs, start it at the same address, wait until it serves."""
        self.stop()
        self.launch()
        self.wait_until_ready()

    def ask_to_stop(self) -> None:
        """SIGTERM, without waiting; one that was paused is woken for it."""
        if self.is_running:
            self.child.signal(signal.SIGTERM)
            self.child.signal(signal.SIGCONT)

    def stop(self) -> int | None:
        """Let it answer what it has accepted, and end; its exit code, None if it was never launched."""
        if self._child is None:
            return None
        self.ask_to_stop()
        return self._child.stop(STOP_S)

    def kill(self) -> None:
        """SIGKILL, as a power cut would end it."""
        self.killed = True
        self.child.kill()

    def pause(self) -> None:
        """SIGSTOP: it is there and does not answer."""
        self.child.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.child.signal(signal.SIGCONT)

    def how_it_ended(self) -> str:
        """Exit code or signal, in words."""
        code = self.child.exit_code
        return "is running" if code is None else ended(code)


def ended(code: int) -> str:
    """An exit code in words."""
    return f"ended with exit code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"


def rolling_restart(nodes: Sequence[Node]) -> None:
    """Restart one after the other, so that all but one serve at any moment."""
    for node in nodes:
        node.restart()
