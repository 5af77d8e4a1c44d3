"""Sends the crowd: its own process, so that it and the server each have a processor."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

import ticketrush
from ticketrush.crowd.errors import CrowdError
from ticketrush.crowd.history import Failure, Frame, History, Plan, Progress, read_frame

SILENCE_S: Final = 60.0
"""How long the crowd's process may say nothing; it reports four times a second."""

PATIENCE_S: Final = 10.0


def send(plan: Plan, on_progress: Callable[[Progress], None]) -> History:
    """Send the crowd of `plan` and return what it saw; `on_progress` hears of it four times a second.

    Raises:
        CrowdError: the crowd could not do its work.
    """
    home = str(Path(ticketrush.__path__[0]).parent)
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", "ticketrush.crowd"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    try:
        return _listen(process, plan, on_progress)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _listen(process: subprocess.Popen[bytes], plan: Plan, on_progress: Callable[[Progress], None]) -> History:
    assert process.stdin is not None
    assert process.stdout is not None
    stdout = process.stdout
    frames: queue.Queue[Frame | None] = queue.Queue()

    def read() -> None:
        frame: Frame | None
        while (frame := read_frame(stdout)) is not None:
            frames.put(frame)
        frames.put(None)

    with stdout, process.stdin as stdin:
        threading.Thread(target=read, daemon=True).start()
        stdin.write(msgspec.msgpack.encode(plan))
        stdin.close()
        while True:
            try:
                frame = frames.get(timeout=SILENCE_S)
            except queue.Empty:
                raise CrowdError(f"the crowd's process (pid {process.pid}) said nothing for {SILENCE_S:g} s") from None
            match frame:
                case Progress():
                    on_progress(frame)
                case History():
                    process.wait(PATIENCE_S)
                    return frame
                case Failure(text):
                    raise CrowdError(text)
                case None:
                    raise CrowdError(f"the crowd's process ended too early, with exit code {process.wait(PATIENCE_S)}")
