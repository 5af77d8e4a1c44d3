"""How every command ends: the exit codes, and errors as one clear message."""

from __future__ import annotations

import enum
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from ticketrush.cluster.errors import FolderInUse, NotInstalled, PlanError
from ticketrush.crowd.errors import NoAnswer, OptionError, Stopped
from ticketrush.edge.errors import ClusterFileError
from ticketrush.errors import JournalError, LedgerUnavailable, SettingsError, TicketrushError
from ticketrush.orders.errors import SourceLost, StoreOutdated, StoreUnavailable


class Exit(enum.IntEnum):
    """What the exit code says, for scripts and for CI."""

    OK = 0
    NOT_WELL = 1
    """What was checked is not well: an audit violated, a rush not exact, a token not valid, a request refused."""
    USAGE = 2
    """A flag, a setting or an argument is wrong, or a program that it needs is not installed."""
    LEDGER = 3
    """The ledger is locked by another process, damaged, not a ledger, or cannot be written."""
    UNREACHABLE = 4
    """The server did not answer, or the order store."""


class UnreachableError(TicketrushError):
    """The server did not answer, so nothing is known of what was asked."""


class RefusedError(TicketrushError):
    """The server answered, and the answer is no."""


class UsageError(TicketrushError):
    """An argument cannot be understood."""


CODES: tuple[tuple[type[TicketrushError], Exit], ...] = (
    (SettingsError, Exit.USAGE),
    (UsageError, Exit.USAGE),
    (OptionError, Exit.USAGE),
    (PlanError, Exit.USAGE),
    (NotInstalled, Exit.USAGE),
    (ClusterFileError, Exit.USAGE),
    (JournalError, Exit.LEDGER),
    (FolderInUse, Exit.LEDGER),
    (LedgerUnavailable, Exit.LEDGER),
    (UnreachableError, Exit.UNREACHABLE),
    (NoAnswer, Exit.UNREACHABLE),
    (StoreOutdated, Exit.USAGE),
    (StoreUnavailable, Exit.UNREACHABLE),
    (SourceLost, Exit.UNREACHABLE),
)

EXIT_CODES_HELP = """Exit codes: 0 all is well · 1 refused, or not well · 2 wrong usage or settings ·
3 ledger locked, damaged or not writable · 4 server or order store unreachable ·
129, 130, 143 stopped by SIGHUP, Ctrl-C, SIGTERM (rush, strategies; up while it starts)."""


def code_of(error: TicketrushError) -> int:
    """The exit code that tells of `error`; after a signal 128 and its number, as shells say it."""
    if isinstance(error, Stopped):
        return 128 + error.signal
    return next((code for kind, code in CODES if isinstance(error, kind)), Exit.NOT_WELL)


class Commands(TyperGroup):
    """The commands. One that raises ends with the message alone, on standard error, and its exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that `ctx` names."""
        try:
            return super().invoke(ctx)
        except TicketrushError as error:
            print(f"ticketrush: {error}", file=sys.stderr)
            raise typer.Exit(code_of(error)) from None
