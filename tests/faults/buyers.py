"""Buyers who remember what they were told: the load of a sale that is going to be crashed.

They reserve, repeat, pay, pay late, cancel and abandon; an operator refunds and adds stock. What
was acknowledged goes into `Memory.told`; what was asked without an answer is asked again with the
same key after the restart.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from tests.faults.line import Answer, Cut, Line
from ticketrush.audit import Told

CONNECTIONS: Final = 40
LIMIT: Final = 4
HOLD_S: Final = 0.4
RESTOCK_KEY: Final = "restock"
KNOWN_S: Final = 5.0
"""Within which an operator's call is answered for certain, once all nodes sell."""

Ask = tuple[str, str, int]
"""Buyer, key, quantity."""

_REFUSALS: Final = {"sold_out", "all_held", "purchase_limit", "not_open", "unknown_sale", "unavailable"}


async def told(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """The answer, asked for again while it is not known: the replica of a new primary may still be on its way to it."""
    until_s = time.monotonic() + KNOWN_S
    while True:
        answer = await call()
        if answer.status != 503 or time.monotonic() > until_s:
            return answer
        await asyncio.sleep(0.1)


@dataclass
class Memory:
    """What all buyers of one journal know, over all its crashes."""

    told: Told = field(default_factory=Told)
    asked: set[tuple[str, str]] = field(default_factory=set)
    first: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """(buyer, key) -> the first answer."""
    told_at: dict[str, int] = field(default_factory=dict)
    """Reservation id -> port of the server that acknowledged it first."""
    gone: dict[str, str] = field(default_factory=dict)
    """Reservation id -> "cancelled" or "refunded", as acknowledged."""

    def was_asked(self, buyer: str, key: str) -> bool:
        """For the auditor: whether somebody asked for this; late payments ask under a key of their own."""
        return (buyer, key) in self.asked or key.removeprefix("late payment of ") in self.told.acknowledged

    def acknowledge(self, sale: str, ask: Ask, answer: Answer) -> str:
        """Remember a 201 or 200; the id. An answer that is not the first one again is a failure."""
        buyer, key, quantity = ask
        said = answer.json()
        if answer.status == 200:
            assert answer.headers["idempotent-replayed"] == "true"
        first = self.first.setdefault((buyer, key), said)
        for name in ("id", "sale", "item", "quantity", "held_at", "expires_at"):
            assert said[name] == first[name], f"a repetition got another {name}: {said}, first {first}"
        id = str(said["id"])
        self.told.acknowledged[id] = (buyer, key, sale, "second", quantity)
        return id


class Sale:
    """One sale and its buyers."""

    def __init__(self, name: str, capacity: int, memory: Memory, dice: random.Random) -> None:
        self.name, self.memory, self.dice = name, memory, dice
        self.capacity = capacity
        self.restock = dice.randrange(1, 20)
        self.in_doubt: set[Ask] = set()
        self.codes: Counter[str] = Counter()
        """How often a reservation was refused, by code; "" is a success."""
        self.answers = 0
        self.answered = asyncio.Event()
        self.kill_after = 0
        self._counted = 0

    @property
    def path(self) -> str:
        return f"/v1/sales/{self.name}"

    async def prepare(self, line: Line) -> None:
        """Create and open the sale, and add stock; doing it again is harmless."""
        items = [{"id": "second", "capacity": self.capacity, "purchase_limit": LIMIT, "price_minor": 500}]
        put = await told(lambda: line.call("PUT", self.path, {"items": items, "hold_window_s": HOLD_S}))
        assert put.status in {200, 201}, put
        opened = await told(lambda: line.call("POST", f"{self.path}/open"))
        assert opened.status == 200, opened
        stock = f"{self.path}/items/second/stock"
        added = await told(lambda: line.call("POST", stock, {"units": self.restock}, key=RESTOCK_KEY))
        assert added.status == 200, added

    async def is_open_at(self, port: int) -> None:
        """Wait until a node sells it; all but the one that was told of it hear of it within a moment."""
        async with Line(port) as line, asyncio.timeout(KNOWN_S):
            while True:
                said = await line.call("GET", self.path)
                if said.status == 200 and said.json()["state"] == "open":
                    return
                await asyncio.sleep(0.01)

    def _ask(self, quantity: int) -> Ask:
        self._counted += 1
        number = self._counted
        buyer = f"{self.name}-{number - number % 3 if self.dice.random() < 0.3 else number}"
        return buyer, f"k{number}", quantity

    def note(self) -> None:
        """Count an answer; the one who waits to kill the server hears of the last."""
        self.answers += 1
        if self.answers >= self.kill_after:
            self.answered.set()

    async def reserve(self, line: Line, ask: Ask) -> str | Answer:
        """The id of the reservation, or the refusal."""
        buyer, key, quantity = ask
        self.memory.asked.add((buyer, key))
        known = (buyer, key) in self.memory.first
        self.in_doubt.add(ask)
        answer = await line.call(
            "POST", f"{self.path}/reservations", {"item": "second", "quantity": quantity}, buyer=buyer, key=key
        )
        self.note()
        self.codes[answer.code] += 1
        if answer.status == 503:
            assert int(answer.headers["retry-after"]) >= 1, answer
        if answer.status in {200, 201}:
            self.in_doubt.discard(ask)
            id = self.memory.acknowledge(self.name, ask, answer)
            self.memory.told_at.setdefault(id, line.port)
            return id
        assert answer.code in _REFUSALS | {"unknown", "overloaded"}, answer
        assert not known or answer.code in {"unknown", "unavailable", "overloaded"}, f"forgotten: {ask} {answer}"
        if answer.code in _REFUSALS:
            self.in_doubt.discard(ask)
        return answer

    async def pay(self, line: Line, id: str, buyer: str, card: str = "approve", delay_ms: int = 0) -> bool:
        """Whether the payment was acknowledged as made."""
        body = {"card": card, "delay_ms": delay_ms}
        answer = await line.call("POST", f"/v1/orders/{id}/payment", body, buyer=buyer)
        self.note()
        if answer.status != 200:
            return False
        order = answer.json()["order"]
        self.memory.told.paid.add(str(order["replaced_by"] or id))
        return bool(order["state"] == "paid")

    async def shop(self, line: Line) -> None:
        """One buyer: what they do after a reservation is drawn."""
        dice = self.dice
        ask = self._ask(dice.choice((1, 1, 1, 2, 3)))
        id = await self.reserve(line, ask)
        if not isinstance(id, str):
            await asyncio.sleep(dice.random() * 0.01)
            return
        if dice.random() < 0.2:
            await self.reserve(line, ask)
        what = dice.random()
        if what < 0.6:
            paid = await self.pay(line, id, ask[0])
            if paid and what < 0.1:
                await self.pay(line, id, ask[0])
            elif paid and what < 0.3:
                await self._end(line, "POST", f"/v1/reservations/{id}/refund", id, "refunded")
        elif what < 0.63:
            await self.pay(line, id, ask[0], "late", dice.randrange(100, 600))
        elif what < 0.66:
            await self.pay(line, id, ask[0], "decline")
        elif what < 0.85:
            await self._end(line, "DELETE", f"/v1/reservations/{id}", id, "cancelled", ask[0])

    async def _end(self, line: Line, method: str, path: str, id: str, state: str, buyer: str = "op") -> None:
        answer = await line.call(method, path, buyer=buyer)
        self.note()
        if answer.status == 200:
            assert answer.json()["state"] == state
            self.memory.gone[id] = state

    async def rush(self, port: int) -> None:
        """Many buyers at once, one after another on each connection, until the server is gone."""
        async with Line(port) as line, asyncio.TaskGroup() as group:
            for _ in range(CONNECTIONS):
                group.create_task(self._queue(port))
            try:
                await self.prepare(line)
            except Cut:
                return

    async def _queue(self, port: int) -> None:
        async with Line(port) as line:
            try:
                while True:
                    await self.shop(line)
            except Cut:
                return

    async def settle(self, port: int) -> int:
        """After a crash: ask again what got no answer, and a part of what did; how many of the former had happened."""
        doubtful = sorted(self.in_doubt)
        known = [ask for ask in self.memory.first if ask[0].startswith(f"{self.name}-")]
        known = self.dice.sample(known, min(len(known), 60))
        happened = 0
        async with Line(port) as line:
            await self.prepare(line)
            for ask in doubtful:
                answer = await self.reserve(line, ask)
                happened += isinstance(answer, str)
                assert ask not in self.in_doubt, f"no clear answer after the restart: {answer}"
            for buyer, key in known:
                quantity = int(self.memory.first[buyer, key]["quantity"])
                assert isinstance(await self.reserve(line, (buyer, key, quantity)), str)
        return happened

    async def sell_out(self, port: int, most_s: float) -> None:
        """Sell what is left, one by one, until all is sold or `most_s` seconds are over."""
        until_s = asyncio.get_running_loop().time() + most_s
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(self._buy_the_rest(port, until_s))

    async def _buy_the_rest(self, port: int, until_s: float) -> None:
        loop = asyncio.get_running_loop()
        async with Line(port) as line:
            while loop.time() < until_s:
                ask = self._ask(1)
                answer = await self.reserve(line, ask)
                if isinstance(answer, str):
                    await self.pay(line, answer, ask[0])
                elif answer.code == "sold_out":
                    return
                else:
                    await asyncio.sleep(0.02)

    async def level(self, line: Line) -> dict[str, int]:
        """The units as the API shows them."""
        answer = await line.call("GET", self.path)
        found: dict[str, int] = answer.json()["items"][0]
        return found
