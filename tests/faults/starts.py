"""Starts that must fail: what ``ticketrush serve`` says, and that it changes nothing."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

LEDGER_EXIT: Final = 3
START_S: Final = 20.0


def fingerprint(*files: Path) -> dict[str, str]:
    """A hash of each file that is there."""
    return {each.name: hashlib.sha256(each.read_bytes()).hexdigest() for each in files if each.is_file()}


def refused_start(ledger: Path) -> str:
    """What a server says that must not start on `ledger`: one clear message, and exit code 3."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TICKETRUSH_")}
    command = [sys.executable, "-m", "ticketrush", "serve", "--open", "--json", "--port", "0"]
    done = subprocess.run(
        [*command, "--ledger", f"sqlite:///{ledger}"],
        check=False,
        capture_output=True,
        text=True,
        timeout=START_S,
        env=environment,
    )
    assert done.returncode == LEDGER_EXIT, f"exit code {done.returncode}: {done.stdout}{done.stderr}"
    assert not done.stdout, "it said that it serves"
    assert "Traceback" not in done.stderr, f"not a message for people: {done.stderr}"
    said = done.stderr.strip().splitlines()[-1]
    assert said.startswith("ticketrush: "), done.stderr
    assert str(ledger) in said, f"it does not name the file: {said}"
    return said
