"""An Nginx of our own, without root: rendered from a cluster file, started, told of changes, ended by its id."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import time
from pathlib import Path
from typing import Final

from ticketrush import processes
from ticketrush.cluster.errors import ClusterError, NotInstalled
from ticketrush.cluster.ports import LOCALHOST
from ticketrush.cluster.server import LocalServer
from ticketrush.edge import nginx, programs, render
from ticketrush.edge.cluster_file import ClusterFile

ANSWER_S: Final = 2.0
RELOAD_S: Final = 10.0


def find_program() -> Path:
    """The program.

    Raises:
        NotInstalled: there is none; says what to install.
    """
    found = programs.look_for("nginx")
    if found is None:
        raise NotInstalled("the front door needs nginx, not found in PATH; on Debian or Ubuntu: apt-get install nginx")
    return Path(found)


def judge(folder: Path, name: str = nginx.NAME) -> str:
    """What `nginx -t` says of the file `name` in `folder`, which is its prefix too; "" if it has no complaint.

    Raises:
        NotInstalled: there is no nginx.
    """
    command = [str(find_program()), "-p", str(folder), "-c", name, "-e", "stderr", "-t"]
    done = processes.run(command, folder, within_s=RELOAD_S)
    lines = [line for line in done.stderr.splitlines() if not line.endswith(("syntax is ok", "test is successful"))]
    return "\n".join(lines) or ("" if done.returncode == 0 else f"exit code {done.returncode}")


class NginxServer(LocalServer):
    """Nginx on 127.0.0.1, with all its files in `folder`.

    It listens at a port of its own instead of `front.port`, and if there is TLS, at `front.tls.port`.
    """

    start_s = 15.0
    stop_s = 15.0
    stop_signal = signal.SIGQUIT  # it finishes what it has begun
    port_is_taken = "Address already in use"

    def __init__(
        self, folder: Path, cluster: ClusterFile, *, site: str = "", port: int = 0, name: str = "nginx"
    ) -> None:
        """`site` is whose proxy it is, the first one's if ""; `port` 0 takes a free one.

        Raises:
            NotInstalled: there is none; says what to install.
        """
        super().__init__(folder, name=name, port=port)
        self.cluster = cluster
        self._site = site or nginx.sites_of(cluster)[0]
        self._program = find_program()

    @property
    def url(self) -> str:
        """Its URL, without TLS."""
        return f"http://{LOCALHOST}:{self.port}"

    @property
    def access_log(self) -> Path:
        """A line of JSON for each request, up to a second late."""
        return self.folder / "access.log"

    @property
    def configuration(self) -> Path:
        """The rendered file that it runs by."""
        return self.folder / nginx.name_of(self.cluster, self._site)

    def prepare(self) -> None:
        """Render the file, for the port."""
        front = self.cluster.front.model_copy(update={"port": self.port})
        render.write(self.folder, nginx.files(self.cluster.model_copy(update={"front": front})))

    def command_line(self) -> list[str]:
        """How it is started."""
        # A master that is root would have workers of another user, who may not enter the folder.
        user = "user root; " if os.geteuid() == 0 else ""
        more = f"{user}daemon off;"
        return [str(self._program), "-p", f"{self.folder}/", "-c", self.configuration.name, "-e", "stderr", "-g", more]

    def answers(self) -> bool:
        """Whether our process, and no other at this port, answers."""
        try:
            mine = (self.folder / "nginx.pid").read_text("ascii").strip() == str(self.pid)
            return mine and _is_well(self.port)
        except (OSError, http.client.HTTPException):  # not yet
            return False

    def reload(self, cluster: ClusterFile) -> None:
        """Work by another cluster file from now on; requests under way are finished by the one before.

        Raises:
            ClusterError: it does not take the file, and goes on as before.
        """
        before = processes.children_of(self.pid)
        self.cluster = cluster
        self.prepare()
        complaint = judge(self.folder, self.configuration.name)
        if "[emerg]" in complaint:
            raise ClusterError(f"{self.name} does not take the new configuration: {complaint}")
        self.child.signal(signal.SIGHUP)
        give_up_s = time.monotonic() + RELOAD_S
        while any(map(_takes_requests, before)) or not self.answers():
            if time.monotonic() > give_up_s:
                raise ClusterError(f"{self.name} did not take the new configuration within {RELOAD_S:g} s")
            time.sleep(0.01)


def _takes_requests(worker: int) -> bool:
    """Whether a worker process is there and accepts connections; its title says when it does no more."""
    try:
        title = Path(f"/proc/{worker}/cmdline").read_bytes()
    except OSError:
        return False
    return title != b"" and b"shutting down" not in title


def _is_well(port: int) -> bool:
    with contextlib.closing(http.client.HTTPConnection(LOCALHOST, port, timeout=ANSWER_S)) as connection:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
