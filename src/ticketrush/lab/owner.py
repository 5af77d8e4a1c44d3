"""Whose a namespace or a folder is, by its name alone, so that what a killed lab has left can be found."""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from typing import Final

PREFIX: Final = "ticketrush"

_NAME: Final = re.compile(rf"^{PREFIX}-(\d+)-(\d+)-\d+(?:-|$)")
_numbers: Final = itertools.count(1)


def new_tag() -> str:
    """The beginning of the names of all that one lab makes: this process, and which lab of it."""
    pid = os.getpid()
    return f"{PREFIX}-{pid}-{_started(pid)}-{next(_numbers)}"


def is_left_behind(name: str) -> bool:
    """Whether `name` begins with the tag of a process that is gone; False for names that have no tag."""
    found = _NAME.match(name)
    return found is not None and _started(int(found[1])) != int(found[2])


def can_have_started(name: str, pid: int) -> bool:
    """Whether the process that `name` is of can have started `pid`: not if that is itself, or older than it."""
    found = _NAME.match(name)
    at = _started(pid)
    return found is not None and at is not None and pid != int(found[1]) and at >= int(found[2])


def _started(pid: int) -> int | None:
    """When the process started, in ticks since boot; None if it is gone. It tells apart those that had one number."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in {"Z", "X"} else int(fields[19])
