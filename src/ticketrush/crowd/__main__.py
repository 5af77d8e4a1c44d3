"""The crowd's own process: ``python -m ticketrush.crowd``, a plan on standard input, frames on standard output."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import time
from typing import IO, Final

import msgspec
import uvloop

from ticketrush import processes
from ticketrush.crowd.errors import CrowdError, NoAnswer
from ticketrush.crowd.history import Failure, History, Plan, write_frame
from ticketrush.crowd.load import Crowd

PROGRESS_S: Final = 0.25


async def send(plan: Plan, out: IO[bytes]) -> History:
    """Send the crowd; a Progress goes to `out` four times a second, and at every milestone."""
    crowd = Crowd(plan)
    cpu_s = time.process_time()
    loop = asyncio.get_running_loop()
    work = loop.create_task(crowd.run())
    milestone = loop.create_task(crowd.milestone.wait())
    counts: list[int] = []
    while True:
        await asyncio.wait((work, milestone), timeout=PROGRESS_S, return_when=asyncio.FIRST_COMPLETED)
        progress, counts = crowd.progress(counts)
        write_frame(out, progress)
        if milestone.done():
            crowd.milestone.clear()
            milestone = loop.create_task(crowd.milestone.wait())
        if work.done():
            milestone.cancel()
            return crowd.history(finished=work.result(), seconds=crowd.seconds, cpu_s=time.process_time() - cpu_s)


def main() -> int:
    """Read the plan, send the crowd, write the history. Exit code 1 if the crowd could not go on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that sent us; it ends this one
    plan = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Plan)
    processes.allow_connections()
    out = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    gc.freeze()
    gc.set_threshold(100_000, 50, 1_000)
    try:
        write_frame(out, uvloop.run(send(plan, out)))
    except BrokenPipeError:
        return 1
    except CrowdError as error:
        write_frame(out, Failure(str(error), isinstance(error, NoAnswer)))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
