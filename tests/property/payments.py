"""A small world of one payment: an order, a gateway, news that comes when and as often as it likes, and two nodes.

Everything that waits is interleaved by dice. News is sent again until a node has answered it, calls of
the gateway get lost before or after they had their effect, and the hold runs out at any moment. The ledger may
lose what is not paid, the gateway may not know its charge for a while, and the money may not be the price.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine
from typing import Any, cast

import msgspec

from ticketrush import model as m
from ticketrush.cashier import Cashier
from ticketrush.engine import Engine
from ticketrush.errors import LedgerUnavailable
from ticketrush.ledger.machine import Machine
from ticketrush.payments.notices import Payment, Told
from ticketrush.payments.protocol import Charge, ChargeState, Gateway, GatewayUnavailable
from ticketrush.settlement import Settled, Settler

ORDER = "order"
PRICE = 700
HOLD_MS = 1_000
SALE = m.Sale("g1", (m.Item("second", 1, price_minor=PRICE),), opens_at_ms=0, hold_window_ms=HOLD_MS)

MakeSettler = Callable[[Engine, Gateway], Settler]


class World:
    """One unit, one order of it, one charge; and the dice."""

    def __init__(self, seed: int, settler: MakeSettler = Settler) -> None:
        self.dice = random.Random(seed)
        self.machine = Machine()
        self.now_ms = 1
        self.numbers = 0
        self.charge = Charge("ch_1", ORDER, PRICE, "CNY", ChargeState.APPROVED)
        self.news = [Told.APPROVED]
        """What the gateway has to tell, in the order in which it happened."""
        self.answered: set[Told] = set()
        self.amount_minor = PRICE - 1 if self.dice.random() < 0.1 else PRICE
        """What the charge took."""
        self.unknown_to_gateway = self.dice.randrange(1, 4) if self.dice.random() < 0.2 else 0
        """How often the gateway still says that it does not know the charge when it is to give it back."""
        self.settler = settler
        self.nodes = [self._node(), self._node()]
        for command in (m.CreateSale(SALE), m.Reserve(ORDER, "g1", "second", "ada", 1, "")):
            self.machine.execute(self.now_ms, [command])

    def _node(self) -> Cashier:
        cashier = Cashier(cast("Engine", Desk(self)), GatewayLine(self))
        cashier._settler = self.settler(cast("Engine", Desk(self)), GatewayLine(self))
        return cashier

    async def pause(self) -> None:
        """Let others go first, as the dice say."""
        for _ in range(self.dice.randrange(4)):
            await asyncio.sleep(0)

    def paid(self) -> list[m.Reservation]:
        """Reservations that stand for the money of the charge."""
        return [
            each
            for each in self.machine.reservations()
            if each.state is m.State.PAID and each.payment == self.charge.id
        ]

    # --- what happens -----------------------------------------------------------------------

    async def live(self) -> None:
        """Everything that may happen, at the same time; then all news that was never answered."""
        acts: list[Coroutine[Any, Any, None]] = [self.tell(), self.tell(), self.expire(), self.others()]
        if self.dice.random() < 0.4:
            acts.append(self.give_back_at_the_gateway())
        if self.dice.random() < 0.4:
            acts.append(self.operator_refunds())
        if self.dice.random() < 0.2:
            acts.append(self.cancel())
        if self.dice.random() < 0.2:
            acts.append(self.lose())
        self.dice.shuffle(acts)
        await asyncio.gather(*acts)
        while owed := [news for news in self.news if news not in self.answered]:  # telling may make news
            for news in self.dice.sample(owed, len(owed)):
                await self.deliver(news)

    async def tell(self) -> None:
        """Deliver some of the news, in any order, some of it several times."""
        for _ in range(self.dice.randrange(4)):
            await self.pause()
            await self.deliver(self.dice.choice(self.news))

    async def deliver(self, news: Told) -> None:
        """Send one piece of news until a node has answered it."""
        payment = Payment(self.charge.id, ORDER, self.amount_minor, "CNY")
        while True:
            try:
                assert isinstance(await self.dice.choice(self.nodes).told(news, payment), Settled)
            except (GatewayUnavailable, LedgerUnavailable):
                await self.pause()
            else:
                self.answered.add(news)
                return

    async def expire(self) -> None:
        for _ in range(self.dice.randrange(20)):
            await asyncio.sleep(0)
        self.now_ms += HOLD_MS * self.dice.randrange(2)
        self.machine.execute(self.now_ms, [m.Expire()])

    async def others(self) -> None:
        """Somebody else wants the unit, and may give it back."""
        for number in range(self.dice.randrange(3)):
            await self.pause()
            await self.pause()
            id = f"other-{number}"
            self.machine.execute(self.now_ms, [m.Reserve(id, "g1", "second", "bob", 1, "")])
            await self.pause()
            self.machine.execute(self.now_ms, [m.Cancel(id)] if self.dice.random() < 0.6 else [])

    async def cancel(self) -> None:
        await self.pause()
        self.machine.execute(self.now_ms, [m.Cancel(ORDER)])

    async def lose(self) -> None:
        """The ledger is as it was before the order, as after a failover. It does not lose what is durably paid."""
        for _ in range(self.dice.randrange(40)):
            await asyncio.sleep(0)
        if not self.paid():
            self.machine = Machine()
            self.machine.execute(self.now_ms, [m.CreateSale(SALE)])

    async def give_back_at_the_gateway(self) -> None:
        """Somebody refunds the charge where it was made, without asking us."""
        for _ in range(self.dice.randrange(80)):
            await asyncio.sleep(0)
        self.refund_charge()

    async def operator_refunds(self) -> None:
        await self.pause()
        with contextlib.suppress(GatewayUnavailable, LedgerUnavailable):  # the operator does not try again
            await self.dice.choice(self.nodes).refund(self.dice.choice([each.id for each in self.paid()] or [ORDER]))

    def refund_charge(self) -> None:
        """The gateway gives the money back, once, and will tell of it."""
        if self.charge.state is ChargeState.APPROVED:
            self.charge = msgspec.structs.replace(self.charge, state=ChargeState.REFUNDED)
            self.news.append(Told.REFUNDED)


class Desk:
    """A node's engine on the one ledger, as far as payments need it."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def execute(self, command: m.Command) -> m.Outcome:
        world = self._world
        await world.pause()
        if world.dice.random() < 0.03:
            return m.Refused(m.Reason.UNAVAILABLE)
        outcomes, _ = world.machine.execute(world.now_ms, [command])
        await world.pause()
        return m.Refused(m.Reason.UNKNOWN) if world.dice.random() < 0.03 else outcomes[0]

    async def refund(self, id: str) -> m.Outcome:
        return await self.execute(m.Refund(id))

    async def reservation(self, id: str) -> m.Reservation | None:
        await self._world.pause()
        found = self._world.machine.reservation(id)
        await self._world.pause()
        return found

    async def reservation_for(self, sale: str, buyer: str, key: str) -> m.Reservation | None:
        await self._world.pause()
        found = self._world.machine.reservation_for(sale, buyer, key)
        await self._world.pause()
        return found

    def new_id(self, sale: str, buyer: str) -> str:
        self._world.numbers += 1
        return f"again-{self._world.numbers}"

    def stock(self, sale: str) -> m.Stock | None:
        return self._world.machine.stock(sale)


class GatewayLine:
    """A connection to the gateway, on which calls and answers get lost."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def charge(self, order: str, amount_minor: int, currency: str, card: str, delay_ms: int) -> Charge:
        raise NotImplementedError

    async def refund(self, payment: str) -> Charge | None:
        await self._lossy()
        if self._world.unknown_to_gateway:
            self._world.unknown_to_gateway -= 1
            return None
        self._world.refund_charge()
        await self._lossy()
        return self._world.charge

    async def read(self, payment: str) -> Charge | None:
        await self._lossy()
        charge = self._world.charge
        await self._lossy()
        return charge

    async def latest(self, order: str) -> Charge | None:
        return await self.read("")

    async def close(self) -> None:
        pass

    async def _lossy(self) -> None:
        await self._world.pause()
        if self._world.dice.random() < 0.08:
            raise GatewayUnavailable("lost")
