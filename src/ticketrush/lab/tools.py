"""The programs that a lab runs, wherever a system keeps them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ticketrush.edge import programs
from ticketrush.lab.errors import NoLab

PACKAGES: Final = {
    "ip": "iproute2",
    "sysctl": "procps",
    "nft": "nftables",
    "nginx": "nginx",
    "curl": "curl",
    "zebra": "frr",
    "ospfd": "frr",
    "vtysh": "frr",
}
"""What the whole lab runs, and the Debian packages that bring it."""


def look_for(program: str) -> str | None:
    """The path of `program`, None if it is not there."""
    return programs.look_for(program)


def find(program: str) -> str:
    """The path of `program`, one of PACKAGES. Raises NoLab if it is not there."""
    found = look_for(program)
    if found is None:
        raise missing([program])
    return found


def missing(programs: Iterable[str]) -> NoLab:
    """The error that says what to install."""
    absent = list(programs)
    packages = sorted({PACKAGES[program] for program in absent})
    return NoLab(f"a lab needs {', '.join(absent)}, not found here; on Debian or Ubuntu: install {' '.join(packages)}")


def check_all() -> None:
    """Return if all are here. Raises NoLab that names those that are not."""
    absent = [program for program in PACKAGES if look_for(program) is None]
    if absent:
        raise missing(absent)
