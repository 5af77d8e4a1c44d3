"""How many webhooks of approved payments a node settles in a second, each durable before it is answered.

Every one is of an order of its own, signed in advance; the load generator runs on the same machine.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, cast
from urllib.parse import urlsplit

import msgspec

from ticketrush.bench.buyers import Issuer
from ticketrush.bench.client import Connection, parse, whole
from ticketrush.bench.errors import BenchError
from ticketrush.bench.server import Server, serve
from ticketrush.credentials import new_webhook_secret
from ticketrush.payments import notices
from ticketrush.payments.protocol import Charge, ChargeState
from ticketrush.payments.wiring import sign_webhook

WEBHOOKS: Final = 20_000
CONNECTIONS: Final = 64
PATH: Final = "/v1/webhooks/payments"
CURRENCY: Final = "CNY"
NOBODY: Final = "http://127.0.0.1:9"
"""The payment gateway, which nobody asks: every order can be paid."""

PATIENCE_S: Final = 120.0
"""How long a load may take in all."""


class _Order(msgspec.Struct):
    id: str


def webhooks_per_s(
    folder: Path, *, count: int = WEBHOOKS, connections: int = CONNECTIONS, ledger: str = "", durability: str = "fsync"
) -> float:
    """Webhooks a second that one node settles, at `connections` keep-alive connections.

    `ledger` and `durability` are those of `ticketrush serve`; without a ledger it is a journal in `folder`.

    Raises:
        BenchError: the server does not start, an answer was not 200, or not every order was paid in the end.
    """
    secret = new_webhook_secret()
    settings = {"TICKETRUSH_WEBHOOK_SECRETS": secret, "TICKETRUSH_PAYMENT_GATEWAY": NOBODY}
    with serve(folder, Issuer(), ledger=ledger, durability=durability, settings=settings) as server:
        with Connection(server.target.url) as connection:
            asked = [server.reservation_bytes(connection) for _ in range(count)]
        _, answers = asyncio.run(_load(server.target.url, asked, connections))
        orders = [msgspec.json.decode(parse(answer).body, type=_Order).id for answer in answers]
        news = [_request(server, secret, order) for order in orders]
        took_s, answers = asyncio.run(_load(server.target.url, news, connections))
        _check(server, answers, count)
        return count / took_s


def _request(server: Server, secret: str, order: str) -> bytes:
    now_s = int(time.time())
    charge = Charge(f"ch_{secrets.token_hex(12)}", order, 0, CURRENCY, ChargeState.APPROVED)
    body = notices.write(charge, now_s * 1_000)
    headers = sign_webhook(secret, f"msg_{secrets.token_hex(12)}", now_s, body)
    lines = [f"POST {PATH} HTTP/1.1", f"Host: {urlsplit(server.target.url).netloc}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("ascii") + body


def _check(server: Server, answers: Sequence[bytes], count: int) -> None:
    for answer in map(parse, answers):
        if answer.status != 200:
            raise BenchError(f"a webhook was answered {answer.status}: {answer.body[:300]!r}")
    held, sold = server.held_and_sold()
    if (held, sold) != (0, count):
        raise BenchError(f"{count} webhooks of approved payments left {held} units held and {sold} sold")


async def _load(url: str, requests: Sequence[bytes], connections: int) -> tuple[float, list[bytes]]:
    """Send each of `requests` once, at most one at a time on a connection; the seconds it took, and the answers."""
    parts = urlsplit(url)
    waiting = iter(requests)
    answers: list[bytes] = []
    clients: list[_Client] = []
    for _ in range(connections):
        _, client = await asyncio.get_running_loop().create_connection(
            lambda: _Client(waiting, answers), parts.hostname or "", parts.port or 80
        )
        clients.append(client)
    began_s = time.perf_counter()
    for client in clients:
        client.send()
    try:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.gather(*(client.ended for client in clients))
    except TimeoutError:
        raise BenchError(f"{len(answers)} of {len(requests)} requests were answered in {PATIENCE_S:g} s") from None
    finally:
        for client in clients:
            client.transport.abort()
    return time.perf_counter() - began_s, answers


class _Client(asyncio.Protocol):
    """A connection that sends the next request when the last one was answered."""

    def __init__(self, waiting: Iterator[bytes], answers: list[bytes]) -> None:
        self._waiting = waiting
        self._answers = answers
        self._data = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def send(self) -> None:
        """Send the next request; none is left when `ended` is done."""
        request = next(self._waiting, None)
        if request is None:
            if not self.ended.done():
                self.ended.set_result(None)
        else:
            self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if whole(self._data):
            self._answers.append(self._data)
            self._data = b""
            self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(BenchError(f"the server closed a connection: {exc}"))
