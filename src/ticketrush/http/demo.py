"""The articles' call: ``/buy/ticket`` without buyer, key or token; one unit a request."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from ticketrush import logs
from ticketrush import model as m
from ticketrush.engine import Engine
from ticketrush.errors import SettingsError
from ticketrush.http import problems
from ticketrush.http.answers import JSON, Answer
from ticketrush.model import Reason, Refused

SALE: Final = "demo"
ITEM: Final = "ticket"

HOLD_WINDOW_MS: Final = 300_000
"""Unpaid tickets come back after five minutes, as in the articles."""

log = logs.get("ticketrush.http")

_WON: Final = '{"code":1,"msg":"抢票成功"}'.encode()
_LOST: Final = '{"code":-1,"msg":"已售罄"}'.encode()
_LENGTH: Final = max(len(_WON), len(_LOST))

WON: Final = Answer(200, (JSON,), _WON.ljust(_LENGTH))
LOST: Final = Answer(200, (JSON,), _LOST.ljust(_LENGTH))
"""Of one length, for load generators that take another length for a failure."""

LOST_AT_GATE: Final = LOST._replace(headers=(JSON, problems.EDGE))

_GONE: Final = frozenset((Reason.SOLD_OUT, Reason.ALL_HELD, Reason.CLOSED, Reason.NOT_OPEN))


class StatLog:
    """A line for each demo request, in the articles' form; opened once, written a second later."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("a", buffering=1 << 16, encoding="ascii")
        except OSError as error:
            raise SettingsError(f"cannot open the stat log {path}: {error.strerror}") from error

        self._failing = False

    def line(self, won: bool, sales: int) -> None:
        """Note an answer, and how many were sold by then. A line that cannot be written is dropped."""
        with self._forgiving():
            self._file.write(f"result:{int(won)},localSales:{sales}\n")

    def on_tick(self, tick: int) -> None:
        """Once a second: hand what was noted to the operating system."""
        with self._forgiving():
            self._file.flush()

    def close(self) -> None:
        """Write the rest."""
        with self._forgiving():
            self._file.close()

    @contextmanager
    def _forgiving(self) -> Iterator[None]:
        """A log is not worth an answer: say once that it cannot be written, and go on."""
        try:
            yield
        except OSError as error:
            if not self._failing:
                log.warning("stat_log_fails", file=self._file.name, error=str(error))
            self._failing = True


class Demo:
    """Sells the demo sale, one anonymous ticket a call."""

    def __init__(self, engine: Engine, stock: int, stat_log: StatLog | None) -> None:
        self._engine = engine
        self._stock = stock
        self._stat_log = stat_log
        self._sales = 0

    async def start(self) -> None:
        """Open the demo sale. Needs a started engine."""
        sale = m.Sale(SALE, (m.Item(ITEM, self._stock),), opens_at_ms=0, hold_window_ms=HOLD_WINDOW_MS)
        outcome = await self._engine.create_sale(sale)
        if isinstance(outcome, Refused):
            raise SettingsError(f"cannot open the demo sale: {outcome.reason.value}; the ledger has another one")

    def ask(self) -> m.Reserve | Refused:
        """The command for one ticket, or the refusal of a closed gate."""
        refused = self._engine.refusal(SALE, ITEM, "")
        return refused or m.Reserve(self._engine.new_id(SALE, "anonymous"), SALE, ITEM, "anonymous", 1, "")

    def answer(self, outcome: m.Outcome) -> Answer:
        """The articles' answer for an outcome."""
        won = isinstance(outcome, m.Reserved)
        if isinstance(outcome, Refused) and outcome.reason not in _GONE:
            return problems.refusal(outcome, self._engine.now_ms())
        self._sales += won
        if self._stat_log is not None:
            self._stat_log.line(won, self._sales)
        return WON if won else LOST

    def turn_away(self, refused: Refused) -> Answer:
        """The articles' answer of a closed gate, which a proxy may give in our place."""
        answer = self.answer(refused)
        return LOST_AT_GATE if answer is LOST else answer

    async def buy(self) -> Answer:
        """One ticket, for callers outside the fast lane."""
        asked = self.ask()
        return self.turn_away(asked) if isinstance(asked, Refused) else self.answer(await self._engine.execute(asked))
