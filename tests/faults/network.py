"""Cables between nodes and their server that can be pulled, and a line to it that can be made slow.

The server lives in a network namespace of its own; a virtual cable leads to it for each node. Slowness
is a small proxy, because `tc netem` is not in every kernel.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from redis import Redis
from redis.exceptions import RedisError

from ticketrush.cluster.server import running
from ticketrush.cluster.valkey import START_S, Valkey

CHUNK: Final = 65_536


class FarValkey(Valkey):
    """A server in a network namespace, reached over cables."""

    def __init__(self, folder: Path, place: str, addresses: list[str]) -> None:
        more = ("--bind", "0.0.0.0", "--protected-mode", "no", "--databases", "4")
        super().__init__(folder, more=more)
        self.place, self._addresses = place, addresses

    def command_line(self) -> list[str]:
        return ["ip", "netns", "exec", self.place, *super().command_line()]

    def url_over(self, cable: int) -> str:
        """Its URL as the node at that cable sees it."""
        return f"redis://{self._addresses[cable]}:{self.port}/0"

    def _wait_until_it_answers(self) -> None:
        until_s = time.monotonic() + START_S
        with Redis.from_url(self.url_over(0)) as client:
            while True:
                with contextlib.suppress(RedisError):
                    client.ping()
                    return
                assert time.monotonic() < until_s, self.child.words()
                assert not self.child.ended, self.child.words()
                time.sleep(0.02)

    def pull(self, cable: int) -> None:
        """Pull a cable at the server's end: what is sent gets lost, and nobody says so."""
        _ip("-n", self.place, "link", "set", f"far{cable}", "down")

    def plug(self, cable: int) -> None:
        """Put it back."""
        _ip("-n", self.place, "link", "set", f"far{cable}", "up")


@contextlib.contextmanager
def far_valkey(folder: Path, cables: int) -> Iterator[FarValkey]:
    """A server with so many cables to it; all is gone afterwards, whatever happens."""
    assert os.geteuid() == 0, "pulling a cable needs one of our own: run the fault tests as root, who may make one"
    place, block = f"ticketrush-{os.getpid()}", os.getpid() % 250
    with contextlib.ExitStack() as after:
        _ip("netns", "add", place)
        after.callback(_ip, "netns", "delete", place)
        addresses = [f"10.77.{block}.{4 * number + 2}" for number in range(cables)]
        for number, address in enumerate(addresses):
            near, far = f"tr{os.getpid()}c{number}", f"far{number}"
            _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", place)
            after.callback(_ip, "link", "delete", near)
            _ip("address", "add", f"10.77.{block}.{4 * number + 1}/30", "dev", near)
            _ip("-n", place, "address", "add", f"{address}/30", "dev", far)
            _ip("link", "set", near, "up")
            _ip("-n", place, "link", "set", far, "up")
        server = FarValkey(folder, place, addresses)
        after.enter_context(running(server))
        yield server


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


class SlowLine:
    """A port that leads to another one; every byte takes `delay_s` each way."""

    def __init__(self, to_port: int, delay_s: float) -> None:
        self._to_port, self.delay_s = to_port, delay_s
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def _begin(self) -> None:
        self._server = await asyncio.start_server(self._meet, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        for source, target in ((reader, far_writer), (far_reader, writer)):
            task = self._loop.create_task(self._carry(source, target))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        earliest_s = 0.0
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                earliest_s = max(earliest_s, self._loop.time() + self.delay_s)  # bytes do not overtake each other
                self._loop.call_at(earliest_s, _deliver, target, data)
        self._loop.call_at(max(earliest_s, self._loop.time()), target.close)

    async def _end(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in (tasks := list(self._tasks)):
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # what was aborted closes its socket now


def _deliver(target: asyncio.StreamWriter, data: bytes) -> None:
    if not target.is_closing():
        target.write(data)


@contextlib.contextmanager
def slow_line(to_port: int, delay_s: float) -> Iterator[SlowLine]:
    """Such a line, in a thread of its own; gone afterwards."""
    line = SlowLine(to_port, delay_s)
    thread = threading.Thread(target=line._loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(line._begin(), line._loop).result(5)
    try:
        yield line
    finally:
        asyncio.run_coroutine_threadsafe(line._end(), line._loop).result(5)
        line._loop.call_soon_threadsafe(line._loop.stop)
        thread.join(5)
        line._loop.close()
