"""What runs on the hosts of the lab, started as an operator would from the rendered files."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ticketrush import processes
from ticketrush.cluster.nodes import COMMAND, Node
from ticketrush.lab.errors import LabError, NoLab
from ticketrush.lab.ledgers import until
from ticketrush.lab.netns import Host
from ticketrush.lab.plan import NODE_PORT
from ticketrush.lab.tools import find

START_S: Final = 20.0
VTYSH_S: Final = 30.0
_FRR: Final = "frr"
_DAEMONS: Final = ("zebra", "ospfd")


class HostNode(Node):
    """A node on a host, listening at its address."""

    def __init__(self, host: Host, flags: list[str], env: Mapping[str, str]) -> None:
        self.host = host
        more = [*flags, "--host", host.address, "--node", host.name]
        super().__init__(host.name, host.folder, more, env, port=NODE_PORT, command=host.command(COMMAND))


def own_folder(host: Host) -> Path:
    """The folder of what is rendered for a host, and of what its programs write."""
    folder = host.folder / host.name
    folder.mkdir(exist_ok=True)
    return folder


def start_router(host: Host) -> None:
    """FRR's zebra and ospfd with the rendered frr.conf, and the rendered settings of the kernel.

    Their sockets and files are in the host's own folder: nothing of the machine's own FRR is touched.
    """
    folder = own_folder(host)
    host.check([find("sysctl"), "--quiet", "--load", str(folder / "sysctl.conf")])
    try:
        shutil.chown(folder, _FRR, _FRR)
    except LookupError:
        raise NoLab(f"FRR's own user {_FRR} is missing here: install the package frr") from None
    nothing = folder / "empty.conf"
    nothing.touch()
    for name in _DAEMONS:
        own = ["--vty_socket", str(folder), "-i", str(folder / f"{name}.pid"), "-f", str(nothing)]
        shared = ["-z", str(folder / "zserv.api"), "-P", "0", "-u", _FRR, "-g", _FRR]
        host.start(name, [find(name), *own, *shared, "--log", f"file:{folder / name}.log"])
        until((folder / f"{name}.vty").exists, START_S, f"{name} on {host.name}")
    host.check([find("vtysh"), "--vty_socket", str(folder), "-f", str(folder / "frr.conf")], within_s=VTYSH_S)


def start_balancer(host: Host) -> None:
    """nftables in the place of LVS, what keeps it well, and what announces the virtual address while all is well."""
    folder = own_folder(host)
    host.check([find("nft"), "-f", str(folder / "nftables.conf")])
    for name in ("nftables-health", "health"):
        host.start(name, ["sh", str(folder / f"{name}.sh")])


def start_nginx(host: Host, configuration: Path) -> processes.Child:
    """Nginx with the rendered `configuration`; its log is in the host's folder."""
    folder = own_folder(host)
    (folder / "nginx.pid").unlink(missing_ok=True)
    more = ["-e", "stderr", "-g", "user root; daemon off;"]
    child = host.start("nginx", [find("nginx"), "-p", f"{folder}/", "-c", str(configuration), *more])
    until(lambda: child.ended or (folder / "nginx.pid").exists(), START_S, f"nginx on {host.name}")
    if child.ended:
        raise LabError(f"nginx does not start on {host.name}: {child.words()}")
    return child


def start_buyers(host: Host, plan: Path, seen: Path) -> processes.Child:
    """The buyers, as a process on the clients' host (`ticketrush.lab.buyers`)."""
    return host.start("buyers", [sys.executable, "-m", "ticketrush.lab.buyers", str(plan), str(seen)])
