"""The journal: an append-only list of events in one SQLite file, owned by one process.

Written in WAL mode. With durability "fsync" (``synchronous=FULL``) a batch is on the disk when
`append` returns: it survives a crash of the process, of the system, and a power cut. With
"memory" (``synchronous=OFF``) it is in the memory of the operating system: it survives a crash
or ``kill -9`` of the process, but not of the system.

Every row carries a checksum chained to the row before, so that a journal with a missing, altered
or torn entry is refused instead of half believed. A new journal is made complete under another
name and then renamed, so that no crash leaves half a one.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Final

import apsw
import msgspec

from ticketrush import logs
from ticketrush.errors import JournalCorrupt, JournalError, JournalForeign, JournalLocked, LedgerUnavailable
from ticketrush.events import AnyEvent
from ticketrush.ledger.stockroom import Snapshot

APPLICATION_ID: Final = 0x54525348
"""What the header of our SQLite files says: "TRSH"."""

VERSION: Final = 1

SYNCHRONOUS: Final = {"fsync": "full", "memory": "off"}

PROBE_BYTES: Final = 1 << 20
"""Room that must be free on the disk before writing is tried again after a failure."""

CHECKPOINT_PAGES: Final = 8_000
"""Pages written to the WAL that are worth bringing into the database file."""

WAL_PAGES_MAX: Final = 16_384
"""Pages of the WAL, 64 MiB, after which it begins again at its start."""

_PRAGMAS: Final = {"wal_autocheckpoint": 0, "journal_size_limit": 64 << 20}

_SCHEMA: Final = files("ticketrush.ledger").joinpath("journal.sql").read_text("utf-8")
_SQLITE_MAGIC: Final = b"SQLite format 3\x00"

_GUARD: Final = threading.Lock()
_OPEN: Final[Counter[Path]] = Counter()
"""How often each journal is open in this process. SQLite's locks on a file belong to the process, and
closing any other descriptor of the file drops them all (sqlite.org/howtocorrupt.html, 2.2): another
program would then take itself for the last one and unlink the WAL that is being written. So a journal
that is open here is never opened beside SQLite, not even to look at its header."""

log = logs.get("ticketrush.ledger")

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[AnyEvent]).decode
_unpack_snapshot = msgspec.msgpack.Decoder(Snapshot).decode


class Lock:
    """Exclusive ownership of a journal, by an advisory lock on the file beside it.

    The operating system releases it when the process ends, however it ends.
    """

    def __init__(self, journal: Path) -> None:
        path = journal.with_name(journal.name + ".lock")
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalError(f"cannot open the lock file {path}: {error.strerror}") from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.read(self._fd, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            raise JournalLocked(
                f"journal {journal} is in use by process {owner}; one process owns a journal: "
                "stop that one, or name another file"
            ) from error
        try:
            os.ftruncate(self._fd, 0)
            os.write(self._fd, str(os.getpid()).encode())
        except OSError:
            pass  # the number is a help for people; a full disk must not stop a restart

    def release(self) -> None:
        """Let the journal go."""
        os.close(self._fd)


def check_header(path: Path) -> None:
    """Refuse a file that is not a ticketrush journal, without opening it as a database.

    Raises:
        JournalForeign: it is something else, or of a newer version.
        JournalCorrupt: it is too short to be anything.
        JournalError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            header = file.read(100)
            size = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise JournalError(f"cannot read the journal {path}: {error.strerror}") from error
    if not _SQLITE_MAGIC.startswith(header[:16]) or not header:
        raise JournalForeign(f"{path} is not a ticketrush journal (not an SQLite file); name another file")
    if len(header) < 100:
        raise JournalCorrupt(f"journal {path} is torn: {len(header)} bytes; restore it from a backup")
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise JournalForeign(f"{path} is an SQLite file of another program; name another file")
    _check_version(path, int.from_bytes(header[60:64], "big"))
    page_bytes = int.from_bytes(header[16:18], "big")
    promised = (65_536 if page_bytes == 1 else page_bytes) * int.from_bytes(header[28:32], "big")
    wal = path.with_name(path.name + "-wal")
    if size < promised and not (wal.exists() and wal.stat().st_size):
        raise JournalCorrupt(f"journal {path} is torn: {size} bytes instead of {promised}; restore it from a backup")


def _check_version(path: Path, version: int) -> None:
    if version != VERSION:
        raise JournalForeign(f"journal {path} has version {version}, this program knows version {VERSION}; update it")


def create(path: Path) -> None:
    """Make an empty journal at `path`, atomically: it is there whole or not at all."""
    temporary = path.with_name(f"{path.name}.new-{secrets.token_hex(4)}")
    try:
        connection = apsw.Connection(os.fspath(temporary))
        try:
            connection.pragma("journal_mode", "wal")
            connection.execute(
                f"begin; pragma application_id={APPLICATION_ID}; pragma user_version={VERSION};{_SCHEMA}commit"
            )
        finally:
            connection.close()
        os.rename(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except (OSError, apsw.Error) as error:
        for suffix in ("", "-journal", "-wal", "-shm"):
            temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)
        raise JournalError(f"cannot create the journal {path}: {error}") from error


class Journal:
    """An open journal. Not thread-safe; one call at a time, from any thread."""

    def __init__(self, path: Path, *, durability: str = "fsync", read_only: bool = False) -> None:
        """Open the journal at `path`; a missing one is created unless `read_only`.

        Raises:
            JournalError: it cannot be used; nothing was written to it.
        """
        self.path = path = path.resolve()  # one file, one name: also through a link
        self._lock: Lock | None = None
        self._is_open = False
        with _GUARD:
            if path.exists() and path.stat().st_nlink > 1:
                raise JournalError(
                    f"journal {path} has a second name (a hard link), so a second owner: remove one name"
                )
            if not _OPEN[path] and (read_only or path.exists()):
                check_header(path)  # nothing is left beside a file that is not ours
            if not read_only:
                self._lock = Lock(path)
            _OPEN[path] += 1
            self._is_open = True
        try:
            if not read_only and not path.exists():
                create(path)
            self._connection = self._connect(read_only, SYNCHRONOUS[durability])
        except BaseException:
            self.close()
            raise
        self._next_seq, self._chain = 1, 0
        self._wal_pages = self._checkpointed = 0
        self._connection.set_wal_hook(self._grown)

    def _grown(self, _: apsw.Connection, __: str, pages: int) -> int:
        """The WAL has so many pages after a commit."""
        if pages < self._wal_pages:
            self._checkpointed = 0
        self._wal_pages = pages
        return apsw.SQLITE_OK

    @property
    def wants_checkpoint(self) -> bool:
        """Whether enough was written that `checkpoint` is worth calling."""
        return self._wal_pages - self._checkpointed >= CHECKPOINT_PAGES

    def checkpoint(self) -> bool:
        """Bring what is committed from the WAL into the database file, on a connection of its own.

        May run in another thread than `append`, which goes on meanwhile: no commit waits for it. True if
        the WAL has become so long that `rewind` is due. A failure changes nothing; it is tried again later.
        """
        self._checkpointed = self._wal_pages
        try:
            connection = apsw.Connection(os.fspath(self.path), flags=apsw.SQLITE_OPEN_READWRITE)
            try:
                connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
                connection.pragma("synchronous", "full")
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            finally:
                connection.close()
        except apsw.Error as error:
            log.warning("checkpoint_failed", path=str(self.path), error=str(error))
            return False
        return self._wal_pages >= WAL_PAGES_MAX

    def rewind(self) -> None:
        """Let the WAL begin again at its start; short when `checkpoint` has just brought over nearly all of it."""
        try:
            self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_RESTART)
        except apsw.BusyError:
            pass  # somebody reads an old page: next time
        except apsw.Error as error:
            log.warning("checkpoint_failed", path=str(self.path), error=str(error))

    def _connect(self, read_only: bool, synchronous: str) -> apsw.Connection:
        flags = apsw.SQLITE_OPEN_READONLY if read_only else apsw.SQLITE_OPEN_READWRITE
        try:
            connection = apsw.Connection(os.fspath(self.path), flags=flags)
            connection.set_busy_timeout(5_000)
            # Until the content is verified nothing may be written, not even by closing.
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            if not read_only:
                for name, value in {"synchronous": synchronous, **_PRAGMAS}.items():
                    connection.pragma(name, value)
            version = connection.pragma("user_version")  # as it is with what the WAL says
        except apsw.Error as error:
            raise self._unusable(error) from error
        _check_version(self.path, version)
        return connection

    def _corrupt(self, why: object) -> JournalCorrupt:
        return JournalCorrupt(f"journal {self.path} is damaged ({why}); restore it from a backup")

    def _unusable(self, error: Exception) -> JournalError:
        """Damage, or only a disk that is full, read-only or broken."""
        if isinstance(error, apsw.Error) and not isinstance(
            error, (apsw.CorruptError, apsw.NotADBError, apsw.SQLError)
        ):
            return JournalError(
                f"cannot use the journal {self.path} ({error}): is there room on the disk, and may it be written?"
            )
        return self._corrupt(error)

    def load(self) -> tuple[Snapshot | None, Iterator[list[AnyEvent]]]:
        """Verify the journal; the snapshot it holds, and the batches of events after it.

        Must be called, and the iterator used up, before the first `append`.

        Raises:
            JournalCorrupt: an entry is missing, altered or torn; also from the iterator.
            JournalError: it cannot be read; also from the iterator.
        """
        self._next_seq, self._chain = 1, 0
        try:
            row = self._connection.execute("select seq, chain, state from snapshots order by seq desc").fetchone()
            batches = self._verified()
            if row is None:
                return None, self._decoded(batches)
            known, said, state = row
            while self._next_seq <= known:
                if next(batches, None) is None:
                    raise self._corrupt(f"it ends at event {self._next_seq - 1}, its snapshot at {known}")
            if self._next_seq != known + 1 or said != zlib.crc32(state, self._chain):
                raise self._corrupt(f"the snapshot at event {known} is altered, or of another journal")
            return _unpack_snapshot(state), self._decoded(batches)
        except (apsw.Error, msgspec.MsgspecError, TypeError) as error:
            raise self._unusable(error) from error

    def _verified(self) -> Iterator[tuple[int, bytes]]:
        """The batches, each with its number of events, as long as the chain holds."""
        for first_seq, count, said, blob in self._connection.execute(
            "select first_seq, count, chain, events from batches order by first_seq"
        ):
            chain = zlib.crc32(blob, self._chain)
            if first_seq != self._next_seq or said != chain:
                raise self._corrupt(f"event {self._next_seq} is missing or altered")
            self._next_seq += count
            self._chain = chain
            yield count, blob

    def _decoded(self, batches: Iterator[tuple[int, bytes]]) -> Iterator[list[AnyEvent]]:
        try:
            for count, blob in batches:
                events = _unpack(blob)
                if len(events) != count:
                    raise self._corrupt(f"the batch before event {self._next_seq} is altered")
                yield events
            if self._lock:  # it is sound and ours: now it may be written
                self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0)
                self._connection.pragma("journal_mode", "wal")
        except (apsw.Error, msgspec.MsgspecError, TypeError) as error:
            raise self._unusable(error) from error

    def append(self, events: Sequence[AnyEvent]) -> None:
        """Make `events` durable, all or none, in one transaction.

        Raises:
            LedgerUnavailable: they may or may not be in the journal; `load` tells.
        """
        blob = _pack(events)
        chain = zlib.crc32(blob, self._chain)
        # One statement is a transaction by itself, and one call that lets other threads run meanwhile.
        self._write(
            "insert into batches (first_seq, count, chain, events) values (?, ?, ?, ?)",
            (self._next_seq, len(events), chain, blob),
        )
        self._next_seq += len(events)
        self._chain = chain

    def save_snapshot(self, snapshot: Snapshot) -> None:
        """Keep `snapshot`, which must be of the last event appended, in place of an older one.

        Raises:
            LedgerUnavailable: it could not be written; the older one stays.
        """
        state = _pack(snapshot)
        self._write(
            "begin immediate; delete from snapshots;insert into snapshots (seq, chain, state) values (?, ?, ?); commit",
            (snapshot.seq, zlib.crc32(state, self._chain), state),
        )

    def probe(self) -> None:
        """See whether the disk takes writes again, without writing anything that stays.

        Raises:
            LedgerUnavailable: it does not.
        """
        self._write(
            "begin immediate; insert into probe (filling) values (zeroblob(?)); delete from probe; commit",
            (PROBE_BYTES,),
        )

    def _write(self, statement: str, values: tuple[int | bytes, ...]) -> None:
        connection = self._connection
        try:
            connection.execute(statement, values)
        except apsw.Error as error:
            try:
                if connection.in_transaction:
                    connection.execute("rollback")
            except apsw.Error:
                pass  # the first error says what happened; `load` finds out where the journal stands
            raise LedgerUnavailable(f"journal {self.path}: {error}") from error

    def read(self, after: int, limit: int) -> list[tuple[int, AnyEvent]]:
        """At most `limit` events with numbers above `after`, in order, with their numbers."""
        found: list[tuple[int, AnyEvent]] = []
        try:
            for first_seq, blob in self._connection.execute(
                "select first_seq, events from batches where first_seq >= "
                "coalesce((select max(first_seq) from batches where first_seq <= ?), 1) order by first_seq",
                (after + 1,),
            ):
                found += [(seq, event) for seq, event in enumerate(_unpack(blob), first_seq) if seq > after]
                if len(found) >= limit:
                    break
        except (apsw.Error, msgspec.MsgspecError, TypeError) as error:
            raise self._unusable(error) from error
        return found[:limit]

    @contextmanager
    def still(self) -> Iterator[None]:
        """Every read inside sees the journal as it was at one moment."""
        self._connection.execute("begin")
        try:
            yield
        finally:
            self._connection.execute("rollback")

    def close(self) -> None:
        """Let the file go. May be called twice."""
        if hasattr(self, "_connection"):
            self._connection.close()
        if self._is_open:
            self._is_open = False
            with _GUARD:
                _OPEN[self.path] -= 1
        if self._lock:
            self._lock.release()
            self._lock = None
