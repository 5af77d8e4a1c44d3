"""The programs of the front door, wherever a system keeps them."""

from __future__ import annotations

import os
import shutil
from typing import Final

PLACES: Final = "/usr/sbin:/sbin:/usr/local/sbin:/usr/lib/frr"
"""Where systems keep what a user does not start."""


def look_for(program: str, path: str | None = None) -> str | None:
    """Where `program` is, None if it is nowhere. `path` is where to look, as in PATH; None is PATH, and PLACES."""
    where = f"{os.environ.get('PATH', os.defpath)}:{PLACES}" if path is None else path
    return shutil.which(program, path=where)
