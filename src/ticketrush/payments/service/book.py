"""The test gateway's book: charges and the webhooks that tell of them, in SQLite.

A charge and its webhook are written in one transaction, so that a gateway that is killed still tells,
after its restart, of all that it has decided. Not thread-safe; each call takes well below a millisecond.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import apsw
import msgspec

from ticketrush.payments import notices
from ticketrush.payments.protocol import Charge, ChargeState
from ticketrush.payments.service.habits import SHUFFLE_MS, Habits

_T = TypeVar("_T")

CHARGES_MAX: Final = 1_000_000
"""Charges one book has room for; the next one is refused."""

_SCHEMA: Final = Path(__file__).with_name("schema.sql")
_INSERT: Final = """
INSERT INTO charges (id, order_id, idempotency_key, amount_minor, currency, state, verdict, decide_at_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
_BY_ID: Final = "SELECT id, order_id, amount_minor, currency, state FROM charges WHERE id = ?"
_BY_KEY: Final = "SELECT id, order_id, amount_minor, currency, state FROM charges WHERE idempotency_key = ?"
_ALIVE: Final = """
SELECT id, order_id, amount_minor, currency, state FROM charges
WHERE order_id = ? AND state IN ('pending', 'approved')"""
_OF_ORDER: Final = """
SELECT id, order_id, amount_minor, currency, state FROM charges WHERE order_id = ? ORDER BY seq DESC LIMIT ?"""
_PAGE: Final = """
SELECT id, order_id, amount_minor, currency, state FROM charges
WHERE seq > ifnull((SELECT seq FROM charges WHERE id = ?), 0) ORDER BY seq LIMIT ?"""
_TO_DECIDE: Final = """
SELECT id, order_id, amount_minor, currency, state, verdict FROM charges
WHERE state = 'pending' AND decide_at_ms <= ? ORDER BY decide_at_ms LIMIT ?"""
_DUE: Final = "SELECT seq, message, body, tries FROM deliveries WHERE due_at_ms <= ? ORDER BY due_at_ms LIMIT ?"
_NEXT: Final = """
SELECT min(at_ms) FROM (
    SELECT min(decide_at_ms) AS at_ms FROM charges WHERE state = 'pending'
    UNION ALL SELECT min(due_at_ms) FROM deliveries
)"""
_DECIDE_AT_ONCE: Final = 100


class BookFull(Exception):
    """The book has no room for another charge."""


class Delivery(msgspec.Struct, frozen=True):
    """A webhook to be sent: the message's id and body, and how often it was tried before."""

    seq: int
    message: str
    body: bytes
    tries: int


class Book:
    """All charges, and all webhooks that are not delivered yet."""

    def __init__(self, file: str, habits: Habits) -> None:
        """Open the book in `file`, made if it is not there; ":memory:" is forgotten at the end.

        Raises:
            apsw.Error: the file cannot be used.
        """
        self._habits = habits
        self._dice = random.Random(habits.seed)
        self._db = apsw.Connection(file)
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL")
        self._db.execute(_SCHEMA.read_text(encoding="utf-8"))
        self._count = int(self._one("SELECT count(*) FROM charges")[0])

    def close(self) -> None:
        """Let the file go."""
        self._db.close()

    # --- charges ----------------------------------------------------------------------------

    def charge(
        self, order: str, amount_minor: int, currency: str, *, key: str | None, decline: bool, at_ms: int, now_ms: int
    ) -> tuple[Charge, bool]:
        """The charge of the order, and whether it is new; decided at `at_ms`, at once if that is not later than now.

        A request with a `key` that was used gets the charge of then; an order whose last charge is
        pending or approved gets that one.

        Raises:
            BookFull: there is no room for another one.
        """
        known = self._charge(_BY_KEY, key) if key else None
        known = known or self._charge(_ALIVE, order)
        if known is not None:
            return known, False
        if self._count >= CHARGES_MAX:
            raise BookFull(f"the book is full: it has {CHARGES_MAX:,} charges; begin a new one")
        declined = decline or self._dice.random() < self._habits.decline_share
        verdict = ChargeState.DECLINED if declined else ChargeState.APPROVED
        state = verdict if at_ms <= now_ms else ChargeState.PENDING
        new = Charge(f"ch_{secrets.token_hex(12)}", order, amount_minor, currency, state)
        with self._db:
            self._db.execute(_INSERT, (new.id, order, key, amount_minor, currency, state.value, verdict.value, at_ms))
            if state is not ChargeState.PENDING:
                self._tell(new, now_ms)
        self._count += 1
        return new, True

    def decide(self, now_ms: int) -> None:
        """Decide the charges whose time has come."""
        with self._db:
            for charge, verdict in self._rows(_TO_DECIDE, _with_verdict, now_ms, _DECIDE_AT_ONCE):
                self._move(msgspec.structs.replace(charge, state=ChargeState(verdict)), now_ms)

    def refund(self, id: str, now_ms: int) -> Charge | None:
        """The charge after it was refunded; as it is if it is not one that took money; None for an unknown one."""
        charge = self._charge(_BY_ID, id)
        if charge is None or charge.state is not ChargeState.APPROVED:
            return charge
        moved = msgspec.structs.replace(charge, state=ChargeState.REFUNDED)
        with self._db:
            self._move(moved, now_ms)
        return moved

    def read(self, id: str) -> Charge | None:
        """The charge of this id."""
        return self._charge(_BY_ID, id)

    def of_order(self, order: str, limit: int) -> list[Charge]:
        """Charges of an order, the last one first."""
        return self._rows(_OF_ORDER, _charge, order, limit)

    def page(self, after: str, limit: int) -> list[Charge]:
        """Charges in the order in which they were made, from the one behind the charge `after` ("": the first)."""
        return self._rows(_PAGE, _charge, after, limit)

    def _move(self, moved: Charge, now_ms: int) -> None:
        self._db.execute("UPDATE charges SET state = ? WHERE id = ?", (moved.state.value, moved.id))
        self._tell(moved, now_ms)

    # --- webhooks ---------------------------------------------------------------------------

    def due(self, now_ms: int, limit: int) -> list[Delivery]:
        """Webhooks that are to be sent now, the oldest first."""
        return self._rows(_DUE, Delivery, now_ms, limit)

    def done(self, delivery: Delivery) -> None:
        """It was answered, or is given up."""
        self._db.execute("DELETE FROM deliveries WHERE seq = ?", (delivery.seq,))

    def put_off(self, delivery: Delivery, due_at_ms: int) -> None:
        """It was tried in vain; try again later."""
        self._db.execute(
            "UPDATE deliveries SET due_at_ms = ?, tries = tries + 1 WHERE seq = ?", (due_at_ms, delivery.seq)
        )

    def next_at_ms(self) -> int | None:
        """When there is something to decide or to send; None for never."""
        at_ms = self._one(_NEXT)[0]
        return None if at_ms is None else int(at_ms)

    def open_matters(self) -> tuple[int, int, int]:
        """How many charges there are, how many are pending, and how many webhooks are to be delivered."""
        pending = self._one("SELECT count(*) FROM charges WHERE state = 'pending'")[0]
        return self._count, int(pending), int(self._one("SELECT count(*) FROM deliveries")[0])

    def _tell(self, charge: Charge, now_ms: int) -> None:
        message, body = f"msg_{secrets.token_hex(12)}", notices.write(charge, now_ms)
        for _ in range(self._habits.repeat):
            due_at_ms = now_ms + (self._dice.randrange(SHUFFLE_MS) if self._habits.reorder else 0)
            self._db.execute(
                "INSERT INTO deliveries (message, body, due_at_ms, tries) VALUES (?, ?, ?, 0)",
                (message, body, due_at_ms),
            )

    # --- rows -------------------------------------------------------------------------------

    def _charge(self, query: str, value: str) -> Charge | None:
        found = self._rows(query, _charge, value)
        return found[0] if found else None

    def _one(self, query: str) -> tuple[Any, ...]:
        return next(iter(self._db.execute(query)))

    def _rows(self, query: str, make: Callable[..., _T], *values: Any) -> list[_T]:
        return [make(*row) for row in self._db.execute(query, values)]


def _charge(id: str, order: str, amount_minor: int, currency: str, state: str) -> Charge:
    return Charge(id, order, amount_minor, currency, ChargeState(state))


def _with_verdict(*row: Any) -> tuple[Charge, str]:
    return _charge(*row[:-1]), row[-1]
