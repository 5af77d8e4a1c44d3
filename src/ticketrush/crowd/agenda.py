"""Whose turn it is: new buyers, those who come back, and what cannot wait.

New buyers are a number that counts up. In an open loop it counts as far as the clock says, so a
backlog of any length takes no memory.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import Final

import msgspec

from ticketrush.crowd.buyers import REPEATS_AT_ONCE, Buyers

COMEBACK_TURN: Final = 8
"""While new buyers arrive, those who come back get one turn in so many."""

NS_PER_S: Final = 1_000_000_000


class Job(msgspec.Struct, gc=False):
    """One request that a buyer wants to make: a reservation, or the payment of `order`.

    `due_ns` is when the buyer meant to make it, 0 for "when a connection is free". `twice` marks
    the second copy of a request sent twice, `back` a buyer who waits in the pool for a held unit.
    """

    index: int
    manners: int = 0
    wish: int = 0
    quantity: int = 1
    order: str = ""
    tries: int = 0
    due_ns: int = 0
    twice: bool = False
    back: bool = False

    @property
    def first(self) -> bool:
        """Whether this is the first request that its buyer makes."""
        return not (self.order or self.tries or self.wish or self.twice or self.back)


class Agenda:
    """Decides what is sent next. `arrivals` is buyers per second, 0 for "as fast as they are served"."""

    __slots__ = ("_arrivals", "_buyers", "_comebacks", "_count", "_due", "_later", "_serial", "_start_ns", "_turn",
                 "next_index", "urgent")  # fmt: skip

    def __init__(self, buyers: Buyers, count: int, arrivals: float) -> None:
        self.next_index = 0
        self.urgent: deque[Job] = deque()
        self._buyers = buyers
        self._count = count
        self._arrivals = arrivals
        self._due = 0 if arrivals else count
        self._start_ns = 0
        self._comebacks: deque[Job] = deque()
        self._later: list[tuple[int, int, Job]] = []
        self._serial = 0
        self._turn = 0

    @property
    def done(self) -> bool:
        """Whether everybody came and nobody wants to come again."""
        return self.next_index >= self._count and not (self.urgent or self._comebacks or self._later)

    @property
    def waiting(self) -> bool:
        """Whether `take` has a job now."""
        return bool(self.urgent or self._comebacks or self.next_index < self._due)

    def start(self, now: int) -> None:
        """The doors open."""
        self._start_ns = now

    def wake(self, now: int) -> None:
        """Let those come whose time it is."""
        later = self._later
        while later and later[0][0] <= now:
            job = heappop(later)[2]
            (self._comebacks if job.back and not job.tries else self.urgent).append(job)
        if self._arrivals:
            self._due = min(self._count, int((now - self._start_ns) * self._arrivals / NS_PER_S) + 1)

    def take(self) -> Job | None:
        """The job whose turn it is, None if there is none now."""
        if self.urgent:
            return self.urgent.popleft()
        self._turn += 1
        if self.next_index < self._due and (self._turn % COMEBACK_TURN or not self._comebacks):
            return self._newcomer()
        return self._comebacks.popleft() if self._comebacks else None

    def _newcomer(self) -> Job:
        index = self.next_index
        self.next_index = index + 1
        manners = self._buyers.manners(index)
        due_ns = self._start_ns + int(index * NS_PER_S / self._arrivals) if self._arrivals else 0
        if manners & REPEATS_AT_ONCE:
            self.urgent.append(Job(index, manners, due_ns=due_ns, twice=True))
        return Job(index, manners, due_ns=due_ns)

    def put_off(self, job: Job, now: int, wait_s: float) -> None:
        """Let `job` come after `wait_s`."""
        due_ns = now + int(wait_s * NS_PER_S)
        if self._arrivals:
            job.due_ns = due_ns
        self._serial += 1
        heappush(self._later, (due_ns, self._serial, job))

    def clear(self) -> list[Job]:
        """Forget everything; returns what had not come yet."""
        jobs = [*self.urgent, *self._comebacks, *(job for _, _, job in self._later)]
        self.urgent.clear()
        self._comebacks.clear()
        self._later.clear()
        return jobs
