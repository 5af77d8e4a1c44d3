"""Every exception ticketrush raises on purpose. Outcomes a caller expects are values (`model.Outcome`).

::

    TicketrushError
    ├── SettingsError            a setting is wrong or missing; names it and what to do
    ├── InvalidRequest           a request that cannot be understood; has a stable code
    │   └── Unauthorized         no token, or one that does not prove who the buyer is
    ├── LedgerUnavailable        the ledger could not commit; what was asked may or may not have happened
    │   └── LedgerRefused        the ledger did not try; nothing happened
    └── JournalError             the journal cannot be used; nothing was written to it
        ├── JournalLocked        another process owns it
        ├── JournalForeign       the file is something else
        └── JournalCorrupt       the file is damaged or incomplete

The rooms on top add their own below `TicketrushError`, in their own files: `crowd.errors.CrowdError`,
`bench.errors.BenchError`, and those of the command line in `cli.app`.
"""

from __future__ import annotations


class TicketrushError(Exception):
    """Base of all of them. The text says what was wrong, with which value, and what to do."""


class SettingsError(TicketrushError):
    """A setting is wrong or missing."""


class InvalidRequest(TicketrushError):
    """A request that cannot be understood.

    `code` is one of the stable codes of the HTTP API, `status` the HTTP status that goes with it.
    """

    def __init__(self, detail: str, *, code: str = "invalid_request", status: int = 422) -> None:
        super().__init__(detail)
        self.code = code
        self.status = status


class Unauthorized(InvalidRequest):
    """No token, or one that does not prove who the buyer is."""

    def __init__(self, detail: str, *, code: str = "unauthorized", status: int = 401) -> None:
        super().__init__(detail, code=code, status=status)


class LedgerUnavailable(TicketrushError):
    """The ledger could not commit. What was asked may or may not have happened; repeat with the same key."""


class LedgerRefused(LedgerUnavailable):
    """The ledger did not try to commit: it is closed, or its disk takes no writes. Nothing happened."""


class JournalError(TicketrushError):
    """The journal cannot be used. Nothing was written to it."""


class JournalLocked(JournalError):
    """Another process owns the journal."""


class JournalForeign(JournalError):
    """The file is not a ticketrush journal, or one of a version this program does not know."""


class JournalCorrupt(JournalError):
    """The journal is damaged: an entry is missing, altered or torn."""
