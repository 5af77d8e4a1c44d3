"""Keeps a program of ours running beside us: one that ends by itself is started again, and its log is part of ours."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from types import TracebackType
from typing import Final, Self

from ticketrush import logs
from ticketrush.cluster.errors import ClusterError
from ticketrush.cluster.program import Program

LOOK_S: Final = 0.5
AGAIN_S_MAX: Final = 30.0
"""How long to wait before a program that ends again and again is started once more: doubled each time, up to this.
One that has run for so long is well again."""

log = logs.get("ticketrush.cluster")


class Keeper:
    """For as long as the block lasts, `program` runs; it is launched without waiting until it is ready.

    What it writes to its log comes out at our standard error.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"keeper-{program.name}", daemon=True)
        self._told = 0
        self.restarts = 0

    def __enter__(self) -> Self:
        self._program.launch()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ending.set()
        self._thread.join()
        self._program.stop()
        self._pass_on()

    def _keep(self) -> None:
        again_s, launched_s = LOOK_S, time.monotonic()
        while not self._ending.wait(LOOK_S):
            self._pass_on()
            if self._program.is_running:
                if time.monotonic() - launched_s > AGAIN_S_MAX:
                    again_s = LOOK_S
                continue
            log.error("program_ended", program=self._program.name, how=self._program.how_it_ended())
            if self._ending.wait(again_s - LOOK_S):
                return
            again_s = min(2 * again_s, AGAIN_S_MAX)
            self.restarts += 1
            launched_s = time.monotonic()
            try:
                self._program.launch()
            except (ClusterError, OSError) as failure:
                log.warning("program_not_started", program=self._program.name, error=str(failure))
            else:
                log.info("program_started_again", program=self._program.name, pid=self._program.pid)

    def _pass_on(self) -> None:
        """What it has written to its log since the last time, to our standard error."""
        with contextlib.suppress(OSError, ValueError):  # of ours that is gone, nothing can be told
            with self._program.log.open("rb") as file:
                file.seek(self._told)
                words = file.read()
            self._told += len(words)
            sys.stderr.write(words.decode(errors="replace"))
            sys.stderr.flush()
