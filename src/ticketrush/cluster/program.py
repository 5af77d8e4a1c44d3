"""A program of ours as a process: it says on its first line of output, in JSON, that it is ready."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from ticketrush import processes
from ticketrush.cluster.errors import ClusterError
from ticketrush.cluster.one_process import OneProcess

START_S: Final = 45.0
"""How long a program may take until it is ready; many start at once, and share the processors."""

STOP_S: Final = 20.0
"""How long it may take to finish what it has accepted, and end; longer than graceful_timeout_s."""


class Program(OneProcess):
    """A process that works until it is stopped; its output and its log are in `folder`, under its name.

    `launch` does not wait, so that several may start side by side; `wait_until_ready` follows.
    """

    def __init__(self, name: str, folder: Path, command: Sequence[str], env: Mapping[str, str]) -> None:
        super().__init__(name, folder)
        self.killed = False
        """Whether `kill` has ended it; what else ends it is a failure."""
        self._command, self._env = tuple(command), dict(env)

    @property
    def log(self) -> Path:
        """Where it writes its log."""
        return self.folder / f"{self.name}.err"

    def command_line(self) -> list[str]:
        """How it is started."""
        return list(self._command)

    def launch(self) -> None:
        """Start the process, for the first time or again."""
        self._child = processes.start(self.name, self.command_line(), self.folder, self._env)
        self.killed = False

    def wait_until_ready(self) -> dict[str, Any]:
        """Wait until it says that it is ready; what it said.

        Raises:
            ClusterError: it ended, or did not say so in time; has the end of its log.
        """
        line = self.child.first_line(START_S)
        try:
            said: dict[str, Any] = msgspec.json.decode(line or b"", type=dict[str, Any])
        except msgspec.MsgspecError:
            self.child.kill()
            raise ClusterError(f"{self.name} did not start:\n{self.child.words()}") from None
        return said

    def restart(self) -> None:
        """Stop it gracefully if it runs, start it again, wait until it is ready."""
        self.stop()
        self.launch()
        self.wait_until_ready()

    def ask_to_stop(self) -> None:
        """SIGTERM, without waiting."""
        if self._child is not None:
            self._child.ask_to_stop()

    def stop(self) -> int | None:
        """Let it finish what it has accepted, and end; its exit code, None if it was never launched."""
        if self._child is None:
            return None
        return self._child.stop(STOP_S)

    def kill(self) -> None:
        """SIGKILL, as a power cut would end it."""
        self.killed = True
        self.child.kill()

    def how_it_ended(self) -> str:
        """Exit code or signal, in words."""
        code = self.child.exit_code
        return "is running" if code is None else ended(code)


def ended(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {next((each.name for each in signal.Signals if each == -code), f'signal {-code}')}"
