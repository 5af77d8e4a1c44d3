"""A payment gateway that is spoken to over HTTP: `ticketrush test-gateway`, or one that takes the same calls.

Every call has a bounded time, and is repeated a few times when there is no answer. A charge is
repeated with the same `Idempotency-Key`: one that was made although its answer got lost is
answered again, so nobody is charged twice.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Final, TypeVar
from urllib.parse import quote

import aiohttp
import msgspec

from ticketrush.errors import InvalidRequest
from ticketrush.payments.protocol import Charge, GatewayUnavailable
from ticketrush.payments.wording import SILENT, why_silent

_T = TypeVar("_T")

TRIES: Final = 4
BACKOFF_S: Final = 0.1
"""The first pause between tries; each next one is twice as long."""

CONNECTIONS_MAX: Final = 100
ANSWER_BYTES_MAX: Final = 65_536

_charge_of: Final = msgspec.json.Decoder(Charge).decode
_charges_of: Final = msgspec.json.Decoder(list[Charge]).decode


class HttpGateway:
    """A `Gateway` at a URL. Belongs to the event loop in which it is first asked."""

    def __init__(self, url: str, *, timeout_s: float = 2.0) -> None:
        """At `url`, waiting `timeout_s` for each answer."""
        self._url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def charge(self, order: str, amount_minor: int, currency: str, card: str, delay_ms: int) -> Charge:
        """See `Gateway.charge`. Raises InvalidRequest if the gateway does not take such a card."""
        body = {
            "order": order,
            "amount_minor": amount_minor,
            "currency": currency,
            "card": card,
            "delay_ms": delay_ms,
        }
        headers = {"idempotency-key": secrets.token_hex(16)}
        status, data = await self._insist("POST", "/charges", msgspec.json.encode(body), headers)
        if status == 422:
            raise InvalidRequest(
                f"the payment gateway does not take this payment: {data[:200].decode(errors='replace')}"
            )
        return _checked(order, _decoded(_charge_of, status, data))

    async def refund(self, payment: str) -> Charge | None:
        """See `Gateway.refund`."""
        status, data = await self._insist("POST", f"/charges/{quote(payment, safe='')}/refund")
        return None if status in {404, 409} else _decoded(_charge_of, status, data)

    async def read(self, payment: str) -> Charge | None:
        """See `Gateway.read`."""
        status, data = await self._insist("GET", f"/charges/{quote(payment, safe='')}")
        return None if status == 404 else _decoded(_charge_of, status, data)

    async def latest(self, order: str) -> Charge | None:
        """See `Gateway.latest`. Asks once only: somebody waits to read an order."""
        status, data = await self._ask("GET", f"/charges?order={quote(order, safe='')}&limit=1")
        charges = _decoded(_charges_of, status, data)
        return _checked(order, charges[0]) if charges else None

    async def close(self) -> None:
        """See `Gateway.close`."""
        if self._session is not None:
            await self._session.close()

    async def _insist(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        pause_s = BACKOFF_S
        for _ in range(TRIES - 1):
            try:
                return await self._ask(method, path, body, headers)
            except GatewayUnavailable:
                await asyncio.sleep(pause_s)
                pause_s *= 2
        return await self._ask(method, path, body, headers)

    async def _ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX)
            self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        sent = {"content-type": "application/json", **(headers or {})}
        try:
            async with self._session.request(
                method, self._url + path, data=body, headers=sent, allow_redirects=False
            ) as response:
                data = await _bounded(response.content)
                status = response.status
        except SILENT as error:
            why = why_silent(error, self._timeout.total or 0.0)
            raise GatewayUnavailable(f"the payment gateway did not answer {method} {path} ({why})") from error
        if status >= 500:
            raise GatewayUnavailable(f"the payment gateway answered {status} to {method} {path}")
        return status, data


async def _bounded(content: aiohttp.StreamReader) -> bytes:
    data = b""
    while piece := await content.read(ANSWER_BYTES_MAX + 1 - len(data)):
        data += piece
        if len(data) > ANSWER_BYTES_MAX:
            raise GatewayUnavailable(f"the payment gateway's answer is longer than {ANSWER_BYTES_MAX} bytes")
    return data


def _decoded(decode: Callable[[bytes], _T], status: int, data: bytes) -> _T:
    if status not in {200, 201}:
        raise GatewayUnavailable(f"the payment gateway answered {status}: {data[:200]!r}")
    try:
        return decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise GatewayUnavailable(f"the payment gateway's answer cannot be read: {error}") from error


def _checked(order: str, charge: Charge) -> Charge:
    """The charge. Raises GatewayUnavailable if it is of another order."""
    if charge.order != order:
        raise GatewayUnavailable(f"the payment gateway answered with a charge of {charge.order} instead of {order}")
    return charge
