"""Cluster files for tests of what is rendered, and the programs' verdict on it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from ticketrush.edge import check, render
from ticketrush.edge.check import Finding

NODE: Final = '[[nodes]]\nname = "node-1"\naddress = "10.0.3.11"\nport = 80\nweight = 3\n'
PROXIES: Final = "".join(
    f'[[proxies]]\nname = "{name}"\naddress = "10.0.1.{20 + weight}"\nweight = {weight}\n'
    for weight, name in ((10, "nginx-1"), (20, "2.nginx"), (30, "goto"))
)
BALANCERS: Final = "".join(
    f'[[balancers]]\nname = "lvs-{number}"\naddress = "10.0.1.{10 + number}"\ninterface = "ens{number}"\n'
    for number in (1, 2)
)
ROUTERS: Final = (
    '[[routers]]\nname = "router-1"\naddress = "10.0.1.1"\ninterface = "ens3"\nmore_interfaces = ["ens4", "br-lan.7"]\n'
)
NETWORKS: Final = '[ospf]\nnetworks = ["10.0.1.0/24", "10.0.2.0/24"]\n'
TLS: Final = 'tls = { certificate = "/etc/ticketrush/tls.crt", key = "/etc/ticketrush/tls.key" }\n'


def front(more: str = "") -> str:
    return f'[front]\nvirtual_address = "192.0.2.10"\n{more}'


def verdicts(folder: Path, files: dict[str, str]) -> list[Finding]:
    """What the programs say of `files`, which are written into `folder`."""
    render.write(folder, files)
    return check.judge(folder, files)


def not_well(folder: Path, files: dict[str, str]) -> list[Finding]:
    """Those that are not well; who is not root, and has no network of its own, lets some be unjudged."""
    accepted = {"well"} if os.geteuid() == 0 or os.environ.get("CI") == "true" else {"well", "not judged"}
    return [finding for finding in verdicts(folder, files) if finding.verdict not in accepted]
