"""What every connection of a server shares: limits, the watch, and how an answer becomes bytes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from ticketrush import model as m
from ticketrush.errors import InvalidRequest
from ticketrush.http import problems
from ticketrush.http.answers import Answer
from ticketrush.http.demo import Demo
from ticketrush.http.purchase import Purchases
from ticketrush.http.watch import Watch
from ticketrush.model import IDENTIFIER, Refused
from ticketrush.settings import is_loopback

PREFIX: Final = b"/v1/sales/"
SUFFIX: Final = b"/reservations"
DEMO: Final = b"/buy/ticket"

_REFUSALS_MAX: Final = 1_024
_FORMS_MAX: Final = 256
_ROUTES_MAX: Final = 20_000

_Prepared = dict[int, tuple[Refused, int, bytes]]
"""Refusals by the id of the object, when each was prepared, and its bytes."""


def is_local(host: bytes | None, origin: bytes | None) -> bool:
    """Whether a request names this machine, and does not come from another site's page in a browser.

    Without tokens this is what keeps a web page from buying, or running sales, in its reader's name.
    """
    return _is_loopback(host) and (origin is None or _is_loopback(origin.partition(b"//")[2]))


def _is_loopback(authority: bytes | None) -> bool:
    text = (authority or b"").decode("latin-1")
    return is_loopback(text[1:].partition("]")[0] if text.startswith("[") else text.partition(":")[0])


class Limits(NamedTuple):
    """Bounds of a request, in bytes and seconds."""

    body_bytes: int = 16_384
    header_bytes: int = 32_768
    request_timeout_s: float = 10.0
    keep_alive_timeout_s: float = 75.0


class Lane:
    """Shared by all connections of one server process; handed to them as the ASGI state "lane"."""

    def __init__(self, purchases: Purchases, limits: Limits, demo: Demo | None) -> None:
        self.purchases = purchases
        self.engine = purchases.engine
        self.limits = limits
        self.is_open = purchases.tokens is None
        self.plain_bytes = min(limits.header_bytes, limits.body_bytes)
        """A whole request that is no longer than this keeps both bounds."""
        self.request_ticks = math.ceil(limits.request_timeout_s)
        self.idle_ticks = math.ceil(limits.keep_alive_timeout_s)
        self.demo = demo
        self.watch = Watch()
        self.routes: dict[bytes, str] = {}
        """URLs of purchases that were asked for before, and their sales."""
        self._forms: dict[tuple[int, int, str, str, int, int, int], list[bytes]] = {}
        """Answers to reservations, cut where the id stands."""
        self._turned_away: _Prepared = {}
        self._refusals: _Prepared = {}

    def sale_of(self, url: bytes) -> str | None:
        """The sale that a purchase at `url` is for; None if the fast lane does not know such a sale."""
        sale = self.routes.get(url)
        if sale is None and url.startswith(PREFIX) and url.endswith(SUFFIX):
            name = url[len(PREFIX) : -len(SUFFIX)].decode("latin-1")
            if IDENTIFIER.fullmatch(name) and self.engine.stock(name) is not None:
                if len(self.routes) >= _ROUTES_MAX:
                    self.routes.clear()
                self.routes[url] = sale = name
        return sale

    def ask(
        self, sale: str | None, body: bytes, key: bytes | None, authorization: bytes | None, x_buyer: bytes | None
    ) -> bytes | m.Reserve:
        """The answer to a hot request, or the command for the ledger that it asks for.

        `sale` is None for the demo call.
        """
        if sale is None:
            assert self.demo is not None
            asked = self.demo.ask()
            return self.render(self.demo.turn_away(asked)) if isinstance(asked, Refused) else asked
        try:
            asked = self.purchases.ask(sale, body, key, authorization, x_buyer)
        except InvalidRequest as error:
            return self.render(problems.invalid(error))
        return asked if type(asked) is m.Reserve else self.turn_away(cast("Refused", asked))

    def answer(self, sale: str | None, outcome: m.Outcome) -> bytes:
        """The answer to a hot request that the ledger has decided."""
        if sale is None:
            assert self.demo is not None
            return self.render(self.demo.answer(outcome))
        if type(outcome) is m.Reserved:
            return self.render(self.purchases.answer(outcome)) if outcome.replayed else self.held(outcome)
        if isinstance(outcome, Refused):
            return self._prepared(self._refusals, outcome, self.purchases.answer)
        return self.render(self.purchases.answer(outcome))

    def held(self, outcome: m.Reserved) -> bytes:
        """The same for a new reservation; the answers of one batch differ only in its id."""
        new = outcome.reservation
        id = new.id.encode()
        alike = (new.held_at_ms, self.watch.tick, new.sale, new.item, new.quantity, new.expires_at_ms, len(id))
        form = self._forms.get(alike)
        if form is None:
            if len(self._forms) >= _FORMS_MAX:
                self._forms.clear()
            data = self.render(self.purchases.answer(outcome))
            self._forms[alike] = form = data.split(id)
        return id.join(form)

    def render(self, answer: Answer) -> bytes:
        """An answer as the bytes of an HTTP/1.1 response."""
        status, headers, body = answer
        fields = b"".join([b"%b: %b\r\n" % field for field in headers])
        return b"%b%b%bcontent-length: %d\r\n\r\n%b" % (
            STATUS_LINE[status],
            self.watch.date_line,
            fields,
            len(body),
            body,
        )

    def turn_away(self, refused: Refused) -> bytes:
        """The same for the refusal of a closed gate."""
        return self._prepared(self._turned_away, refused, self.purchases.turn_away)

    def _prepared(self, prepared: _Prepared, refused: Refused, worded: Callable[[Refused], Answer]) -> bytes:
        """The bytes of a refusal; made once a second and used for every loser of that second."""
        tick = self.watch.tick
        known = prepared.get(id(refused))
        if known is not None and known[0] is refused and known[1] == tick:
            return known[2]
        if len(prepared) >= _REFUSALS_MAX:
            prepared.clear()
        data = self.render(worded(refused))
        prepared[id(refused)] = (refused, tick, data)
        return data


def closing(data: bytes) -> bytes:
    """A response that says that it is the last one on its connection."""
    return data.replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
