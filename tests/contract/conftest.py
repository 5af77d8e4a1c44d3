"""The servers that the contract is tested on: each started once, shared by all tests, stopped at the end.

Tests stay out of each other's way by selling in sales of their own.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from tests.contract.shop import Shop
from tests.servers import FRONTS, ON_REDIS, Server, running

NewSale = Callable[..., str]
"""Opens a sale of `capacity` units of the item "second" and returns its id."""

DAY_S: Final = 86_400
"""How long units are held: no hold that a test leaves behind expires while a later one looks at the whole server."""

_numbers = itertools.count(1)


class Farm:
    """One running server a front, started when it is first asked for."""

    def __init__(self, servers: contextlib.ExitStack) -> None:
        self._servers = servers
        self._running: dict[str, Server] = {}

    def server(self, front: str) -> Server:
        if front not in self._running:
            self._running[front] = self._servers.enter_context(running(front))
        server = self._running[front]
        assert server.is_running, f"an earlier test ended the {front} server: {server.errors()}"
        return server


@pytest.fixture(scope="session")
def farm() -> Iterator[Farm]:
    with contextlib.ExitStack() as servers:
        yield Farm(servers)


@pytest.fixture(params=(*FRONTS, ON_REDIS))
def server(request: pytest.FixtureRequest, farm: Farm) -> Server:
    """A server; each test runs on all fronts and both ledgers, or on those it names with `indirect`."""
    return farm.server(request.param)


@pytest.fixture
def sale_id() -> str:
    """A sale id that no other test uses."""
    return f"sale-{next(_numbers)}"


@pytest.fixture
def new_sale(server: Server) -> NewSale:
    def new(capacity: int = 10, limit: int | None = None, **more: Any) -> str:
        return server.open_sale(
            f"sale-{next(_numbers)}", {"second": capacity}, limit, **{"hold_window_s": DAY_S} | more
        )

    return new


@pytest.fixture
def shop(server: Server, new_sale: NewSale) -> Shop:
    return Shop(server, new_sale(100_000))
