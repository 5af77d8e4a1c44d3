"""Sends the crowd: its own process, so that it and the server each have a processor."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Final

import msgspec

import ticketrush
from ticketrush import stop
from ticketrush.crowd.errors import CrowdError, NoAnswer
from ticketrush.crowd.history import Failure, Frame, History, Plan, Progress, read_frame

SILENCE_S: Final = 60.0
"""How long the crowd's process may say nothing; it reports four times a second."""

PATIENCE_S: Final = 10.0

_Frames = queue.Queue[Frame | None]


def send(plan: Plan, on_progress: Callable[[Progress], None]) -> History:
    """Send the crowd of `plan` and return what it saw; `on_progress` hears of it four times a second.

    Raises:
        CrowdError: the crowd could not do its work.
    """
    home = str(Path(ticketrush.__path__[0]).parent)
    paths = [home, *filter(None, [os.environ.get("PYTHONPATH")])]
    with contextlib.ExitStack() as stack:
        with stop.postponed():
            process = subprocess.Popen(
                [sys.executable, "-m", "ticketrush.crowd"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
                preexec_fn=stop.with_parent(signal.SIGKILL),  # noqa: PLW1509 - no thread of ours holds a lock here
            )
            assert process.stdin is not None
            assert process.stdout is not None
            frames: _Frames = queue.Queue()
            reader = threading.Thread(target=_read, args=(process.stdout, frames), daemon=True)
            stack.callback(_end, process, reader)
            reader.start()
        with contextlib.suppress(OSError):  # it has ended; the frames say so
            process.stdin.write(msgspec.msgpack.encode(plan))
            process.stdin.close()
        return _listen(process, frames, on_progress)


def _read(stream: IO[bytes], frames: _Frames) -> None:
    frame: Frame | None
    while (frame := read_frame(stream)) is not None:
        frames.put(frame)
    frames.put(None)


def _end(process: subprocess.Popen[bytes], reader: threading.Thread) -> None:
    """End the process, then the thread that reads from it, and only then close what it reads from."""
    with stop.postponed():
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _listen(process: subprocess.Popen[bytes], frames: _Frames, on_progress: Callable[[Progress], None]) -> History:
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
            case Failure(text, no_answer):
                raise NoAnswer(text) if no_answer else CrowdError(text)
            case None:
                raise CrowdError(f"the crowd's process ended too early, with exit code {process.wait(PATIENCE_S)}")
