"""Something that is one process at a time, and is started again in the same place."""

from __future__ import annotations

import signal
from pathlib import Path

from ticketrush import processes
from ticketrush.cluster.errors import ClusterError


class OneProcess:
    """What a program and a server of our own have in common; it is not there before it is started."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self._child: processes.Child | None = None

    @property
    def child(self) -> processes.Child:
        """Its process, the last one that was started."""
        if self._child is None:
            raise ClusterError(f"{self.name} was not started yet")
        return self._child

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def is_running(self) -> bool:
        return self._child is not None and not self._child.ended

    def pause(self) -> None:
        """SIGSTOP: it is there and does not answer."""
        self.child.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.child.signal(signal.SIGCONT)
