"""Clients that are slow on purpose, as a program: ``python -m tests.faults.slow_clients PORT COUNT LAST_S KIND...``.

Kinds, of which there are equally many:

- headers: a byte of the headers a second, for ever;
- body: a byte of the body a second, for ever;
- stalled: half of a body, and no more;
- reads: asks for as much as the server takes, and never reads an answer; it counts from when it took no more;
- sips: the same, but reads a byte a second.

It says in JSON on its first line that all are connected, and on its last line for each kind how many seconds each
was slow until the server ended it; who is left after LAST_S is not there. None of the others ever reads.
"""

from __future__ import annotations

import contextlib
import json
import resource
import select
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Final

BYTE_S: Final = 1.0
APART_S: Final = 0.008
"""Who will not read comes so many seconds after the other: until a server has answered so much that it waits, these
are busy buyers like others, and this is no test of how many of them a machine can serve at once."""

TURNS: Final = 20
"""Everybody sends once in `BYTE_S`, in so many groups one after the other."""

RECEIVE_BUFFER: Final = 4_096
START: Final = b"POST /v1/sales/slow/reservations HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Buyer: snail\r\n"
ASKS: Final = (
    START + b'Content-Length: 17\r\n\r\n{"item":"second"}' + b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
)

FIRST: Final = {
    "headers": START + b"X-Slow: ",
    "body": START + b"Content-Length: 1000\r\n\r\n ",
    "stalled": START + b"Content-Length: 17\r\n\r\n" + b'{"item":',
    "reads": ASKS * 100,
    "sips": ASKS * 100,
}
THEN: Final = {"headers": b"x", "body": b" ", "stalled": b"", "reads": ASKS * 100, "sips": ASKS * 100}
MUCH: Final = ("reads", "sips")
"""Kinds that ask for much."""


@dataclass
class Slow:
    """One of them; times are those of the monotonic clock."""

    kind: str
    port: int
    began_s: float = field(default_factory=time.monotonic)
    ended_s: float = 0.0
    is_stuck: bool = False
    """Whether the server has once taken less than it was sent."""

    def __post_init__(self) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        self.socket.connect(("127.0.0.1", self.port))
        self.socket.setblocking(False)
        self.unsent = FIRST[self.kind]

    def send(self) -> None:
        """Send what the connection takes; whether it has ended, `poll` says."""
        self.unsent = self.unsent or THEN[self.kind]
        with contextlib.suppress(OSError):
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
        if self.unsent and not self.is_stuck:
            self.is_stuck, self.began_s = True, time.monotonic()
        if self.kind == "sips":
            with contextlib.suppress(OSError):
                self.socket.recv(1)

    def end(self) -> None:
        self.ended_s = time.monotonic()
        self.socket.close()


def live(slow: list[Slow], last_s: float) -> None:
    """Be slow until the server has ended all, or until `last_s` seconds from now."""
    poll = select.poll()
    by_fd = {each.socket.fileno(): each for each in slow}
    for fd in by_fd:
        poll.register(fd, select.POLLRDHUP)
    until_s, turn = time.monotonic() + last_s, 0
    while by_fd and time.monotonic() < until_s:
        for each in slow[turn % TURNS :: TURNS]:
            if not each.ended_s:
                each.send()
        turn += 1
        next_s = time.monotonic() + BYTE_S / TURNS
        while (left_s := next_s - time.monotonic()) > 0:
            for fd, _ in poll.poll(left_s * 1_000):
                poll.unregister(fd)
                by_fd.pop(fd).end()


def main(port: int, count: int, last_s: float, kinds: list[str]) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    slow = []
    for number in range(count):
        slow.append(Slow(kinds[number * len(kinds) // count], port))
        slow[-1].send()
        if slow[-1].kind in MUCH:
            time.sleep(APART_S)
    print(json.dumps({"connected": len(slow)}), flush=True)
    live(slow, last_s)
    lived = {kind: [round(s.ended_s - s.began_s, 2) for s in slow if s.kind == kind and s.ended_s] for kind in kinds}
    print(json.dumps(lived), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
