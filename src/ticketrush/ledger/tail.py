"""A journal as another process than its owner reads it: from some event on, again and again."""

from __future__ import annotations

from pathlib import Path

import apsw

from ticketrush.ledger.journal import Journal


class Tail(Journal):
    """A journal that is only read. Where reading stopped is found again by the checksum of that batch.

    Raises from every call:
        JournalError: the journal cannot be read.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, read_only=True)

    def chain_of(self, seq: int) -> int | None:
        """The checksum of the batch that event `seq` is in; None if there is no such event."""
        row = self._row(
            "select first_seq + count, chain from batches where first_seq <= ? order by first_seq desc limit 1", seq
        )
        return row[1] if row is not None and row[0] > seq else None

    def last_seq(self) -> int:
        """The number of the last event; 0 before the first."""
        row = self._row("select first_seq + count - 1 from batches order by first_seq desc limit 1")
        return row[0] if row is not None else 0

    def _row(self, query: str, *values: int) -> tuple[int, ...] | None:
        try:
            return self._connection.execute(query, values).fetchone()
        except apsw.Error as error:
            raise self._unusable(error) from error
