"""One open sale on a server, and the bytes of requests to it, hot and cold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.servers import Server
from tests.wire import Answer, Wire, request

BODY: Final = b'{"item":"second"}'
HOT: Final = "hot"
"""A call that the fast lane answers."""

COLD: Final = "cold"
"""One that the application answers."""


@dataclass(frozen=True)
class Shop:
    """A server, an open sale of much stock in it, and requests to both."""

    server: Server
    sale: str

    @property
    def path(self) -> str:
        return f"/v1/sales/{self.sale}/reservations"

    def hot(self, body: bytes = BODY, *, version: str = "HTTP/1.1", **headers: str) -> bytes:
        """A purchase by ada. Underscores in names of headers are hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return request("POST", self.path, body, self.server.head("ada") | named, version=version)

    def cold(self, body: bytes = b'{"units":1}', *, version: str = "HTTP/1.1", **headers: str) -> bytes:
        """An addition of stock, which the application answers."""
        named = {"Idempotency-Key": "k1"} | {name.replace("_", "-"): value for name, value in headers.items()}
        path = f"/v1/sales/{self.sale}/items/second/stock"
        return request("POST", path, body, self.server.head() | named, version=version)

    def of_kind(self, kind: str, body: bytes | None = None, *, version: str = "HTTP/1.1", **headers: str) -> bytes:
        body = good_body(kind) if body is None else body
        return (self.hot if kind == HOT else self.cold)(body, version=version, **headers)

    def ask(self, data: bytes) -> Answer:
        with self.server.connect() as wire:
            wire.send(data)
            return wire.answer()

    @property
    def held(self) -> int:
        return int(self.server.level(self.sale)["held"])


def is_ended(wire: Wire) -> bool:
    """Whether the server ends the connection in order, with nothing more to say."""
    return wire.rest() == b""


def good_body(kind: str) -> bytes:
    return BODY if kind == HOT else b'{"units":1}'


def done(answer: Answer) -> bool:
    return answer.status in {200, 201}
