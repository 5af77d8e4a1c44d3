"""Certificates that a configuration of Nginx names, and one to stand in for those that are elsewhere."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ticketrush import processes
from ticketrush.edge.errors import EdgeError

MAKE_S: Final = 20.0

_NAMED: Final = re.compile(r"^\s*ssl_certificate (\S+);\s*ssl_certificate_key (\S+);", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path

    @property
    def unreadable(self) -> list[Path]:
        """Those of the two that are not there, or not for us to read."""
        return [file for file in (self.certificate, self.key) if not os.access(file, os.R_OK)]

    @property
    def readable(self) -> bool:
        """Whether both can be read."""
        return not self.unreadable


def named_in(text: str) -> list[Pair]:
    """The pairs that nginx.conf names."""
    return [Pair(Path(certificate), Path(key)) for certificate, key in _NAMED.findall(text)]


def make(folder: Path, openssl: str) -> Pair:
    """A certificate that nobody has reason to trust, made in `folder` by the program `openssl`.

    Raises:
        EdgeError: it fails; has what it said.
    """
    pair = Pair(folder / "stand-in.crt", folder / "stand-in.key")
    kind = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "1",
        "-subj",
        "/CN=stand-in",
    ]
    command = [openssl, "req", "-x509", *kind, "-keyout", str(pair.key), "-out", str(pair.certificate)]
    done = processes.run(command, folder, within_s=MAKE_S)
    if done.returncode:
        raise EdgeError(f"openssl makes no certificate: {done.stderr.strip()}")
    return pair
