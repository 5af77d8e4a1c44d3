"""What the buyers do with the answers they get, and what they remember of them.

Nothing is kept of a buyer who loses. Who is told that all is held may wait in a pool of bounded
size and come back after Retry-After.
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from ticketrush.audit import Told
from ticketrush.crowd import buyers as manner
from ticketrush.crowd import history as h
from ticketrush.crowd.agenda import Agenda, Job
from ticketrush.crowd.buyers import Buyers
from ticketrush.crowd.histogram import Histogram
from ticketrush.crowd.wire import Reply

TRIES_MAX: Final = 8
"""How often a buyer repeats a request whose fate is unknown, or that was told to come later."""

PENDING_MAX: Final = 40
"""How often a buyer asks for the result of a payment."""

SURGE_SHARE: Final = 0.99
SAMPLES_MAX: Final = 10
_THINK_S_MAX: Final = 0.5

_REFUSALS: Final = {"sold_out": h.SOLD_OUT, "all_held": h.ALL_HELD, "purchase_limit": h.PURCHASE_LIMIT}


class _Made(msgspec.Struct):
    id: str
    sale: str
    item: str
    quantity: int
    state: str


class _Order(msgspec.Struct):
    id: str
    state: str
    replaced_by: str | None = None


class _Payment(msgspec.Struct):
    state: str


class _Receipt(msgspec.Struct):
    order: _Order
    payment: _Payment


class Behaviour:
    """The buyers of one plan."""

    def __init__(self, plan: h.Plan, buyers: Buyers, agenda: Agenda) -> None:
        self.answers = [0] * len(h.ANSWERS)
        self.told = Told()
        self.samples: list[h.Sample] = []
        self.latencies = {name: Histogram() for name in ("reservation", "refusal", "payment")}
        self.left_sold_out = self.gave_up = self.left_waiting = 0
        self.surge_goal = max(1, int(SURGE_SHARE * min(plan.tickets, plan.buyers)))
        self.surge_ns = 0
        self.milestone = asyncio.Event()
        self._milestones = sorted(plan.milestones, reverse=True)
        self._plan = plan
        self._buyers = buyers
        self._agenda = agenda
        self._record_refusal = self.latencies["refusal"].record
        self._think_s = min(_THINK_S_MAX, plan.hold_s / 8)

    def hear(self, job: Job, reply: Reply, latency_us: int, now: int) -> None:
        """The buyer of `job` has an answer. Most are refusals, so these come first."""
        kind = _REFUSALS.get(reply.code)
        if kind is None or job.order:
            self._settle(job, reply, latency_us, now)
        else:
            self.answers[kind] += 1
            self._record_refusal(latency_us)
            if not (job.wish or job.twice):
                if kind == h.ALL_HELD:
                    self._wait_for_a_hold(job, reply, now)
                else:
                    self.left_sold_out += kind == h.SOLD_OUT
                    self.left_waiting -= job.back
        if job.manners & manner.REPEATS and job.first and not job.manners & manner.REPEATS_AT_ONCE:
            self._agenda.urgent.appendleft(Job(job.index, job.manners, twice=True))

    def hear_nothing(self, job: Job, now: int) -> None:
        """The connection broke: what was asked may or may not have happened."""
        self.answers[h.UNKNOWN] += 1
        self._again(job, now, 0.02)

    def leave(self, jobs: list[Job]) -> None:
        """The time is up for these."""
        for job in jobs:
            if job.tries and not job.order:
                self._never_known(job)

    def _wait_for_a_hold(self, job: Job, reply: Reply, now: int) -> None:
        if not job.back:
            if self.left_waiting >= self._plan.comebacks_max:
                self.gave_up += 1
                return
            self.left_waiting += 1
        wait_s = max(reply.retry_after_s, 0.05) * (1 + self._buyers.fraction(job.index) / 2)
        self._agenda.put_off(Job(job.index, job.manners, back=True), now, wait_s)

    def _again(self, job: Job, now: int, wait_s: float, tries_max: int = TRIES_MAX) -> None:
        """Repeat a request under the same key, a bounded number of times."""
        job.tries += 1
        job.due_ns = 0
        if job.tries <= tries_max:
            self._agenda.put_off(job, now, wait_s * min(job.tries, 10))
            return
        self.left_waiting -= job.back
        if not job.order:
            self._never_known(job)

    def _never_known(self, job: Job) -> None:
        buyer, key = self._buyers.name(job.index), self._buyers.key(job.index, job.wish)
        self.told.unknown.append((buyer.decode(), key.decode()))

    # --- answers that are not refusals --------------------------------------------------------

    def _settle(self, job: Job, reply: Reply, latency_us: int, now: int) -> None:
        try:
            if reply.status in {429, 503}:
                self.answers[h.BUSY] += 1
                self._again(job, now, max(reply.retry_after_s, 0.05))
            elif job.order:
                self.latencies["payment"].record(latency_us)
                self._paid(job, reply, now)
            elif reply.status in {200, 201}:
                self.latencies["reservation"].record(latency_us)
                self._reserved(job, reply, now)
            else:
                self._error(job, reply)
        except msgspec.DecodeError:
            self._error(job, reply)

    def _error(self, job: Job, reply: Reply) -> None:
        self.answers[h.PAYMENT_ERROR if job.order else h.ERROR] += 1
        self.left_waiting -= job.back
        if len(self.samples) < SAMPLES_MAX:
            asked = f"payment of {job.order}" if job.order else f"reservation of {job.quantity}"
            text = reply.body[:300].decode(errors="replace")
            self.samples.append(h.Sample(f"{asked} by {self._buyers.name(job.index).decode()}", reply.status, text))

    def _reserved(self, job: Job, reply: Reply, now: int) -> None:
        made = msgspec.json.decode(reply.body, type=_Made)
        self.answers[h.HELD if reply.status == 201 else h.REPLAYED] += 1
        self.left_waiting -= job.back
        acknowledged = self.told.acknowledged
        if made.id in acknowledged:
            return
        buyer, key = self._buyers.name(job.index).decode(), self._buyers.key(job.index, job.wish).decode()
        acknowledged[made.id] = (buyer, key, made.sale, made.item, made.quantity)
        if len(acknowledged) == self.surge_goal:
            self.surge_ns = now
        if job.wish or made.state != "held":
            return
        if job.manners & manner.BREAKS_LIMIT:
            self._agenda.urgent.append(Job(job.index, wish=1, quantity=self._plan.limit))
        if not job.manners & manner.ABANDONS:
            think_s = self._buyers.fraction(job.index) * self._think_s
            self._agenda.put_off(Job(job.index, order=made.id), now, think_s)

    def _paid(self, job: Job, reply: Reply, now: int) -> None:
        if reply.status == 202:
            self.answers[h.PENDING] += 1
            self._again(job, now, 0.5, PENDING_MAX)
        elif reply.status == 409 and reply.code == "payment_refunded":
            self.answers[h.REFUNDED] += 1
        elif reply.status == 200:
            receipt = msgspec.json.decode(reply.body, type=_Receipt)
            order = receipt.order
            bought = order.id if order.state == "paid" else order.replaced_by
            if bought is None or receipt.payment.state != "approved":
                self._error(job, reply)
                return
            self.answers[h.PAID] += 1
            self.told.paid.add(bought)
            while self._milestones and self.answers[h.PAID] >= self._milestones[-1]:
                self._milestones.pop()
                self.milestone.set()
        else:
            self._error(job, reply)
