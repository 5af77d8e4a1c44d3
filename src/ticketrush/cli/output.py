"""What the commands print: values for machines, tables for people."""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich.cells import cell_len
from rich.console import Console, ConsoleDimensions
from rich.table import Table
from rich.text import Text

from ticketrush.cli.app import UsageError

STDOUT: Final = "-"
"""As a file name: standard output."""

STDIN: Final = "-"
"""As an argument: read it from standard input, where other people's `ps` does not see it."""

PROSE_WIDTH: Final = 20
"""Characters that a column of prose has at least on a narrow terminal, if it has so many."""


def console() -> Console:
    """Standard output for people: tables and pictures."""
    return Console(highlight=False)


def say(text: str, style: str = "", *, aside: bool = False) -> None:
    """Print one line, as it is and as long as it is; `aside` on standard error."""
    (error_console() if aside else console()).print(Text(text, style), soft_wrap=True)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Collection[str] = (),
    prose: Collection[str] = (),
    spare: Sequence[str] = (),
    header: bool = True,
) -> None:
    """Print a table whose cells can be copied: ids, URLs and paths are never wrapped, however narrow the terminal.

    There, the columns in `prose` are folded, and those in `spare` are left out, the first one first, until the
    others have room, which is said on standard error; what still has none is longer than the terminal. Elsewhere each
    row is one line. `right` are the columns of numbers. Without a `header` the columns have no names.
    """
    found = [[str(cell) for cell in row] for row in rows]
    where = console()
    kept = list(range(len(columns)))
    widths = [max(cell_len(text) for text in (name, *(row[at] for row in found))) for at, name in enumerate(columns)]
    least = [min(width, PROSE_WIDTH) if columns[at] in prose else width for at, width in enumerate(widths)]
    wanted = _together(least, kept)
    if where.is_terminal:
        for name in spare:
            if _together(least, kept) <= where.width:
                break
            kept.remove(columns.index(name))
        width = max(where.width, _together(least, kept))
    else:
        width = _together(widths, kept)
    where.size = ConsoleDimensions(width, where.height)  # both, or a dumb terminal has 80 whatever is said
    made = Table(box=None, pad_edge=False, show_header=header)
    for at in kept:
        is_prose = columns[at] in prose
        made.add_column(
            columns[at],
            justify="right" if columns[at] in right else "left",
            overflow="fold",
            no_wrap=not is_prose,
            min_width=None if is_prose else widths[at],
        )
    for row in found:
        made.add_row(*(Text(row[at]) for at in kept))
    where.print(made, crop=False)
    left_out = [name for at, name in enumerate(columns) if at not in kept]
    if left_out:
        say(f"not shown here: {', '.join(left_out)}; --json has all, a terminal of {wanted} columns too", aside=True)


def _together(widths: Sequence[int], kept: Sequence[int]) -> int:
    """How wide columns are with the two spaces between them."""
    return max(1, sum(widths[at] + 2 for at in kept) - 2)


def error_console() -> Console:
    """Standard error for people: progress, which must not mix with the output."""
    return Console(highlight=False, stderr=True)


def as_json(value: object) -> None:
    """Print `value` as one indented JSON document."""
    write_json(value, STDOUT)


def write_json(value: object, file: str) -> None:
    """Write `value` as JSON to `file`; "-" is standard output."""
    write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n", file)


def write(content: bytes, file: str) -> None:
    """Write `content` to `file`; "-" is standard output.

    Raises:
        UsageError: the file cannot be written.
    """
    if file == STDOUT:
        sys.stdout.write(content.decode())
        sys.stdout.flush()
        return
    try:
        Path(file).write_bytes(content)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from None


def check_writable(*files: str | None) -> None:
    """Refuse now what could not be written after a long run.

    Raises:
        UsageError: a folder is missing or not ours to write in.
    """
    for file in files:
        if file is None or file == STDOUT:
            continue
        folder = Path(file).parent
        if Path(file).is_dir():
            raise UsageError(f"{file} cannot be written: it is a folder; name a file in it")
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise UsageError(f"{file} cannot be written: {folder} is not a folder to write in")
