"""What is another's looks like what does not exist: every call about a reservation or an order, asked by everybody.

The calls come from the application's own routes, so that one that is added without a row here fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import jwt
import pytest
from fastapi.routing import APIRoute

from tests.contract.conftest import NewSale
from tests.servers import SECRETS, Server
from tests.wire import Answer
from ticketrush.http import webhooks
from ticketrush.http.app import ROUTERS

OWNER: Final = "ada-the-owner"
PAY: Final = {"card": "approve"}


@dataclass(frozen=True)
class Call:
    """A call about something that is somebody's: what an operator gets, and what `OWNER` and others get."""

    method: str
    path: str
    unknown: str
    body: object = None
    is_operators: bool = False


CALLS: Final = (
    Call("GET", "/v1/reservations/{id}", "unknown_reservation"),
    Call("DELETE", "/v1/reservations/{id}", "unknown_reservation"),
    Call("GET", "/v1/orders/{id}", "unknown_order"),
    Call("POST", "/v1/orders/{id}/payment", "unknown_order", PAY),
    Call("POST", "/v1/reservations/{id}/refund", "unknown_reservation", is_operators=True),
)

LISTS: Final = {("GET", "/v1/orders")}
"""What tells of the one who asks and has no id to guess; see test_order_reads.py."""

NOBODYS: Final = {
    ("GET", "/v1/sales/{sale}"),
    ("PUT", "/v1/sales/{sale}"),
    ("POST", "/v1/sales/{sale}/open"),
    ("POST", "/v1/sales/{sale}/close"),
    ("POST", "/v1/sales/{sale}/items/{item}/stock"),
    ("POST", "/v1/sales/{sale}/reservations"),
    ("GET", "/v1/audit"),
    ("GET", "/v1/audit/events"),
    ("GET", "/v1/audit/state"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("POST", webhooks.PATH),
}
"""Of a sale, of the operator, or of the server itself: no buyer's."""

NAMES: Final = [f"{call.method} {call.path}" for call in CALLS]


def bearer(secret: str, buyer: str, ttl_s: float) -> dict[str, str]:
    claims = {"sub": buyer, "aud": "ticketrush", "exp": int(time.time() + ttl_s)}
    return {"Authorization": f"Bearer {jwt.encode(claims, secret, algorithm='HS256')}"}


STRANGERS: Final[dict[str, Callable[[Server], dict[str, str]]]] = {
    "another buyer": lambda server: server.head("bob"),
    "a buyer of nearly the same name": lambda server: server.head(OWNER.upper()),
    "an operator": lambda server: server.head(),
    "nobody": lambda _: {},
    "nobody who says to be the owner": lambda _: {"X-Buyer": OWNER},
    "the owner, signed by somebody else": lambda _: bearer("a-secret-of-somebody-else-entirely-0", OWNER, 600),
    "the owner of yesterday": lambda _: bearer(SECRETS[0], OWNER, -1),
}
UNPROVEN: Final = {name for name in STRANGERS if "nobody" in name or name.startswith("the owner")}


def expected(call: Call, stranger: str) -> tuple[int, str]:
    """The status and code for what is foreign, and for what does not exist."""
    if stranger in UNPROVEN:
        return 401, "unauthorized"
    if call.is_operators and stranger != "an operator":
        return 403, "forbidden"
    return 404, call.unknown


@dataclass(frozen=True)
class Mine:
    """A reservation of `OWNER`'s, in a sale of its own."""

    server: Server
    sale: str
    id: str

    def seen(self) -> tuple[Any, ...]:
        """All that can be seen of it: levels, the reservation, its order and payment, its events."""
        about = [self.server.call("GET", f"/v1/{what}/{self.id}", buyer=OWNER) for what in ("reservations", "orders")]
        assert [each.status for each in about] == [200, 200]
        return self.server.level(self.sale), *(each.json() for each in about)

    def ask(self, call: Call, headers: dict[str, str], id: str = "") -> Answer:
        path = call.path.format(id=id or self.id)
        return self.server.call(call.method, path, call.body, headers=headers)

    @property
    def secrets(self) -> list[str]:
        """Words that only its owner may read."""
        order = self.server.call("GET", f"/v1/orders/{self.id}", buyer=OWNER).json()
        return [word for word in (self.id, self.sale, OWNER, order["payment"]["id"], order["held_at"]) if word]


@pytest.fixture(params=["held", "paid"])
def mine(request: pytest.FixtureRequest, server: Server, new_sale: NewSale) -> Mine:
    sale = new_sale(5)
    id = str(server.reserve(sale, buyer=OWNER).json()["id"])
    if request.param == "paid":
        assert server.call("POST", f"/v1/orders/{id}/payment", PAY, buyer=OWNER).status == 200
    return Mine(server, sale, id)


def unlike(id: str) -> str:
    """An id of the same form that nobody has: its first sign is another."""
    return ("0" if id[0] != "0" else "1") + id[1:]


def unlikes(id: str) -> list[str]:
    """That; one that ends otherwise (of another book, where there are many); and what is no id at all."""
    return [unlike(id), id[:-1] + ("0" if id[-1] != "0" else "1"), id.upper() + "0", "0", "%00", "x" * 500]


def shape(answer: Answer) -> tuple[Any, ...]:
    """Everything of an answer but when it was given."""
    return answer.status, [pair for pair in answer.headers if pair[0] != "date"], answer.body


def test_every_route_says_whose_it_is() -> None:
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    found = {(method, route.path) for route in routes for method in route.methods or ()}

    told = [*((call.method, call.path) for call in CALLS), *LISTS, *NOBODYS]
    assert found == set(told), "give each new route a row in CALLS, LISTS or NOBODYS"
    assert len(told) == len(set(told))
    assert {path for _, path in found if "{id}" in path} == {call.path for call in CALLS}


@pytest.mark.parametrize("call", CALLS, ids=NAMES)
def test_what_is_anothers_looks_like_nothing_and_stays_as_it_is(mine: Mine, call: Call) -> None:
    before, secrets = mine.seen(), mine.secrets
    for stranger, headers_of in STRANGERS.items():
        if call.is_operators and stranger == "an operator":
            continue  # may do it: see below
        headers = headers_of(mine.server)

        foreign = mine.ask(call, headers)

        assert (foreign.status, foreign.code) == expected(call, stranger), stranger
        for id in unlikes(mine.id):
            assert shape(mine.ask(call, headers, id)) == shape(foreign), (stranger, id)
        said = f"{foreign.headers}{foreign.body.decode()}"
        assert not [word for word in secrets if word in said], stranger
    assert mine.seen() == before


@pytest.mark.parametrize("body", [b"", b"{", b'{"card":1}', b'{"card":"late","delay_ms":30001}', b"x" * 20_000])
def test_a_bad_payment_of_anothers_order_tells_no_more_than_a_good_one(mine: Mine, body: bytes) -> None:
    before = mine.seen()
    paths = [f"/v1/orders/{id}/payment" for id in (mine.id, unlike(mine.id))]

    foreign, unknown = (mine.server.call("POST", path, body, buyer="bob") for path in paths)

    assert shape(foreign) == shape(unknown)
    assert foreign.code in {"unknown_order", "body_too_large"}, "how large it is may be looked at first"
    assert mine.seen() == before


def test_the_owner_may_do_all_that_buyers_may(mine: Mine) -> None:
    owner = mine.server.head(OWNER)
    state = mine.seen()[1]["state"]
    for call in CALLS:
        if call.method == "DELETE":
            continue  # the last of all
        answer = mine.ask(call, owner)
        assert answer.status == (403 if call.is_operators else 200), call
        missing = mine.ask(call, owner, unlike(mine.id))
        assert (missing.status, missing.code) == ((403, "forbidden") if call.is_operators else (404, call.unknown)), (
            call
        )
    assert mine.seen()[1]["state"] == "paid"

    cancelled = mine.server.call("DELETE", f"/v1/reservations/{mine.id}", buyer=OWNER)
    assert (cancelled.status, cancelled.code) == (409, "wrong_state"), f"it was {state}, and is paid"


def test_an_operator_refunds_what_is_paid_and_nothing_else_of_a_buyers(mine: Mine) -> None:
    refund = next(call for call in CALLS if call.is_operators)
    was_paid = mine.seen()[1]["state"] == "paid"

    answer = mine.ask(refund, mine.server.head())
    unknown = mine.ask(refund, mine.server.head(), unlike(mine.id))

    assert answer.status == (200 if was_paid else 409)
    assert (unknown.status, unknown.code) == (404, "unknown_reservation")
    assert mine.seen()[1]["state"] == ("refunded" if was_paid else "held")


def test_a_list_is_for_those_who_prove_who_they_are(server: Server) -> None:
    for stranger, headers_of in STRANGERS.items():
        answer = server.call("GET", "/v1/orders", headers=headers_of(server))
        expected = (401, "unauthorized") if stranger in UNPROVEN else (404, "orders_not_kept")
        assert (answer.status, answer.code) == expected, stranger
