"""A server program of our own on 127.0.0.1: started, killed, paused, started again in the same place."""

from __future__ import annotations

import abc
import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Final, Self, TypeVar

from ticketrush import processes
from ticketrush.cluster.errors import ClusterError
from ticketrush.cluster.one_process import OneProcess
from ticketrush.cluster.ports import free_port

MAKE_S: Final = 60.0
_TRIES: Final = 3
_LOOK_S: Final = 0.01


class LocalServer(OneProcess, abc.ABC):
    """A server with its data and its log in `folder`. The port stays the same for ever.

    It is not there before `start`; `stop` or `kill` must follow. What a subclass says: how it is started,
    how one sees that it answers, and its times.
    """

    start_s: ClassVar[float]
    """Seconds that it may take until it answers."""
    stop_s: ClassVar[float]
    """Seconds that it may take to write what it has and end; it is killed then."""
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    """What makes it end by itself, also when we are killed."""
    port_is_taken: ClassVar[str] = "in use"
    """Words in its log when somebody else listens at its port."""

    def __init__(self, folder: Path, *, name: str, port: int = 0) -> None:
        """`port` 0 takes a free one."""
        super().__init__(name, folder)
        self._chosen = port == 0
        self.port = port or free_port()

    @abc.abstractmethod
    def command_line(self) -> list[str]:
        """How the server is started."""

    @abc.abstractmethod
    def answers(self) -> bool:
        """Whether our process, and no other at this port, takes requests now."""

    @property
    def log(self) -> Path:
        """Where it writes what it does and what it complains of."""
        return self.folder / f"{self.name}.out"

    def start(self) -> Self:
        """Start it, for the first time or again, and wait until it answers.

        Raises:
            ClusterError: it does not start, or does not answer; has the end of its log.
        """
        for tries_left in range(_TRIES if self._chosen else 1, 0, -1):
            self.prepare()
            self._child = self._launch()
            try:
                self._wait_until_it_answers()
                self._chosen = False
                return self
            except ClusterError as error:
                self.kill()
                if tries_left == 1 or self.port_is_taken not in str(error):
                    raise
                self.port = free_port()  # somebody was quicker
        raise AssertionError

    def prepare(self) -> None:
        """Make what must be in the folder before it starts; called before each start."""

    def make(self, command: list[str], text: str = "") -> str:
        """Run a program that makes files of the server, with `text` as its input; what it complained of.

        Raises:
            ClusterError: it failed, or took too long; has what it said.
        """
        try:
            done = processes.run(command, self.folder, self.environment(), text=text, within_s=MAKE_S)
        except subprocess.TimeoutExpired as error:
            raise ClusterError(f"cannot make the files of {self.name}: it took more than {MAKE_S:g} s") from error
        if done.returncode:
            said = done.stderr.strip() or done.stdout.strip()
            raise ClusterError(f"cannot make the files of {self.name} in {self.folder}: {said}")
        return done.stderr

    def environment(self) -> Mapping[str, str]:
        """The variables that it sees."""
        return processes.plain_environment()

    def _launch(self) -> processes.Child:
        return processes.start(
            self.name, self.command_line(), self.folder, self.environment(), at_our_end=self.stop_signal
        )

    def _wait_until_it_answers(self) -> None:
        give_up_s = time.monotonic() + self.start_s
        while time.monotonic() < give_up_s and not self.child.ended:
            if self.answers():
                return
            time.sleep(_LOOK_S)
        raise ClusterError(f"{self.name} does not start at port {self.port}: {self.child.words()}")

    def stop(self) -> None:
        """It writes what it has and ends; killed if it does not. Nothing happens if it does not run."""
        if self._child is None:
            return
        self._child.ask_to_stop(self.stop_signal)
        if self.is_running:
            self.resume()
        self._child.stop(self.stop_s)

    def kill(self) -> None:
        """SIGKILL, as a power cut would end it; nothing of it is left when this returns."""
        self.child.kill()

    def restart(self) -> None:
        """Kill it, and start it at the same port in the same folder."""
        self.kill()
        self.start()


AServer = TypeVar("AServer", bound=LocalServer)


@contextlib.contextmanager
def running(server: AServer) -> Iterator[AServer]:
    """`server`, started, for as long as the block lasts."""
    try:
        yield server.start()
    finally:
        server.stop()
