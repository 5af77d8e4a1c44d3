"""The operator's side of a rush: makes the sale, reads levels, journal and costs, over HTTP."""

from __future__ import annotations

import http.client
import re
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from ticketrush import events as ev
from ticketrush.audit import LedgerState
from ticketrush.crowd.buyers import minter
from ticketrush.crowd.errors import CrowdError, NoAnswer
from ticketrush.model import Sale

TIMEOUT_S: Final = 30.0
PAGE: Final = 10_000
TOKEN_S: Final = 24 * 3_600
NAME: Final = "rush-operator"

_EVENTS: Final = {
    str(kind.__struct_config__.tag): kind
    for kind in (
        ev.SaleCreated,
        ev.SaleScheduled,
        ev.StockAdded,
        ev.Held,
        ev.Paid,
        ev.Cancelled,
        ev.Expired,
        ev.Refunded,
    )
}


class Level(msgspec.Struct, frozen=True):
    """Units of the sale's item, as anyone may see them."""

    capacity: int
    available: int
    held: int
    sold: int


class _Levels(msgspec.Struct):
    items: list[Level]


class _Page(msgspec.Struct):
    events: list[dict[str, Any]]
    next: int | None = None


class Operator:
    """Talks to servers that are one, as an operator; one connection, used by one thread.

    It stays with one server until that does not answer, then asks the next. Without a `secret` it
    shows no token, which is enough for an open server.
    """

    def __init__(self, urls: Sequence[str], secret: bytes, audience: str) -> None:
        self._urls = deque(urls)
        self.expires_at_s = int(time.time()) + TOKEN_S
        self._headers = {"Content-Type": "application/json"}
        if secret:
            token = minter(secret, audience, self.expires_at_s, {"scope": "operator"})(NAME.encode())
            self._headers["Authorization"] = f"Bearer {token.decode()}"
        else:
            self._headers["X-Buyer"] = NAME
        self._connect()

    @property
    def url(self) -> str:
        """The server that it talks to now."""
        return self._urls[0]

    def _connect(self) -> None:
        host, port = address_of(self.url)
        self._connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ask(self, method: str, path: str, body: object = None) -> bytes:
        """The body of a successful answer.

        Raises:
            NoAnswer: no answer, from none of them.
            CrowdError: an answer that is not a success; the text has the server's words.
        """
        status, text = self._try_all(method, path, msgspec.json.encode(body) if body is not None else None)
        if status >= 300:
            said = text[:300].decode(errors="replace")
            raise CrowdError(f"{self.url} answers {method} {path} with {status}: {said}")
        return text

    def needs_token(self) -> bool:
        """Whether the server turns away who shows no token, as this one without a secret does."""
        status, _ = self._try_twice("GET", "/v1/reservations/none", None)
        return status == 401

    def _try_all(self, method: str, path: str, content: bytes | None) -> tuple[int, bytes]:
        for _ in range(len(self._urls) - 1):
            try:
                return self._try_twice(method, path, content)
            except NoAnswer:
                self._urls.rotate(-1)
                self._connect()
        return self._try_twice(method, path, content)

    def _try_twice(self, method: str, path: str, content: bytes | None) -> tuple[int, bytes]:
        try:
            return self._exchange(method, path, content)
        except NoAnswer as error:
            if isinstance(error.__cause__, http.client.RemoteDisconnected):  # an idle connection, closed meanwhile
                return self._exchange(method, path, content)
            raise

    def _exchange(self, method: str, path: str, content: bytes | None) -> tuple[int, bytes]:
        try:
            self._connection.request(method, path, content, self._headers)
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise NoAnswer(f"{self.url} does not answer {method} {path}: {why}") from error

    def open_sale(self, sale: str, item: str, capacity: int, limit: int, hold_s: float) -> None:
        """Put a sale of one item into the ledger, and open it."""
        items = [{"id": item, "capacity": capacity, "purchase_limit": limit}]
        hold = int(hold_s) if float(hold_s).is_integer() else hold_s
        self.ask("PUT", f"/v1/sales/{sale}", {"items": items, "hold_window_s": hold})
        self.ask("POST", f"/v1/sales/{sale}/open", {})

    def level(self, sale: str) -> Level:
        """The units of the sale's one item."""
        return msgspec.json.decode(self.ask("GET", f"/v1/sales/{sale}"), type=_Levels).items[0]

    def state(self) -> LedgerState:
        """What the ledger claims to be."""
        return msgspec.json.decode(self.ask("GET", "/v1/audit/state"), type=LedgerState)

    def events(self) -> Iterator[ev.AnyEvent]:
        """The whole journal, in its order."""
        after: int | None = 0
        while after is not None:
            text = self.ask("GET", f"/v1/audit/events?after={after}&limit={PAGE}")
            page = msgspec.json.decode(text, type=_Page)
            yield from map(event_of, page.events)
            after = page.next if page.events else None

    def cost(self) -> tuple[float, float]:
        """(CPU seconds, resident megabytes) of the server's process, as its /metrics say."""
        text = self.ask("GET", "/metrics").decode(errors="replace")
        return _sample(text, "process_cpu_seconds_total"), _sample(text, "process_resident_memory_bytes") / 1e6


def address_of(url: str) -> tuple[str, int]:
    """Host and port of a URL."""
    parts = urlsplit(url)
    return parts.hostname or "127.0.0.1", parts.port or 80


def event_of(fields: dict[str, Any]) -> ev.AnyEvent:
    """The event of one object of ``/v1/audit/events``. Raises CrowdError for one that is not known."""
    kind = _EVENTS.get(str(fields.get("type")))
    if kind is None:
        raise CrowdError(f"the journal has an event of the unknown type {fields.get('type')!r}")
    values = {name: value for name, value in fields.items() if name not in {"seq", "type"}}
    if "sale" in values and isinstance(values["sale"], dict):
        values["sale"] = msgspec.convert(values["sale"], Sale)
    try:
        event: ev.AnyEvent = kind(**values)
    except TypeError as error:
        raise CrowdError(f"an event of type {fields['type']!r} cannot be read: {error}") from error
    return event


def _sample(text: str, name: str) -> float:
    match = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    return float(match[1]) if match else 0.0
