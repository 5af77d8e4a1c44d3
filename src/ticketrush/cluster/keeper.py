"""Keeps a program of ours running beside us: one that ends by itself is started again."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Final, Self

from ticketrush import logs
from ticketrush.cluster.errors import ClusterError
from ticketrush.cluster.program import Program

LOOK_S: Final = 0.5
AGAIN_S_MAX: Final = 30.0
"""How long to wait before a program that ends again and again is started once more: doubled each time, up to this."""

log = logs.get("ticketrush.cluster")


class Keeper:
    """For as long as the block lasts, `program` runs; it is launched without waiting until it is ready."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"keeper-{program.name}", daemon=True)
        self.restarts = 0

    def __enter__(self) -> Self:
        self._program.launch()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ending.set()
        self._thread.join()
        self._program.stop()

    def _keep(self) -> None:
        wait_s = LOOK_S
        while not self._ending.wait(wait_s):
            if self._program.is_running:
                wait_s = LOOK_S
                continue
            self.restarts += 1
            log.error("program_ended", program=self._program.name, how=self._program.how_it_ended())
            log.info("program_said", program=self._program.name, words=self._program.child.words())
            try:
                self._program.launch()
            except (ClusterError, OSError) as failure:
                log.warning("program_not_started", program=self._program.name, error=str(failure))
            wait_s = min(2 * wait_s, AGAIN_S_MAX)
