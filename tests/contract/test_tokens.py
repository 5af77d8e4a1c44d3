"""Who may come in: bearer tokens, as strangers and as libraries make them."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest

from tests.contract.conftest import NewSale
from tests.servers import SECRETS, Server
from tests.wire import Answer

FIRST, SECOND = SECRETS
FOREIGN = "a-secret-of-somebody-else-entirely-012345"


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims, with changes; None leaves one out."""
    good = {"sub": "ada", "exp": int(time.time()) + 600, "aud": "ticketrush"}
    return {name: value for name, value in (good | changes).items() if value is not None}


def token(secret: str = FIRST, algorithm: str = "HS256", **changes: Any) -> str:
    return jwt.encode(claims(**changes), secret, algorithm=algorithm)


def by_hand(header: dict[str, Any], signature: str = "") -> str:
    parts = [json.dumps(part).encode() for part in (header, claims())]
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), signature])


def forged() -> str:
    """Somebody's good signature under claims of our own."""
    head, _, signature = token().split(".")
    return ".".join([head, token(sub="eve").split(".")[1], signature])


def reserve(server: Server, sale: str, authorization: str | None) -> Answer:
    headers = {} if authorization is None else {"Authorization": authorization}
    return server.call("POST", f"/v1/sales/{sale}/reservations", {"item": "second"}, headers=headers)


REFUSED: dict[str, Callable[[], str | None]] = {
    "missing": lambda: None,
    "empty": lambda: "",
    "basic": lambda: "Basic YWRhOmFkYQ==",
    "no scheme": token,
    "scheme only": lambda: "Bearer",
    "no token": lambda: "Bearer ",
    "not a token": lambda: "Bearer x",
    "dots": lambda: "Bearer ..",
    "not ascii": lambda: "Bearer é",
    "forged": lambda: f"Bearer {forged()}",
    "cut signature": lambda: f"Bearer {token()[:-4]}",
    "longer signature": lambda: f"Bearer {token()}AAAA",
    "of another secret": lambda: f"Bearer {token(FOREIGN)}",
    "alg none": lambda: f"Bearer {by_hand({'alg': 'none', 'typ': 'JWT'})}",
    "alg none signed": lambda: f"Bearer {by_hand({'alg': 'none'}, token().split('.')[2])}",
    "alg HS512": lambda: f"Bearer {token('x' * 64, 'HS512')}",
    "critical extension": lambda: f"Bearer {jwt.encode(claims(), FIRST, headers={'crit': ['exp']})}",
    "expired": lambda: f"Bearer {token(exp=int(time.time()) - 1)}",
    "no expiry": lambda: f"Bearer {token(exp=None)}",
    "not yet": lambda: f"Bearer {token(nbf=int(time.time()) + 60)}",
    "other audience": lambda: f"Bearer {token(aud='another-shop')}",
    "other audiences": lambda: f"Bearer {token(aud=['another-shop', 'ticketrus'])}",
    "no audience": lambda: f"Bearer {token(aud=None)}",
    "no buyer": lambda: f"Bearer {token(sub=None)}",
    "empty buyer": lambda: f"Bearer {token(sub='')}",
    "buyer with a space": lambda: f"Bearer {token(sub='a b')}",
    "endless": lambda: f"Bearer {'x' * 10_000}",
}


@pytest.mark.parametrize("what", REFUSED)
def test_who_cannot_prove_who_they_are_is_unauthorized(server: Server, new_sale: NewSale, what: str) -> None:
    sale = new_sale()

    answer = reserve(server, sale, REFUSED[what]())

    assert (answer.status, answer.code) == (401, "unauthorized")
    assert answer.header("www-authenticate") == 'Bearer realm="ticketrush"'
    assert server.level(sale)["held"] == 0


@pytest.mark.parametrize(
    "path", ["/v1/reservations/0", "/v1/orders/0", "/v1/audit", "/v1/audit/events", "/v1/audit/state"]
)
def test_reading_asks_for_a_token_too(server: Server, path: str) -> None:
    answer = server.call("GET", path, headers={})

    assert (answer.status, answer.code) == (401, "unauthorized")


ACCEPTED: dict[str, Callable[[], str]] = {
    "made by a library": lambda: f"Bearer {token()}",
    "of the second secret": lambda: f"Bearer {token(SECOND)}",
    "for several audiences": lambda: f"Bearer {token(aud=['another-shop', 'ticketrush'])}",
    "valid already": lambda: f"Bearer {token(nbf=int(time.time()) - 60)}",
    "with more claims": lambda: f"Bearer {token(iss='somebody', iat=int(time.time()), jti='1', roles=['a'])}",
    "with a key id": lambda: f"Bearer {jwt.encode(claims(), FIRST, headers={'kid': '2026'})}",
    "scheme in lower case": lambda: f"bearer {token()}",
    "scheme in upper case": lambda: f"BEARER {token()}",
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_a_good_token_is_accepted(server: Server, new_sale: NewSale, what: str) -> None:
    assert reserve(server, new_sale(), ACCEPTED[what]()).status == 201


def test_our_tokens_are_accepted_by_a_library(server: Server) -> None:
    read = jwt.decode(
        server.mint("ada", ttl_s=60, scope="operator"), FIRST, algorithms=["HS256"], audience="ticketrush"
    )

    assert (read["sub"], read["scope"]) == ("ada", "operator")
    assert 0 < read["exp"] - time.time() <= 61


def test_the_buyer_is_the_subject_of_the_token(server: Server, new_sale: NewSale) -> None:
    answer = reserve(server, new_sale(), f"Bearer {token(SECOND, sub='ada')}")

    path = f"/v1/reservations/{answer.json()['id']}"
    assert server.call("GET", path, buyer="ada").status == 200
    assert server.call("GET", path, buyer="bob").status == 404


def test_where_tokens_are_asked_for_a_buyer_header_proves_nothing(server: Server, new_sale: NewSale) -> None:
    path = f"/v1/sales/{new_sale()}/reservations"

    answer = server.call("POST", path, {"item": "second"}, headers={"X-Buyer": "ada"})

    assert (answer.status, answer.code) == (401, "unauthorized")


OPERATOR_CALLS = [
    ("PUT", "/v1/sales/{sale}", {"items": [{"id": "second", "capacity": 1}]}),
    ("POST", "/v1/sales/{sale}/open", None),
    ("POST", "/v1/sales/{sale}/close", None),
    ("POST", "/v1/sales/{sale}/items/second/stock", {"units": 1}),
    ("POST", "/v1/reservations/0/refund", None),
    ("GET", "/v1/audit", None),
    ("GET", "/v1/audit/events", None),
    ("GET", "/v1/audit/state", None),
]


@pytest.mark.parametrize(("method", "path", "body"), OPERATOR_CALLS)
@pytest.mark.parametrize("scope", ["", "operators", "buyer"])
def test_operator_calls_are_refused_to_buyers(
    server: Server, new_sale: NewSale, method: str, path: str, body: object, scope: str
) -> None:
    sale = new_sale()
    headers = {"Authorization": f"Bearer {server.mint('ada', scope=scope)}", "Idempotency-Key": "k1"}

    answer = server.call(method, path.format(sale=sale), body, headers=headers)

    assert (answer.status, answer.code) == (403, "forbidden")
    assert server.level(sale)["capacity"] == 10
    assert server.call("GET", f"/v1/sales/{sale}").json()["state"] == "open"


@pytest.mark.parametrize(("method", "path", "body"), OPERATOR_CALLS)
def test_operator_calls_are_refused_without_a_token(
    server: Server, new_sale: NewSale, method: str, path: str, body: object
) -> None:
    answer = server.call(method, path.format(sale=new_sale()), body, headers={"Idempotency-Key": "k1"})

    assert (answer.status, answer.code) == (401, "unauthorized")


def test_an_operator_may_have_other_scopes_too(server: Server) -> None:
    headers = {"Authorization": f"Bearer {server.mint('ada', scope='buyer operator')}"}

    assert server.call("GET", "/v1/audit/state", headers=headers).status == 200
