"""A program that holds a lab until it is told to end: `holder.py FOLDER` prints its tag once it is there."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from ticketrush import stop
from ticketrush.lab.netns import network


def hold(folder: Path) -> None:
    with network(folder) as net:
        lan = net.lan("lan", "10.77.0.0/24")
        for number in (1, 2):
            host = net.host(f"host-{number}")
            host.join(lan, f"10.77.0.{number}")
            # One that nobody ends: it has left our group, and does not hear of our end.
            host.start("stray", ["setsid", "--fork", "sleep", "1000"]).process.wait()
        net.hosts["host-1"].start("sleep", ["sleep", "1000"])
        while len(net.hosts["host-1"].pids()) + len(net.hosts["host-2"].pids()) < 3:
            time.sleep(0.01)
        print(net.tag, flush=True)
        time.sleep(60)


if __name__ == "__main__":
    try:
        with stop.by_signals():
            hold(Path(sys.argv[1]))
    except stop.Stop as stopped:
        sys.exit(128 + stopped.signal)
