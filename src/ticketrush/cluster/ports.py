"""TCP ports for servers that may be killed and started again at the same address."""

from __future__ import annotations

import contextlib
import random
import socket
from collections import deque
from pathlib import Path
from typing import Final

from ticketrush.cluster.errors import ClusterError

LOCALHOST: Final = "127.0.0.1"
_LOWEST: Final = 15_000
_HIGHEST: Final = 32_000
_TRIES: Final = 200
_given: Final[deque[int]] = deque(maxlen=_TRIES)
"""Ports that this process was given last, which servers that start may not listen on yet."""


def free_port() -> int:
    """A port that nobody listens on, that was not given just before, and that is for no outgoing connection.

    A port of the range for outgoing connections would not do: while its server is down, a client that
    keeps trying may be given that very port, get connected to itself, and keep the server out.
    """
    highest = min(_HIGHEST, _first_outgoing() - 1)
    for _ in range(_TRIES):
        port = random.SystemRandom().randint(_LOWEST, max(_LOWEST + 1_000, highest))
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((LOCALHOST, port))
            if port not in _given:
                _given.append(port)
                return port
    raise ClusterError(f"no free TCP port between {_LOWEST} and {highest} on {LOCALHOST}; stop something that listens")


def _first_outgoing() -> int:
    """The lowest port of outgoing connections (Linux)."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text("ascii").split()[0])
    return _HIGHEST + 1
