"""The rush's own server: a process of ``ticketrush serve`` with a fresh journal, and its costs."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from ticketrush.crowd import stop
from ticketrush.crowd.errors import CrowdError

COMMAND: Final = (sys.executable, "-m", "ticketrush", "serve")
START_S: Final = 30.0
STOP_S: Final = 20.0


class _Serving(msgspec.Struct):
    url: str
    pid: int


class OwnServer:
    """A running server of ours; `folder` has its journal and its log."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, pid: int, secret: bytes, folder: Path) -> None:
        self._process = process
        self.url = url
        self.pid = pid
        self.secret = secret
        self.folder = folder
        self.keep = False

    def died(self) -> str:
        """How it ended by itself and the end of its log, "" while it runs."""
        code = self._process.poll()
        return "" if code is None else f"the rush's own server ended with exit code {code}:\n{_log_of(self.folder)}"

    def cpu_s(self) -> float | None:
        """CPU seconds of the process so far, None where there is no /proc."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        return None

    def rss_mb(self) -> float | None:
        """The most memory the process ever had, in megabytes, None where there is no /proc."""
        with contextlib.suppress(OSError):
            match = re.search(r"^VmHWM:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text("ascii"), re.MULTILINE)
            return int(match[1]) * 1024 / 1e6 if match else None
        return None


@contextlib.contextmanager
def own_server(command: Sequence[str] = COMMAND) -> Iterator[OwnServer]:
    """Start a server on a free port; stop it gracefully and remove its folder at the end, unless `keep` is set.

    Raises:
        CrowdError: it does not start, or does not stop by itself.
    """
    secret = secrets.token_urlsafe(48)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TICKETRUSH_")}
    environment["TICKETRUSH_TOKEN_SECRETS"] = secret
    with contextlib.ExitStack() as stack:
        with stop.postponed():
            folder = Path(tempfile.mkdtemp(prefix="ticketrush-rush-"))
            unwanted = stack.enter_context(contextlib.ExitStack())
            unwanted.callback(shutil.rmtree, folder, ignore_errors=True)
            process = _start([*command, "--json", "--host", "127.0.0.1", "--port", "0"], environment, folder)
            stack.callback(_stop, process)
        serving = _first_line(process, folder)
        server = OwnServer(process, serving.url, serving.pid, secret.encode(), folder)
        try:
            yield server
        finally:
            if server.keep:
                unwanted.pop_all()


def _start(command: Sequence[str], environment: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "server.log").open("wb") as log:
        return subprocess.Popen(
            [*command, "--ledger", f"sqlite:///{folder / 'rush.db'}"],
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            cwd=folder,
            preexec_fn=stop.with_parent(signal.SIGTERM),  # noqa: PLW1509 - no thread of ours holds a lock here
        )


def _first_line(process: subprocess.Popen[bytes], folder: Path) -> _Serving:
    lines: queue.Queue[bytes] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        lines.put(process.stdout.readline())

    threading.Thread(target=read, daemon=True).start()
    try:
        return msgspec.json.decode(lines.get(timeout=START_S), type=_Serving)
    except (queue.Empty, msgspec.DecodeError):
        process.kill()
        process.wait()
        raise CrowdError(f"the rush's own server did not start:\n{_log_of(folder)}") from None


def _log_of(folder: Path) -> str:
    text = (folder / "server.log").read_text(encoding="utf-8", errors="replace")[-2_000:].strip()
    return text or "(it said nothing)"


def _stop(process: subprocess.Popen[bytes]) -> None:
    with stop.postponed():
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process.stdout is not None:
            process.stdout.close()
