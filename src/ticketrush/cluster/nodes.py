"""Nodes of ours: processes of ``ticketrush serve`` that sell from one ledger."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ticketrush.cluster.ports import LOCALHOST
from ticketrush.cluster.program import Program, ended

__all__ = ["COMMAND", "Node", "ended", "rolling_restart"]

COMMAND: Final = (sys.executable, "-m", "ticketrush", "serve")


class Node(Program):
    """A process that sells. It keeps its port for a restart."""

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
        """`flags` are those of ``serve``; port 0 takes a free one."""
        super().__init__(name, folder, command, env)
        self.weight = weight
        self.url = ""
        self._flags, self._port = tuple(flags), port

    def command_line(self) -> list[str]:
        """How it is started, at the address that it had."""
        return [*super().command_line(), "--json", "--host", LOCALHOST, "--port", str(self._port), *self._flags]

    def wait_until_ready(self) -> dict[str, Any]:
        """Wait until it accepts connections; see `Program.wait_until_ready`."""
        said = super().wait_until_ready()
        self.url = str(said["url"])
        self._port = int(self.url.rpartition(":")[2])
        return said


def rolling_restart(nodes: Sequence[Node]) -> None:
    """Restart one after the other, so that all but one serve at any moment."""
    for node in nodes:
        node.restart()
