"""What makes orders behind the nodes: an order store, Kafka with its relay if wanted, and the workers.

Each part may be killed and started again; what was under way is done again, which is harmless.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import zlib
from collections.abc import Iterator
from typing import Final

from ticketrush import stop
from ticketrush.cluster.kafka import Kafka
from ticketrush.cluster.plan import OWN_KAFKA, OWN_POSTGRES, ClusterPlan
from ticketrush.cluster.postgres import Postgres
from ticketrush.cluster.program import Program
from ticketrush.cluster.server import LocalServer, running
from ticketrush.wiring import make_tables

_COMMAND: Final = (sys.executable, "-m", "ticketrush")


class BackOffice:
    """What runs. `orders` is the store's URL, `kafka` the brokers or ""; `servers` are ours, None if there before."""

    def __init__(self, orders: str, kafka: str) -> None:
        self.orders, self.kafka = orders, kafka
        self.postgres: Postgres | None = None
        self.broker: Kafka | None = None
        self.relay: Program | None = None
        self.workers: list[Program] = []

    @property
    def programs(self) -> list[Program]:
        """Ours that move events: the relay, if there is one, and the workers."""
        return [*([self.relay] if self.relay is not None else []), *self.workers]

    @property
    def servers(self) -> list[LocalServer]:
        """The servers of our own."""
        return [server for server in (self.postgres, self.broker) if server is not None]

    @property
    def everything(self) -> list[Program | LocalServer]:
        """Every process of ours, servers first."""
        return [*self.servers, *self.programs]


@contextlib.contextmanager
def backoffice(plan: ClusterPlan, ledger: str) -> Iterator[BackOffice]:
    """The servers of `plan` for orders, for as long as the block lasts; the store has its tables.

    Raises:
        ClusterError: something does not start, or is not installed.
    """
    with contextlib.ExitStack() as stack:
        made = BackOffice(plan.orders, plan.kafka)
        with stop.postponed():
            if plan.orders == OWN_POSTGRES:
                made.postgres = stack.enter_context(running(Postgres(plan.folder)))
                made.orders = made.postgres.url
            if plan.kafka == OWN_KAFKA:
                made.broker = stack.enter_context(running(Kafka(plan.folder)))
                made.kafka = made.broker.bootstrap
        asyncio.run(make_tables(made.orders))
        _plan_programs(made, plan, ledger)
        yield made


def _plan_programs(made: BackOffice, plan: ClusterPlan, ledger: str) -> None:
    flags, env = plan.settings_of(ledger, made.orders)
    common = ["--json", *flags]
    if made.kafka:
        common += ["--kafka", made.kafka]
        made.relay = Program("relay", plan.folder, [*_COMMAND, "relay", *common], env)
    mark = zlib.crc32(str(plan.folder).encode())  # two clusters on one Kafka have workers of different names
    for number in range(1, plan.workers + 1):
        command = [*_COMMAND, "work", *common, "--name", f"worker-{number}-{mark:08x}"]
        made.workers.append(Program(f"worker-{number}", plan.folder, command, env))


@contextlib.contextmanager
def working(made: BackOffice) -> Iterator[None]:
    """The relay and the workers run for as long as the block lasts.

    Raises:
        ClusterError: one does not start; has its last words.
    """
    with contextlib.ExitStack() as stack:
        with stop.postponed():
            stack.callback(_stop, made)
            for program in made.programs:
                program.launch()
        for program in made.programs:
            program.wait_until_ready()
        yield


def _stop(made: BackOffice) -> None:
    """Ask all at once, then wait for each."""
    with stop.postponed():
        for program in made.programs:
            program.ask_to_stop()
        for program in made.programs:
            program.stop()
