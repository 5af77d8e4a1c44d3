"""Templates become files. Jinja2 does it, with the names that a template misses being errors."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ticketrush.cluster.errors import NotInstalled
from ticketrush.edge.errors import NotWritten

if TYPE_CHECKING:
    from jinja2 import Environment

_MODES: Final = {".sh": 0o755, "frr.conf": 0o640}
"""The password of OSPF is nobody else's business."""

_MARK: Final = re.compile(r"`ticketrush edge (\w+)`")
_HEAD_LINES: Final = 2
"""A script has its mark in the second line."""


@functools.cache
def _environment() -> Environment:
    try:
        import jinja2  # noqa: PLC0415 - an extra, missed only by who renders
    except ImportError as error:
        raise NotInstalled("rendering needs Jinja2: run `pip install 'ticketrush[edge]'`") from error
    return jinja2.Environment(
        loader=jinja2.PackageLoader("ticketrush.edge"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - configuration files; every value was checked by the cluster file's patterns
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, **values: object) -> str:
    """The text of `template` (a file in ``templates/``) with `values` in it.

    Raises:
        NotInstalled: there is no Jinja2; says what to install.
    """
    return _environment().get_template(template).render(**values)


def write(folder: Path, files: dict[str, str]) -> list[Path]:
    """Write rendered `files` (names, with folders, and texts) into `folder`; their paths.

    A file whose name ends in .sh can be executed, one with a password is not for
    everybody. Each is put in its place whole.

    Raises:
        NotWritten: one cannot be written.
    """
    written = []
    for name, text in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            half = path.with_name(f"{path.name}.new")
            half.touch(mode=0o600)
            half.write_text(text)
            half.chmod(_MODES.get(path.suffix, _MODES.get(path.name, 0o644)))
            half.replace(path)
        except OSError as error:
            raise NotWritten(f"cannot write {path}: {error.strerror}; name another folder with --out") from error
        written.append(path)
    return written


def left_behind(folder: Path, files: Collection[str], layer: str, hosts: Collection[str]) -> list[Path]:
    """What an earlier rendering of `layer` has written into `folder`, and this one, of `files`, has not.

    A file that belongs to two layers is left behind when none of `hosts` has its folder.
    """
    found = []
    for path in sorted(itertools.chain(folder.glob("*.*"), folder.glob("*/*.*"))):
        layers = _layers_of(path) if path.suffix in {".conf", ".sh"} else set()
        if layer in layers and path.relative_to(folder).as_posix() not in files:
            if len(layers) == 1 or path.parent.name not in hosts:
                found.append(path)
    return found


def _layers_of(path: Path) -> set[str]:
    """The commands that write such a file, as its head says; none if it is not ours."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            head = [next(file, "") for _ in range(_HEAD_LINES)]
    except OSError:
        return set()
    marks = (_MARK.findall(line) for line in head if line[1:].startswith(" Rendered by "))
    return {layer for found in marks for layer in found}
