"""What the commands print: values for machines, tables for people."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.text import Text

from ticketrush.cli.app import UsageError

STDOUT: Final = "-"
"""As a file name: standard output."""

STDIN: Final = "-"
"""As an argument: read it from standard input, where other people's `ps` does not see it."""


def console() -> Console:
    """Standard output for people: tables and pictures."""
    return Console(highlight=False)


def say(text: str, style: str = "", *, aside: bool = False) -> None:
    """Print one line, as it is and as long as it is; `aside` on standard error."""
    (error_console() if aside else console()).print(Text(text, style), soft_wrap=True)


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
        if Path(file).is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
            raise UsageError(f"{file} cannot be written: {folder} is not a folder to write in, or {file} is one")
