"""A sale in the lab: opened, bought from through the virtual address, and audited at the end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import msgspec

from ticketrush import audit, processes
from ticketrush.audit import AuditReport, LedgerState
from ticketrush.crowd.errors import CrowdError
from ticketrush.crowd.operator import Operator
from ticketrush.events import AnyEvent
from ticketrush.lab import programs
from ticketrush.lab.errors import LabError
from ticketrush.lab.lab import AUDIENCE, Lab
from ticketrush.lab.netns import inside
from ticketrush.lab.plan import BUYERS, CLIENTS, PORT, VIRTUAL
from ticketrush.lab.visit import Progress, Seen, Visit, was_asked

SALE: Final = "lab"
ITEM: Final = "ticket"
HOLD_S: Final = 300
"""Longer than any fault: nothing expires meanwhile."""

WELL_S: Final = 30.0
"""How long the nodes may take to answer the auditor."""


@dataclass(frozen=True, slots=True)
class Crowd:
    """Who comes: more buyers than tickets, so many a second."""

    buyers: int = 1_400
    tickets: int = 1_000
    per_second: float = 100.0


class Sale:
    """A sale that goes on; `seen` when it is over."""

    def __init__(self, lab: Lab, crowd: Crowd) -> None:
        self.lab, self.crowd = lab, crowd
        self.visit = Visit(
            host=VIRTUAL,
            port=PORT,
            sale=SALE,
            item=ITEM,
            buyers=crowd.buyers,
            per_second=crowd.per_second,
            secret=lab.secret.encode(),
            audience=AUDIENCE,
            expires_at_s=int(time.time()) + 3_600,
            come_from=BUYERS,
        )
        self._child: processes.Child | None = None

    def open(self) -> None:
        """Put the sale into the ledger, and let the buyers come."""
        with self._operator() as operator:
            operator.open_sale(SALE, ITEM, self.crowd.tickets, 1, HOLD_S)
        plan = self.lab.folder / "visit"
        plan.touch(0o600)
        plan.write_bytes(msgspec.msgpack.encode(self.visit))
        self._child = programs.start_buyers(self.lab.host(CLIENTS), plan, self.lab.folder / "seen")

    @property
    def child(self) -> processes.Child:
        """The buyers' process."""
        assert self._child is not None
        return self._child

    def progress(self) -> Progress | None:
        """How far the buyers are; None if they have not begun."""
        whole = self.child.stdout.read_bytes().rpartition(b"\n")[0]
        last = whole.rpartition(b"\n")[2]
        return msgspec.json.decode(last, type=Progress) if last else None

    def wait_until(self, is_so: Callable[[Progress], bool], within_s: float, what: str) -> Progress:
        """Wait until the progress is so. Raises LabError if the buyers end before, or after `within_s`."""
        give_up_s = time.monotonic() + within_s
        while time.monotonic() < give_up_s and not self.child.ended:
            now = self.progress()
            if now is not None and is_so(now):
                return now
            time.sleep(0.02)
        raise LabError(f"waited in vain for {what}; the buyers: {self.progress()} {self.child.words()}")

    def finish(self) -> Seen:
        """Wait until every buyer has a final answer; what they saw.

        Raises:
            LabError: they do not come to an end.
        """
        most_s = self.crowd.buyers / self.crowd.per_second + self.visit.give_up_s + 30
        give_up_s = time.monotonic() + most_s
        while not self.child.ended:
            if time.monotonic() > give_up_s:
                raise LabError(f"the buyers have not come to an end within {most_s:g} s: {self.progress()}")
            time.sleep(0.05)
        if self.child.exit_code != 0:
            raise LabError(f"the buyers could not go on: {self.child.words()}")
        return msgspec.msgpack.decode((self.lab.folder / "seen").read_bytes(), type=Seen)

    def audit(self, seen: Seen) -> AuditReport:
        """I1..I8 over the whole journal, against what the buyers were told.

        Raises:
            LabError: no node gives its journal.
        """
        state, events = self._journal()
        return audit.audit(
            events,
            state=state,
            told=seen.told,
            asked_for=lambda buyer, key: was_asked(self.visit, buyer, key),
            demand_exceeds_capacity=seen.sold_out > 0,
        )

    def _journal(self) -> tuple[LedgerState, list[AnyEvent]]:
        """What the ledger claims to be, and its events, once a node gives them."""
        give_up_s = time.monotonic() + WELL_S
        while True:
            try:
                with self._operator() as operator:
                    return operator.state(), list(operator.events())
            except CrowdError as error:
                if time.monotonic() > give_up_s:
                    raise LabError(f"no node gives its journal within {WELL_S:g} s: {error}") from error
                time.sleep(0.1)

    @contextlib.contextmanager
    def _operator(self) -> Iterator[Operator]:
        """An operator who sits at a node that runs: what it asks does not depend on the front door."""
        node = self.lab.living()[-1]
        with inside(node.host), contextlib.closing(Operator([node.url], self.lab.secret.encode(), AUDIENCE)) as made:
            yield made
