"""The crowd at work: its connections, and the pace at which buyers are sent.

Closed loop: every connection sends its next request when it has the answer to the last. Open loop
(`Plan.arrivals` > 0): buyers arrive at an even pace whatever the server does; a buyer for whom no
connection is free waits, and the wait counts: latency is measured from the moment at which the
buyer meant to ask (no coordinated omission, see https://github.com/giltene/wrk2).
"""

from __future__ import annotations

import asyncio
import functools
import random
import time
from collections import deque
from typing import Final, cast

from ticketrush.crowd import history as h
from ticketrush.crowd.agenda import NS_PER_S, Agenda, Job
from ticketrush.crowd.behaviour import Behaviour
from ticketrush.crowd.buyers import CUTS, CUTS_HALFWAY, Buyers
from ticketrush.crowd.errors import CrowdError, NoAnswer
from ticketrush.crowd.forms import Forms
from ticketrush.crowd.histogram import quantile_us
from ticketrush.crowd.wire import Memo, Reply, Wire

CUT_AFTER_S: Final = 0.003
"""How long a buyer who cuts the connection lets the server work first."""

TICK_S: Final = 0.001
SWEEP_S: Final = 0.5
CONNECT_S_MAX: Final = 10.0
REFUSED_S_MAX: Final = 3.0
"""The same for a server that refuses at once: nobody listens there; it may be starting again."""


class Crowd:
    """All buyers of one plan. `run` sends them; `ready`, `answered`, `lost` are for the connections."""

    def __init__(self, plan: h.Plan) -> None:
        self.plan = plan
        self.start_ns = 0
        self._came_ns = self._came_answers = 0
        self._buyers = Buyers(plan.seed, plan.shares)
        self._agenda = Agenda(self._buyers, plan.buyers, plan.arrivals)
        self._behaviour = Behaviour(plan, self._buyers, self._agenda)
        self._forms = Forms(plan, self._buyers)
        self._memo = Memo()
        self._wires: set[Wire] = set()
        self._idle: deque[Wire] = deque()
        """The one that has rested longest is the next: so each door gets the share of its connections."""
        self._connecting: set[asyncio.Task[None]] = set()
        self._failure: CrowdError | None = None
        self._stopping = False
        self._requests = [0] * len(plan.doors)
        self._all_gone = asyncio.Event()

    @property
    def milestone(self) -> asyncio.Event:
        """Set when as many tickets are paid as the plan wants to hear of; whoever waits clears it."""
        return self._behaviour.milestone

    async def run(self) -> bool:
        """Send everybody. True if all was done before the time limit.

        Raises:
            NoAnswer: no door takes connections.
        """
        for number, door in enumerate(self.plan.doors):
            for _ in range(door.connections):
                self._open_wire(number)
        await asyncio.gather(*self._connecting)
        now = sweep_ns = self.start_ns = time.perf_counter_ns()
        self._agenda.start(now)
        deadline_ns = now + int(self.plan.time_limit_s * NS_PER_S)
        while not self._finished() and now < deadline_ns and self._failure is None:
            self._wake(now)
            if not self._came_ns and self._agenda.next_index >= self.plan.buyers:
                self._came_ns, self._came_answers = now, sum(self._behaviour.answers)
                deadline_ns = min(deadline_ns, now + int(self.plan.linger_s * NS_PER_S))
            if now >= sweep_ns:
                self._sweep(now)
                sweep_ns = now + int(SWEEP_S * NS_PER_S)
            await asyncio.sleep(TICK_S)
            now = time.perf_counter_ns()
        finished = self._finished()
        await self._stop()
        if self._failure is not None:
            raise self._failure
        return finished

    @property
    def seconds(self) -> float:
        """Seconds since the first request."""
        return (time.perf_counter_ns() - self.start_ns) / NS_PER_S if self.start_ns else 0.0

    def _finished(self) -> bool:
        return self._agenda.done and not any(wire.busy for wire in self._wires)

    def _wake(self, now: int) -> None:
        """Give idle connections the work that has become due."""
        self._agenda.wake(now)
        while self._idle and self._agenda.waiting:
            self._next(self._idle.popleft(), now)

    def _sweep(self, now: int) -> None:
        """Break off connections that waited too long for an answer: its fate is unknown."""
        oldest_ns = now - int(self.plan.timeout_s * NS_PER_S)
        for wire in [wire for wire in self._wires if wire.busy and wire.sent_ns < oldest_ns]:
            wire.cut()

    async def _stop(self) -> None:
        self._stopping = True
        for wire in self._wires:
            wire.cut()
        if self._wires:
            await self._all_gone.wait()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        self._behaviour.leave(self._agenda.clear())

    # --- connections --------------------------------------------------------------------------

    def _open_wire(self, home: int, silent: int = -1) -> None:
        task = asyncio.get_running_loop().create_task(self._connect(home, silent))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, home: int, silent: int) -> None:
        """Connect to the first door that takes us; the one that did not answer is tried last."""
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        doors = self.plan.doors
        patience_s, why = CONNECT_S_MAX, ""
        while not self._stopping:
            for number in self._ways(home, silent):
                door = doors[number]
                try:
                    make = functools.partial(Wire, self, self._memo, home, number)
                    await loop.create_connection(make, door.host, door.port)
                    return
                except OSError as error:
                    patience_s = REFUSED_S_MAX if isinstance(error, ConnectionRefusedError) else CONNECT_S_MAX
                    why = error.strerror or str(error)
            if loop.time() > start_s + patience_s:
                where = ", ".join(f"{door.host}:{door.port}" for door in doors)
                self._failure = NoAnswer(f"no connection to {where} for {patience_s:g} s: {why}")
                return
            await asyncio.sleep(0.05)

    def _ways(self, home: int, silent: int) -> list[int]:
        """The doors in the order in which to try them: home, then the others, each as likely as its connections.

        The order of the others is a weighted draw without replacement (Efraimidis and Spirakis 2006).
        """
        if len(self.plan.doors) == 1:
            return [home]
        drawn = {n: random.random() ** (1 / max(door.connections, 0.01)) for n, door in enumerate(self.plan.doors)}
        return sorted(drawn, key=lambda n: (n == silent, n != home, -drawn[n]))

    def ready(self, wire: Wire) -> None:
        """A connection can be used."""
        if self._stopping:
            wire.cut()
            return
        self._wires.add(wire)
        if self.start_ns:
            self._next(wire, time.perf_counter_ns())
        else:
            self._idle.append(wire)

    def lost(self, wire: Wire, *, in_flight: bool) -> None:
        """A connection is gone. What was in flight is unknown: the buyer asks again with the same key.

        The connection goes home then, unless the door has left it without an answer.
        """
        self._wires.discard(wire)
        if wire in self._idle:
            self._idle.remove(wire)
        silent = -1
        if in_flight:
            job = cast("Job", wire.job)
            silent = -1 if _breaks_off(job) else wire.door
            self._behaviour.hear_nothing(job, time.perf_counter_ns())
        if not self._stopping:
            self._open_wire(wire.home, silent)
        elif not self._wires:
            self._all_gone.set()

    def answered(self, wire: Wire, reply: Reply) -> None:
        """A buyer has an answer; the connection is free for the next."""
        now = time.perf_counter_ns()
        self._behaviour.hear(cast("Job", wire.job), reply, (now - wire.started_ns) // 1_000, now)
        if reply.keep_alive and not self._stopping:
            self._next(wire, now)

    def _next(self, wire: Wire, now: int) -> None:
        """Let `wire` send the request whose turn it is, if there is one."""
        job = self._agenda.take()
        if job is None:
            self._idle.append(wire)
            return
        if job.order:
            request = self._forms.pay(job.index, job.order)
        else:
            request = self._forms.reserve(job.index, job.wish, job.quantity)
        wire.job = job
        wire.started_ns = job.due_ns or now
        wire.sent_ns = now
        self._requests[wire.door] += 1
        if _breaks_off(job):
            wire.send_and_cut(request[: len(request) // 2] if job.manners & CUTS_HALFWAY else request, CUT_AFTER_S)
        else:
            wire.send(request)

    # --- what the crowd reports ---------------------------------------------------------------

    def progress(self, before: list[int]) -> tuple[h.Progress, list[int]]:
        """How far it is, and the latency counts of now, to be passed as `before` the next time."""
        parts = [part.counts for part in self._behaviour.latencies.values()]
        counts = [sum(column) for column in zip(*parts, strict=True)]
        interval = [new - old for new, old in zip(counts, before, strict=True)] if before else counts
        answers = list(self._behaviour.answers)
        return h.Progress(self.seconds, self._agenda.next_index, answers, quantile_us(interval, 0.99)), counts

    def history(self, *, finished: bool, seconds: float, cpu_s: float) -> h.History:
        """All that the buyers saw."""
        seen = self._behaviour
        surge_s = (seen.surge_ns - self.start_ns) / NS_PER_S if seen.surge_ns else seconds
        return h.History(
            buyers=self._agenda.next_index,
            answers=seen.answers,
            told=seen.told,
            latencies={name: h.Latencies(of.sparse(), of.largest_us) for name, of in seen.latencies.items()},
            seconds=seconds,
            cpu_s=cpu_s,
            surge_reservations=min(seen.surge_goal, len(seen.told.acknowledged)),
            surge_s=surge_s,
            left_sold_out=seen.left_sold_out,
            gave_up=seen.gave_up,
            left_waiting=seen.left_waiting,
            finished=finished,
            samples=seen.samples,
            requests=self._requests,
            came_s=(self._came_ns - self.start_ns) / NS_PER_S if self._came_ns else 0.0,
            came_answers=self._came_answers,
        )


def _breaks_off(job: Job) -> bool:
    """Whether the buyer is one who breaks the connection off, and does so this time."""
    return bool(job.manners & CUTS) and job.first
