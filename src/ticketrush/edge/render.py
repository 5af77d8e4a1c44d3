"""Templates become files. Jinja2 does it, with the names that a template misses being errors."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ticketrush.edge.errors import EdgeError

if TYPE_CHECKING:
    from jinja2 import Environment

_MODES: Final = {".sh": 0o755, "frr.conf": 0o640}
"""The password of OSPF is nobody else's business."""


@functools.cache
def _environment() -> Environment:
    try:
        import jinja2  # noqa: PLC0415 - an extra, missed only by who renders
    except ImportError as error:
        raise EdgeError("rendering needs Jinja2: pip install 'ticketrush[edge]'") from error
    return jinja2.Environment(
        loader=jinja2.PackageLoader("ticketrush.edge"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - configuration files; every value was checked by the cluster file's patterns
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, **values: object) -> str:
    """The text of `template` (a file in ``templates/``) with `values` in it."""
    return _environment().get_template(template).render(**values)


def write(folder: Path, files: dict[str, str]) -> list[Path]:
    """Write rendered `files` (names, with folders, and texts) into `folder`; their paths.

    A file whose name ends in .sh can be executed, one with a password is not for
    everybody. Each is put in its place whole.

    Raises:
        EdgeError: one cannot be written.
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
            raise EdgeError(f"cannot write {path}: {error.strerror}; name another folder with --out") from error
        written.append(path)
    return written
