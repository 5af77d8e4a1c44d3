"""What tests of balancers share: hosts that answer with their name, and a client that asks over and over."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from ticketrush import processes
from ticketrush.lab.netns import Host

WEB: Final = str(Path(__file__).with_name("web.py"))

ASK: Final = """
import http.client, json, sys, time
address, port, count, until_s, pause_s, timeout_s = sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:])
asked, end = 0, time.monotonic() + until_s
while asked < count and time.monotonic() < end:
    began = time.monotonic()
    try:
        connection = http.client.HTTPConnection(address, port, timeout=timeout_s)
        connection.request("GET", "/")
        name = connection.getresponse().read().decode()
    except OSError as error:
        name = "!" + type(error).__name__
    finally:
        connection.close()
    print(json.dumps([began, name]), flush=True)
    asked += 1
    time.sleep(pause_s)
"""
"""Ask with a new connection each time; when each began (monotonic clock), and who answered, or after a ! why not."""


def eventually(is_so: Callable[[], bool], within_s: float = 10.0) -> float:
    """Wait until it is so; the seconds that took. Fails after `within_s`."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < within_s, f"not so within {within_s:g} s"
        time.sleep(0.01)
    return time.monotonic() - began


def hear_ctrl_c() -> None:
    """A `preexec_fn`: what is started hears SIGINT, even if we do not, as what a shell has started with & does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def serve(host: Host, name: str, *, address: str = "", port: int = 80) -> processes.Child:
    """A web server in `host` that answers with `name`."""
    child = host.start("web", [sys.executable, "-S", WEB, address, str(port), name, str(_unready(host))])
    assert child.first_line(20) == b"ready", child.words()
    return child


def be_ready(host: Host, *, ready: bool) -> None:
    """Whether the web servers in `host` say from now on that they are ready; they do at first."""
    if ready:
        _unready(host).unlink()
    else:
        _unready(host).touch()


def _unready(host: Host) -> Path:
    return host.folder / f"{host.name}.unready"


def _command(address: str, port: int, *numbers: float) -> list[str]:
    return [sys.executable, "-S", "-c", ASK, address, str(port), *map(str, numbers)]


def ask(host: Host, address: str, count: int, *, port: int = 80) -> Counter[str]:
    """Who answers `count` connections from `host`."""
    said = host.check(_command(address, port, count, 30, 0, 1.0), within_s=40)
    return Counter(name for _, name in _read(said))


def _read(said: str) -> list[tuple[float, str]]:
    """The lines that are whole."""
    whole, end, _ = said.rpartition("\n")
    return [(began, name) for began, name in map(json.loads, whole.splitlines())] if end else []


class Asking:
    """A client in `host` that asks until the end of the test, one connection after the other, every 20 ms or so."""

    def __init__(self, host: Host, address: str, *, port: int = 80, pause_s: float = 0.02) -> None:
        self._child = host.start("ask", _command(address, port, 1e9, 100, pause_s, 0.4))

    def was_answered_by(self, name: str) -> bool:
        """Whether `name` has answered by now."""
        return any(who == name for _, who in _read(self._child.stdout.read_text()))

    def answers(self) -> Sequence[tuple[float, str]]:
        """When each connection began, and who answered; it asks no more."""
        assert not self._child.ended, self._child.words()
        self._child.stop()
        return _read(self._child.stdout.read_text())

    def until_well(self, for_s: float = 1.0, within_s: float = 15.0) -> Sequence[tuple[float, str]]:
        """Its answers, once a connection was lost and then none for `for_s`. Fails if that takes `within_s`."""
        eventually(lambda: self._quiet_s() >= for_s, within_s)
        return self.answers()

    def _quiet_s(self) -> float:
        """How long it goes on without a loss since the last one; -1.0 if there was none."""
        answers = _read(self._child.stdout.read_text())
        lost = [began for began, name in answers if name.startswith("!")]
        return answers[-1][0] - lost[-1] if lost else -1.0
