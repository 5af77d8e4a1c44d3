"""The way of a purchase: gate -> batch -> ledger -> outcomes.

While a commit is under way, arrivals collect; when it ends, all of them go together as the next
batch. There is no timer and no fixed size, so a lone buyer waits for nobody, and under load a
hundred purchases share one write to the disk (group commit).

Nothing waits without bound. When more than `queue_max` commands wait, the next is refused at once
(OVERLOADED: it did not happen). Who has waited for a batch longer than `patience_s` is answered
UNAVAILABLE (it did not happen). When a commit takes longer than that, those in it are answered
UNKNOWN (it may have happened; repeat with the same key) and those behind it UNAVAILABLE, and so is
everybody who comes until the ledger answers again. So nobody waits longer than twice `patience_s`.
"""

from __future__ import annotations

import asyncio
import bisect
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import Final, Self, TypeVar, cast

from ticketrush import audit, logs
from ticketrush import model as m
from ticketrush.admission.gate import Gate
from ticketrush.admission.limits import check_key, check_payment, check_reserve, check_units, is_id, unheard_of
from ticketrush.clock import Clock, SystemClock
from ticketrush.errors import LedgerRefused, LedgerUnavailable, TicketrushError
from ticketrush.events import AnyEvent
from ticketrush.ledger.protocol import Ledger
from ticketrush.model import Reason, Refused
from ticketrush.stats import Stats

_R = TypeVar("_R")
_T = TypeVar("_T", bound=m.Outcome)

Reply = Callable[[m.Outcome], None]

QUEUE_MAX: Final = 16_384
BATCH_MAX: Final = 1_024
PATIENCE_S: Final = 2.0
OVERLAP_MIN: Final = 32
"""Commands that must wait before a second batch is sent while one is under way, where a ledger takes several."""

RETRY_MS: Final = 1_000
"""After how long it is worth asking again when the engine was too busy."""

ASK_AGAIN_S: Final = 0.25
"""After how long a ledger that failed is asked again, whether or not anybody buys."""

EVENTS_AT_ONCE: Final = 10_000

log = logs.get("ticketrush.engine")


class Engine:
    """The desk where everything is bought, on top of one ledger.

    Use it as ``async with``. All methods belong to the event loop it was started on.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        clock: Clock | None = None,
        queue_max: int = QUEUE_MAX,
        batch_max: int = BATCH_MAX,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._ledger = ledger
        self._clock: Clock = clock or SystemClock()
        self._queue_max, self._batch_max, self._patience_s = queue_max, batch_max, patience_s
        self._gate = Gate()
        self._waiting: list[tuple[m.Command, Reply]] = []
        self._arrived_s: list[float] = []
        """When each of those came, in monotonic time."""
        self._committing: dict[object, tuple[float, list[tuple[m.Command, Reply]]]] = {}
        """Batches under way, oldest first: when each began, and what is in it."""
        self._runners: set[asyncio.Task[None]] = set()
        self._hung = 0
        """Commits that took too long and have not ended; those in them were answered."""
        self._failing = self._closing = self._started = False
        self._wake: asyncio.TimerHandle | None = None
        self._watch: asyncio.TimerHandle | None = None
        self.stats = Stats()

    # --- life -------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the ledger and open the gates. Raises JournalError if the ledger cannot be used."""
        if self._closing:
            raise TicketrushError("this engine was closed; make a new one")
        await self._ledger.start()
        self._clock.not_before(self._ledger.last_event_at_ms())
        self._started = True
        self._ledger.watch(self._on_change)
        self._refresh_gates()
        self._set_alarm()
        self._look_after()

    async def close(self) -> None:
        """Refuse what comes, finish what waits, let the ledger go. May be called twice.

        Raises:
            LedgerUnavailable: a commit under way does not end; the ledger was left as it is.
        """
        self._closing = True
        try:
            if self._runners:
                _, stuck = await asyncio.wait(self._runners, timeout=2 * self._patience_s)
                if stuck:
                    self._give_up()
                    raise LedgerUnavailable(f"a commit has not ended {2 * self._patience_s:g} s after the stop")
        finally:
            for handle in (self._wake, self._watch):
                if handle is not None:
                    handle.cancel()
        if self._started:
            self._started = False
            await self._ledger.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def ready(self) -> bool:
        """Whether purchases are being decided: started, not closing, and the ledger answers."""
        return self._started and self._ledger.ready and not (self._closing or self._hung or self._failing)

    # --- the way of a purchase --------------------------------------------------------------

    def refusal(self, sale: str, item: str, key: str) -> Refused | None:
        """The answer of a closed gate, or None if the ledger must decide.

        The ledger also decides on a `key` that won before, so that a repetition gets its first answer.
        """
        closed = self._gate.closed.get(sale)
        refused = None if closed is None else closed.get(item)
        if refused is None or (key and self._ledger.remembers(sale, key)):
            return None
        self.stats.gate_refusals += 1
        return refused

    def offer(self, command: m.Command, reply: Reply) -> None:
        """Queue `command`; `reply` gets its outcome once that is durable, or at once if it is refused."""
        if self._hung or self._closing or not self._started:
            reply(Refused(Reason.UNAVAILABLE, self._clock.now_ms() + RETRY_MS))
        elif len(self._waiting) >= self._queue_max:
            self.stats.overloaded += 1
            reply(Refused(Reason.OVERLOADED, self._clock.now_ms() + RETRY_MS))
        else:
            self._waiting.append((command, reply))
            self._arrived_s.append(monotonic())
            running = len(self._runners)
            if not running or (running < self._ledger.overlap and len(self._waiting) >= running * OVERLAP_MIN):
                runner = asyncio.get_running_loop().create_task(self._run())
                self._runners.add(runner)

    async def _run(self) -> None:
        """Commit batch after batch until nobody waits."""
        while self._waiting:
            batch = self._waiting[: self._batch_max]
            del self._waiting[: self._batch_max], self._arrived_s[: self._batch_max]
            flight = object()
            self._committing[flight] = (monotonic(), batch)
            try:
                outcomes = await self._ledger.execute(self._clock.now_ms(), [command for command, _ in batch])
                self._note_failure(None)
            except Exception as error:  # noqa: BLE001 - whatever happened, everybody gets an answer
                self._note_failure(error)
                outcomes = self._failed_outcomes(error, len(batch))
            self._refresh_gates()
            if self._committing.pop(flight, None) is None:
                self._hung -= 1
            else:
                self._answer(batch, outcomes)
            self._set_alarm()
        self._runners.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    def _failed_outcomes(self, error: Exception, count: int) -> list[m.Outcome]:
        reason = Reason.UNAVAILABLE if isinstance(error, LedgerRefused) else Reason.UNKNOWN
        self.stats.unknown += count if reason is Reason.UNKNOWN else 0
        return [Refused(reason, self._clock.now_ms() + RETRY_MS)] * count

    def _note_failure(self, error: Exception | None) -> None:
        """Log the first of a row of failed commits, and the end of the row."""
        if error is not None:
            self.stats.commits_failed += 1
            if not self._failing:
                log.error("commits_fail", error=str(error), unforeseen=not isinstance(error, LedgerUnavailable))
        elif self._failing:
            log.info("commits_succeed_again", failed=self.stats.commits_failed)
        self._failing = error is not None

    def _answer(self, batch: list[tuple[m.Command, Reply]], outcomes: list[m.Outcome]) -> None:
        self.stats.batches += 1
        self.stats.commands += len(batch)
        for (_, reply), outcome in zip(batch, outcomes, strict=True):
            try:
                reply(outcome)
            except Exception:
                log.exception("reply_failed")  # one buyer's broken connection must not cost the others their answer

    def _refresh_gates(self) -> None:
        now_ms = self._clock.now_ms()
        for sale in self._ledger.changes().union(self._gate.due(now_ms)):
            if (stock := self._ledger.stock(sale)) is not None:
                self._gate.refresh(stock, now_ms)

    def _set_alarm(self) -> None:
        """Wake up when a hold falls due, a sale opens or closes, or a failing ledger is worth asking again."""
        times = [at_ms for at_ms in (self._ledger.next_expiry_at_ms(), self._gate.next_change_at_ms()) if at_ms]
        if self._failing:
            delay_s = ASK_AGAIN_S
        elif times:
            delay_s = min(max((min(times) - self._clock.now_ms()) / 1_000, 0.001), 3_600.0)
        else:
            return
        loop = asyncio.get_running_loop()
        if self._wake is not None:
            if self._wake.when() <= loop.time() + delay_s:
                return  # it fires in time; set again and again it would never fire
            self._wake.cancel()
        self._wake = None if self._closing else loop.call_later(delay_s, self._on_alarm)

    def _on_alarm(self) -> None:
        self._wake = None
        self._refresh_gates()
        expiry_at_ms = self._ledger.next_expiry_at_ms()
        if self._failing or (expiry_at_ms is not None and expiry_at_ms <= self._clock.now_ms()):
            self.offer(m.Expire(self._batch_max), lambda _: None)  # the alarm is set again when it is done
        else:
            self._set_alarm()

    def _on_change(self) -> None:
        """Another node has bought, or given something back."""
        self._refresh_gates()
        self._set_alarm()

    def _look_after(self) -> None:
        """See every so often that no commit takes longer than anybody should wait."""
        too_long_s = monotonic() - self._patience_s * 15 / 16  # with the time to the next look: not more than that
        if any(began_s < too_long_s for began_s, _ in self._committing.values()):
            self._give_up()
        elif self._arrived_s and self._arrived_s[0] < too_long_s:
            late = bisect.bisect(self._arrived_s, too_long_s)
            behind = self._waiting[:late]
            del self._waiting[:late], self._arrived_s[:late]
            self._answer(behind, [Refused(Reason.UNAVAILABLE, self._clock.now_ms() + RETRY_MS)] * late)
        self._watch = asyncio.get_running_loop().call_later(self._patience_s / 16, self._look_after)

    def _give_up(self) -> None:
        in_doubt = [each for _, batch in self._committing.values() for each in batch]
        log.error("ledger_stuck", waiting=len(self._waiting), committing=len(in_doubt))
        self._hung += len(self._committing)
        self._committing.clear()
        later_ms = self._clock.now_ms() + RETRY_MS
        behind, self._waiting = self._waiting, []
        self._arrived_s.clear()
        self.stats.unknown += len(in_doubt)
        self._answer(in_doubt, [Refused(Reason.UNKNOWN, later_ms)] * len(in_doubt))
        self._answer(behind, [Refused(Reason.UNAVAILABLE, later_ms)] * len(behind))

    # --- one call each ----------------------------------------------------------------------

    def new_id(self, sale: str, buyer: str) -> str:
        """An id for a new reservation of `buyer` in `sale` that nobody can guess."""
        return self._ledger.new_id(sale, buyer)

    async def execute(self, command: m.Command) -> m.Outcome:
        """The outcome of `command`, durable before this returns."""
        if (refused := unheard_of(command)) is not None:
            return refused
        outcome: asyncio.Future[m.Outcome] = asyncio.get_running_loop().create_future()

        def reply(value: m.Outcome) -> None:
            if not outcome.done():  # the caller may have been cancelled meanwhile
                outcome.set_result(value)

        self.offer(command, reply)
        return await outcome

    async def reserve(
        self, sale: str, item: str, buyer: str, quantity: int = 1, *, key: str = ""
    ) -> m.Reserved | Refused:
        """Hold `quantity` units of `item` for `buyer`, all or nothing.

        With a `key`, repeating the call is safe: it returns the first reservation again.

        Returns `Reserved` when the hold is durable, `Refused` with the reason when there is none.

        Raises:
            InvalidRequest: an argument is outside its bounds; nothing happened.
        """
        check_reserve(item, buyer, quantity, key)
        refused = self.refusal(sale, item, key)
        if refused is not None:
            return refused
        outcome = await self.execute(m.Reserve(self.new_id(sale, buyer), sale, item, buyer, quantity, key))
        return _expect(outcome, m.Reserved)

    async def confirm(self, id: str, payment: str) -> m.Changed | Refused:
        """HELD -> PAID, settled by `payment`. The ledger decides between this and the expiry.

        Raises:
            InvalidRequest: `payment` is not a text of 1 to 128 printable characters; nothing happened.
        """
        check_payment(payment)
        return _expect(await self.execute(m.Confirm(id, payment)), m.Changed)

    async def cancel(self, id: str) -> m.Changed | Refused:
        """HELD -> CANCELLED; the units can be bought again at once."""
        return _expect(await self.execute(m.Cancel(id)), m.Changed)

    async def refund(self, id: str) -> m.Changed | Refused:
        """PAID -> REFUNDED; the units can be bought again at once."""
        return _expect(await self.execute(m.Refund(id)), m.Changed)

    async def create_sale(self, sale: m.Sale) -> m.SaleChanged | Refused:
        """Put a sale into the ledger; the same one again is harmless."""
        return _expect(await self.execute(m.CreateSale(sale)), m.SaleChanged)

    async def open_sale(self, sale: str) -> m.SaleChanged | Refused:
        """Open a sale now."""
        return _expect(await self.execute(m.OpenSale(sale)), m.SaleChanged)

    async def close_sale(self, sale: str) -> m.SaleChanged | Refused:
        """Close a sale now; what is held may still be paid."""
        return _expect(await self.execute(m.CloseSale(sale)), m.SaleChanged)

    async def add_stock(self, sale: str, item: str, units: int, *, key: str) -> m.SaleChanged | Refused:
        """Add `units` to the capacity of an item, once for each `key`."""
        check_units(units)
        check_key(key)
        return _expect(await self.execute(m.AddStock(sale, item, units, key)), m.SaleChanged)

    def now_ms(self) -> int:
        """The time this desk decides by."""
        return self._clock.now_ms()

    def sales(self) -> list[m.Sale]:
        """All sales."""
        return self._ledger.sales()

    def stock(self, sale: str) -> m.Stock | None:
        """Levels of a sale after the last commit; None for an unknown one."""
        return self._ledger.stock(sale)

    async def reservation(self, id: str) -> m.Reservation | None:
        """A committed reservation; None for an unknown id. Raises LedgerUnavailable after `patience_s`."""
        return await self._soon(self._ledger.reservation(id)) if is_id(id) else None

    async def reservation_for(self, sale: str, buyer: str, key: str) -> m.Reservation | None:
        """The committed reservation that `buyer` made in `sale` under `key`."""
        return await self._soon(self._ledger.reservation_for(sale, buyer, key))

    async def _soon(self, read: Awaitable[_R]) -> _R:
        """What the ledger reads, if it does within `patience_s`."""
        try:
            async with asyncio.timeout(self._patience_s):
                return await read
        except TimeoutError as error:
            raise LedgerUnavailable(f"the ledger did not answer within {self._patience_s:g} s") from error

    async def events(self, after: int = 0, limit: int = EVENTS_AT_ONCE) -> list[tuple[int, AnyEvent]]:
        """At most `limit` committed events with numbers above `after`, in order."""
        return await self._ledger.events(after, limit)

    async def state(self) -> audit.LedgerState:
        """What the ledger holds in memory to be true."""
        return await self._ledger.state()

    async def audit(self) -> audit.AuditReport:
        """Check I1 to I8 on the whole journal against the ledger's memory. The sale goes on meanwhile."""
        state = await self._ledger.state()
        history: list[AnyEvent] = []
        while page := await self._ledger.events(len(history), min(EVENTS_AT_ONCE, state.seq - len(history))):
            history += [event for _, event in page]
        return await asyncio.to_thread(audit.audit, history, state=state, now_ms=self.now_ms())

    @property
    def waiting(self) -> int:
        """Commands that wait for a batch."""
        return len(self._waiting)

    @property
    def ledger_calls(self) -> Mapping[str, int]:
        """Calls that the ledger has made to its server, by name."""
        return self._ledger.calls()


def _expect(outcome: m.Outcome, kind: type[_T]) -> _T | Refused:
    if isinstance(outcome, (kind, Refused)):
        return outcome
    raise TicketrushError(f"the ledger answered {type(outcome).__name__} instead of {kind.__name__}")
