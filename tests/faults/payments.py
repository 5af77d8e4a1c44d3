"""Nodes, a test gateway, buyers whose payments come about when their holds end; and both books held together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.faults.line import Cut, Line
from tests.faults.nursery import Child, Patch
from tests.gateways import SECRET, Gateway
from ticketrush.cluster.ports import free_port
from ticketrush.processes import running_of

PRICE: Final = 700
CAPACITY: Final = 25
BUYERS: Final = 24
HOLD_MS: Final = 120
"""About as long as a payment takes here, so that many come just before and just after."""

PAGE: Final = 10_000


@dataclass
class Ledger:
    """What the events of the ledger say of payments."""

    sold: Counter[str] = field(default_factory=Counter)
    """Payment -> reservations that are paid by it now."""
    states: Counter[str] = field(default_factory=Counter)
    """How many reservations ended in which state."""
    replacements: int = 0


class Till:
    """A gateway, and nodes that take payments through it: all at fixed ports, to be killed and started again."""

    def __init__(self, folder: Path, seed: int, *gateway_flags: str, ledger: str | None = None, nodes: int = 1) -> None:
        self.folder, self.ledger = folder, ledger
        self.dice = random.Random(seed)
        self.gateway_flags = ("--seed", str(seed), *gateway_flags)
        self.gateway_port, *self.ports = (free_port() for _ in range(nodes + 1))
        self.nodes: list[Child] = []
        self.sales = 0
        self.said: Counter[int] = Counter()
        """What payments were answered."""
        self.gateway = self._start_gateway()

    def _start_gateway(self) -> Gateway:
        urls = [f"http://127.0.0.1:{port}" for port in self.ports]
        return Gateway(self.folder, self.gateway_port, urls, *self.gateway_flags)

    def restart_gateway(self) -> None:
        """Start it again on its book, after it was killed."""
        self.gateway = self._start_gateway().serving()

    async def begin(self, *patches: Patch) -> None:
        """Start the nodes, and wait until all is ready."""
        self.nodes = [self.node(number, *patches) for number in range(len(self.ports))]
        await asyncio.gather(*(node.serving() for node in self.nodes))
        await asyncio.to_thread(self.gateway.serving)

    def node(self, number: int, *patches: Patch) -> Child:
        """A node at its port; the one that was there must have ended."""
        place = self.folder / f"node-{number}"
        place.mkdir(exist_ok=True)
        variables = {
            "TICKETRUSH_PAYMENT_GATEWAY": f"http://127.0.0.1:{self.gateway_port}",
            "TICKETRUSH_WEBHOOK_SECRETS": SECRET,
        }
        port = str(self.ports[number])
        return Child(place, "--port", port, ledger=self.ledger, patches=patches, variables=variables)

    async def restart(self, number: int = 0) -> None:
        """``kill -9`` a node, and start it again at its port."""
        self.nodes[number].kill()
        self.nodes[number] = self.node(number)
        await self.nodes[number].serving()

    def end(self) -> None:
        """Leave no process behind."""
        for node in self.nodes:
            node.kill()
        if running_of([self.gateway.process.pid]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.gateway.process.pid, signal.SIGCONT)
        self.gateway.stop()

    # --- buyers -----------------------------------------------------------------------------

    async def sale(self, capacity: int = CAPACITY, hold_window_ms: int = HOLD_MS) -> str:
        """Open another sale."""
        self.sales += 1
        sale = f"s{self.sales}"
        items = [{"id": "second", "capacity": capacity, "price_minor": PRICE}]
        body = {"items": items, "hold_window_s": hold_window_ms / 1_000}
        while True:
            try:
                async with Line(self.ports[0]) as line:
                    assert (await line.call("PUT", f"/v1/sales/{sale}", body)).status in {200, 201}
                    assert (await line.call("POST", f"/v1/sales/{sale}/open")).status == 200
                    return sale
            except Cut:
                await asyncio.sleep(0.05)

    async def hold(self, sale: str, buyer: str = "ada") -> str:
        """An order; its id."""
        async with Line(self.ports[0]) as line:
            answer = await line.call("POST", f"/v1/sales/{sale}/reservations", {"item": "second"}, buyer=buyer)
            assert answer.status == 201, answer
            return str(answer.json()["id"])

    async def pay(self, order: str, card: str = "approve", delay_ms: int = 0, buyer: str = "ada") -> tuple[int, Any]:
        """Pay an order; the status and the body."""
        async with Line(self.ports[0]) as line:
            body = {"card": card, "delay_ms": delay_ms}
            answer = await line.call("POST", f"/v1/orders/{order}/payment", body, buyer=buyer)
            return answer.status, answer.json()

    async def order(self, order: str, buyer: str = "ada") -> dict[str, Any]:
        """An order as its buyer reads it."""
        async with Line(self.ports[0]) as line:
            read: dict[str, Any] = (await line.call("GET", f"/v1/orders/{order}", buyer=buyer)).json()
            return read

    async def races(self, count: int) -> int:
        """At least `count` payments that race against the expiry of their holds; how many there were."""
        raced = 0
        while raced < count:
            sale = await self.sale()
            raced += sum(await asyncio.gather(*(self._race(sale, number) for number in range(BUYERS))))
        return raced

    async def _race(self, sale: str, number: int) -> int:
        """One buyer after the other on one connection, until the sale is sold out; the payments they began."""
        raced, port = 0, self.dice.choice(self.ports)
        async with Line(port) as line:
            while True:
                buyer = f"b{number}"
                try:
                    answer = await line.call("POST", f"/v1/sales/{sale}/reservations", {"item": "second"}, buyer=buyer)
                    if answer.status == 201:
                        raced += 1
                        body = {"card": "approve", "delay_ms": self._delay_ms()}
                        paid = await line.call("POST", f"/v1/orders/{answer.json()['id']}/payment", body, buyer=buyer)
                        self.said[paid.status] += 1
                    elif answer.code == "sold_out":
                        return raced
                    else:
                        await asyncio.sleep(0.005)
                except Cut:
                    await asyncio.sleep(0.05)

    def _delay_ms(self) -> int:
        """When the gateway decides: at once, or about when the hold ends."""
        return self.dice.choice((0, round(max(1.0, self.dice.gauss(HOLD_MS, HOLD_MS / 6)))))

    # --- the books --------------------------------------------------------------------------

    async def ledger_says(self) -> Ledger:
        """Fold the ledger's events."""
        state: dict[str, str] = {}
        payment: dict[str, str] = {}
        said = Ledger()
        async with Line(self.ports[0]) as line:
            after = 0
            while True:
                page = (await line.call("GET", f"/v1/audit/events?after={after}&limit={PAGE}")).json()
                for event in page["events"]:
                    if event["type"] in {"held", "paid", "cancelled", "expired", "refunded"}:
                        state[event["id"]] = event["type"]
                    if event["type"] == "paid":
                        payment[event["id"]] = event["payment"]
                    said.replacements += event["type"] == "held" and event["key"].startswith("late payment of ")
                if page["next"] is None:
                    break
                after = page["next"]
            assert (await line.call("GET", "/v1/audit")).json()["ok"]
        said.sold = Counter(payment[id] for id, now in state.items() if now == "paid")
        said.states = Counter(state.values())
        return said

    async def settled(self, within_s: float = 60.0) -> tuple[list[dict[str, Any]], Ledger]:
        """Wait until the gateway has told everything, and hold both books together."""
        await asyncio.to_thread(self.gateway.quiet, within_s)
        book = await asyncio.to_thread(self.gateway.charges)
        ledger = await self.ledger_says()
        wrong = [charge for charge in book if (charge["state"] == "approved") != (ledger.sold[charge["id"]] == 1)]
        assert not wrong, f"{len(wrong)} of {len(book)} charges, such as {wrong[:3]}: {self.nodes[0].errors()}"
        kept = Counter(charge["order"] for charge in book if charge["state"] == "approved")
        assert not [order for order, times in kept.items() if times > 1], "an order was charged twice"
        assert sum(ledger.sold.values()) == len(kept), "a unit was sold without money"
        return book, ledger


@contextlib.contextmanager
def till(folder: Path, seed: int, *flags: str, ledger: str | None = None, nodes: int = 1) -> Iterator[Till]:
    """A till whose processes are gone afterwards."""
    made = Till(folder, seed, *flags, ledger=ledger, nodes=nodes)
    try:
        yield made
    finally:
        made.end()
