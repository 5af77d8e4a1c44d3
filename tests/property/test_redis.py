"""The Redis ledger is the machine too: the same story as the embedded one's, on a real server."""

from __future__ import annotations

import itertools
from collections import Counter
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import settings
from hypothesis.stateful import rule
from redis import Redis

from tests.property.profiles import PROFILE
from tests.property.story import LedgerAgainstMachine
from tests.valkey import fresh_database
from ticketrush.cluster.valkey import Valkey
from ticketrush.events import AnyEvent, Cancelled, Expired, Paid, Refunded, SaleCreated
from ticketrush.ledger.redis import RedisLedger
from ticketrush.ledger.redis_watch import Watch
from ticketrush.model import Stock

pytestmark = pytest.mark.timeout(400)

_lives = itertools.count(1)


class RedisAgainstMachine(LedgerAgainstMachine):
    """A node on a real server; a crash leaves the server, and whatever the node had leased, as it is."""

    ledger: RedisLedger
    url = ""

    def __init__(self) -> None:
        with Redis.from_url(self.url, protocol=3) as server:
            server.flushdb()
        self.versions: Counter[str] = Counter()
        super().__init__()

    def open(self) -> None:
        self.ledger = RedisLedger(self.url, node=f"node-{next(_lives)}")
        with patch.object(Watch, "start"):  # nothing happens by itself, so that a failure can be repeated
            self.runner.run(self.ledger.start())
        self.ledger._watch.is_reaper = True

    def written(self, events: list[AnyEvent]) -> list[AnyEvent]:
        """A batch is decided a sale at a time; each sale's events are the machine's, in their order."""
        page = self.runner.run(self.ledger.events(len(self.events), len(events) + 1))
        found = [event for _, event in page]
        assert sorted(found, key=self.sale_of) == sorted(events, key=self.sale_of)
        return found

    def sale_of(self, event: AnyEvent) -> str:
        if isinstance(event, SaleCreated):
            return event.sale.id
        if isinstance(event, Paid | Cancelled | Expired | Refunded):
            row = self.machine.reservation(event.id)
            assert row is not None
            return row.sale
        return event.sale

    def known(self, stock: Stock | None) -> Stock | None:
        """Versions are counted by what a node knows of, and only have to grow; after a start it knows few keys."""
        assert stock is not None
        mine = self.ledger.stock(stock.sale.id)
        assert mine is not None
        assert mine.version >= self.versions[stock.sale.id]
        self.versions[stock.sale.id] = mine.version
        return msgspec.structs.replace(stock, version=mine.version, settled=mine.settled)

    @rule()
    def restart(self) -> None:
        self.runner.run(self.ledger.close())
        self.open()
        self.all_is_there()

    @rule()
    def crash(self) -> None:
        """The node is gone without a word; another one finds what it left."""
        self.ledger._started = False
        self.runner.run(self.ledger.close())
        self.open()
        for sale in self.ledger._node.sales.values():
            for item in sale.shelves:
                self.runner.run(self.ledger._reaper.reclaim(sale, item, every=True))
        self.all_is_there()

    def teardown(self) -> None:
        try:
            self.all_is_there()
        finally:
            self.runner.run(self.ledger.close())
            self.runner.close()


@pytest.fixture(scope="module", autouse=True)
def _server(valkey: Valkey) -> None:
    RedisAgainstMachine.url = fresh_database(valkey)


TestRedisAgainstMachine = RedisAgainstMachine.TestCase
TestRedisAgainstMachine.settings = settings(PROFILE, max_examples=PROFILE.max_examples // 2)
