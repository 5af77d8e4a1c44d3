"""News of payments: only who has the secret is believed, and what is told has one effect, in any order."""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.gateways import OTHER_SECRET, PATH, SECRET, Purse, news, signed
from tests.servers import FRONTS, ON_REDIS, Server, running
from tests.wire import Answer, request
from ticketrush.payments.signatures import TOLERANCE_S

HOLD_S = 1.0
PRICE = 700

_sales = itertools.count(1)
_messages = itertools.count(1)


@pytest.fixture(scope="module")
def purse() -> Iterator[Purse]:
    """The gateway that has made all these payments."""
    with contextlib.closing(Purse()) as purse:
        yield purse


@pytest.fixture(scope="module", params=(*FRONTS, ON_REDIS))
def server(request: pytest.FixtureRequest, purse: Purse) -> Iterator[Server]:
    """A node that verifies with two secrets."""
    with running(request.param, env=purse.env) as server:
        yield server


def hold(server: Server, capacity: int = 5, hold_window_s: float = 300, quantity: int = 1) -> str:
    """An order of a new sale; its id."""
    sale = f"paid-{next(_sales)}"
    items = [{"id": "second", "capacity": capacity, "price_minor": PRICE}]
    assert server.call("PUT", f"/v1/sales/{sale}", {"items": items, "hold_window_s": hold_window_s}).status == 201
    server.call("POST", f"/v1/sales/{sale}/open")
    return str(server.reserve(sale, quantity=quantity, buyer="ada").json()["id"])


def tell(server: Server, body: bytes, **how: Any) -> Answer:
    """Send a message with headers of its own."""
    return post(server, body, signed(body, id=f"msg_{next(_messages)}", **how))


def post(server: Server, body: bytes, headers: dict[str, str]) -> Answer:
    with server.connect() as wire:
        wire.send(request("POST", PATH, body, headers))
        return wire.answer()


def order(server: Server, id: str) -> dict[str, Any]:
    read: dict[str, Any] = server.call("GET", f"/v1/orders/{id}", buyer="ada").json()
    return read


def level(server: Server, id: str) -> tuple[int, int, int]:
    """Units available, held and sold of the sale of an order."""
    level = server.level(order(server, id)["sale"])
    return level["available"] + level["leased"], level["held"], level["sold"]


def expired(server: Server, id: str) -> None:
    """Wait until the order's hold is gone."""
    while order(server, id)["state"] == "held":
        time.sleep(0.02)


# --- who is believed -----------------------------------------------------------------------------


def test_an_approved_payment_is_settled_and_durable_when_it_is_answered(server: Server) -> None:
    id = hold(server, quantity=2)

    answer = tell(server, news("approved", id, "ch_x", 2 * PRICE))

    assert (answer.status, answer.json()) == (200, {"effect": "paid"})
    read = order(server, id)
    assert (read["state"], read["payment"]) == ("paid", {"state": "approved", "id": "ch_x"})
    assert level(server, id) == (3, 0, 2)


def test_either_of_two_secrets_signs_and_one_of_several_signatures_suffices(server: Server) -> None:
    first, second, third = hold(server), hold(server), hold(server)
    assert tell(server, news("approved", first, amount_minor=PRICE), secret=SECRET).status == 200
    assert tell(server, news("approved", second, amount_minor=PRICE), secret=OTHER_SECRET).status == 200

    body = news("approved", third, amount_minor=PRICE)
    headers = signed(body)
    headers["webhook-signature"] = f"v1a,abc v1,AAAA {headers['webhook-signature']}"
    assert post(server, body, headers).status == 200


def forgeries(body: bytes) -> dict[str, tuple[bytes, dict[str, str]]]:
    """Messages that nobody may believe, by what is wrong with them."""
    good = signed(body)
    signature = good["webhook-signature"]
    flipped = bytearray(body)
    flipped[-20] ^= 1
    return {
        "a flipped byte": (bytes(flipped), good),
        "a space more": (body + b" ", good),
        "an old timestamp": (body, signed(body, age_s=TOLERANCE_S + 5)),
        "a future timestamp": (body, signed(body, age_s=-TOLERANCE_S - 5)),
        "a newer timestamp than signed": (body, good | {"webhook-timestamp": str(int(good["webhook-timestamp"]) + 1)}),
        "a timestamp that is none": (body, good | {"webhook-timestamp": "now"}),
        "another id": (body, good | {"webhook-id": "msg_2"}),
        "another secret": (body, signed(body, secret="whsec_" + "QUFB" * 10)),
        "no id": (body, {name: value for name, value in good.items() if name != "webhook-id"}),
        "no timestamp": (body, {name: value for name, value in good.items() if name != "webhook-timestamp"}),
        "no signature": (body, {name: value for name, value in good.items() if name != "webhook-signature"}),
        "no headers": (body, {}),
        "an empty signature": (body, good | {"webhook-signature": ""}),
        "another version": (body, good | {"webhook-signature": signature.replace("v1,", "v2,")}),
        "no version": (body, good | {"webhook-signature": signature.removeprefix("v1,")}),
        "half a signature": (body, good | {"webhook-signature": signature[:-8]}),
        "spare bits flipped": (body, good | {"webhook-signature": _spare_bit(signature)}),
        "not UTF-8": (b"\xff" + body, good),
        "no body": (b"", good),
    }


def _spare_bit(signature: str) -> str:
    """The same signature, differently written: the last character before the "=" has two bits to spare."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    return signature[:-2] + letters[letters.index(signature[-2]) ^ 1] + "="


def test_what_is_forged_has_no_effect_and_is_not_told_what_is_wrong(server: Server) -> None:
    id = hold(server)
    answers = {
        what: post(server, body, headers)
        for what, (body, headers) in forgeries(news("approved", id, amount_minor=PRICE)).items()
    }

    accepted = {what: answer.status for what, answer in answers.items() if answer.status != 401}
    assert not accepted
    assert {answer.code for answer in answers.values()} == {"invalid_signature"}
    assert len({answer.body for answer in answers.values()}) == 1
    assert level(server, id) == (4, 1, 0)


def test_no_secret_and_no_signature_is_logged(server: Server) -> None:
    body = news("approved", "unknown", amount_minor=PRICE)
    tell(server, body)
    post(server, body, {})
    said = server.errors()
    assert re.search(r"webhook_forged .*reason=(signature|timestamp)", said)
    assert SECRET.removeprefix("whsec_") not in said
    assert "v1," not in said


def test_who_forges_much_fills_no_log(server: Server) -> None:
    before, began = server.errors().count("webhook_forged"), time.monotonic()
    with server.connect() as wire:
        for _ in range(5):
            wire.send(request("POST", PATH, b"{}") * 40)
            assert {answer.status for answer in wire.answers(40)} == {401}
    at_most = 1 + time.monotonic() - began
    assert server.errors().count("webhook_forged") - before <= at_most
    time.sleep(1.0)
    post(server, b"{}", {"webhook-id": "m" * 100})
    assert re.search(r"webhook_forged .*\bid=m{64}\s", server.errors()), "the id is cut"
    assert sum(int(count) for count in re.findall(r"webhook_forged .*?count=(\d+)", server.errors())) >= 201


def test_without_a_secret_nothing_is_believed() -> None:
    with running() as server:
        id = hold(server)
        assert tell(server, news("approved", id, amount_minor=PRICE)).code == "invalid_signature"
        assert level(server, id) == (4, 1, 0)


# --- what is believed ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"amount_minor": -1},
        {"amount_minor": PRICE, "payment": ""},
        {"amount_minor": PRICE, "payment": "a b"},
    ],
)
def test_a_payment_that_can_be_none_is_refused_and_nothing_happens(server: Server, wrong: dict[str, Any]) -> None:
    id = hold(server)
    for kind in ("approved", "refunded"):
        assert tell(server, news(kind, id, **wrong)).code == "invalid_request"
    assert (order(server, id)["state"], level(server, id)) == ("held", (4, 1, 0))


@pytest.mark.parametrize("wrong", [{"amount_minor": PRICE - 1}, {"amount_minor": PRICE, "currency": "USD"}])
def test_another_amount_or_currency_is_given_back_and_the_hold_goes_on(
    server: Server, purse: Purse, wrong: dict[str, Any]
) -> None:
    id, payment = hold(server), f"ch_wrong_{next(_messages)}"
    for kind, effect in (("declined", "noted"), ("approved", "refunded"), ("refunded", "noted")):
        assert tell(server, news(kind, id, payment, **wrong)).json() == {"effect": effect}
    assert payment in purse.given_back
    assert (order(server, id)["state"], level(server, id)) == ("held", (4, 1, 0))
    assert tell(server, news("approved", id, f"{payment}_right", PRICE)).json() == {"effect": "paid"}


def test_of_what_is_paid_another_amount_is_refused_unless_the_money_is_gone(server: Server, purse: Purse) -> None:
    id, payment = hold(server), f"ch_part_{next(_messages)}"
    assert tell(server, news("approved", id, payment, PRICE)).json() == {"effect": "paid"}
    for kind in ("approved", "declined", "refunded"):
        answer = tell(server, news(kind, id, payment, PRICE - 1))
        assert (answer.status, answer.code) == (422, "payment_mismatch")
    assert order(server, id)["state"] == "paid"
    assert payment not in purse.given_back

    purse.given_back.add(payment)
    assert tell(server, news("refunded", id, payment, PRICE - 1)).json() == {"effect": "refunded"}
    assert level(server, id) == (5, 0, 0)


def test_money_for_an_unknown_order_is_given_back(server: Server, purse: Purse) -> None:
    payment = f"ch_lost_{next(_messages)}"
    for kind, effect in (
        ("declined", "noted"),
        ("approved", "refunded"),
        ("approved", "refunded"),
        ("refunded", "noted"),
    ):
        answer = tell(server, news(kind, "0" * 32, payment, PRICE))
        assert (answer.status, answer.json()) == (200, {"effect": effect})
    assert payment in purse.given_back
    assert "payment_of_unknown_order" in server.errors()


def test_money_that_the_gateway_does_not_give_back_is_not_said_to_be_back(server: Server) -> None:
    cancelled, paid, payment = hold(server), hold(server), f"ch_strange_{next(_messages)}"
    server.call("DELETE", f"/v1/reservations/{cancelled}", buyer="ada")
    assert tell(server, news("approved", cancelled, payment, PRICE)).code == "unknown"

    assert tell(server, news("approved", paid, payment, PRICE)).json() == {"effect": "paid"}
    refused = server.call("POST", f"/v1/reservations/{paid}/refund")
    assert (refused.status, refused.code, order(server, paid)["state"]) == (503, "unknown", "paid")

    lines = [line for line in server.errors().splitlines() if payment in line]
    assert [line for line in lines if "payment_not_given_back" in line]
    assert not [line for line in lines if "payment_given_back" in line]


def test_other_messages_are_taken_and_ignored(server: Server) -> None:
    answer = tell(server, b'{"type":"invoice.created","data":1}')
    assert (answer.status, answer.json()) == (200, {"effect": "ignored"})


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"{", 400, "malformed"),
        (b"[]", 422, "invalid_request"),
        (b'{"type":"payment.approved"}', 422, "invalid_request"),
        (b'{"type":"x","pad":"' + b"x" * 16_384 + b'"}', 413, "body_too_large"),
    ],
)
def test_a_signed_message_that_is_none_is_refused(server: Server, body: bytes, status: int, code: str) -> None:
    answer = tell(server, body)
    assert (answer.status, answer.code) == (status, code)


def test_a_header_that_comes_twice_is_refused(server: Server) -> None:
    body = news("approved", hold(server), amount_minor=PRICE)
    data = request("POST", PATH, body, signed(body)).replace(b"webhook-id:", b"webhook-id: x\r\nwebhook-id:", 1)
    with server.connect() as wire:
        wire.send(data)
        assert wire.answer().status == 400


def test_the_call_is_a_post(server: Server) -> None:
    answer = server.call("GET", PATH)
    assert (answer.status, answer.header("allow")) == (405, "POST")


# --- one effect, in any order --------------------------------------------------------------------


def test_the_same_news_has_one_effect(server: Server) -> None:
    id = hold(server)
    body = news("approved", id, amount_minor=PRICE)
    again = [tell(server, body) for _ in range(5)]
    with server.connect() as wire:  # the very same bytes, all at once
        wire.send(request("POST", PATH, body, signed(body)) * 20)
        again += wire.answers(20)

    assert {(answer.status, answer.body) for answer in again} == {(200, b'{"effect":"paid"}')}
    assert level(server, id) == (4, 0, 1)


@pytest.mark.parametrize(
    "sequence", sorted(set(itertools.permutations(["approved", "refunded", "approved", "declined"])))
)
def test_a_refunded_payment_ends_refunded_in_whatever_order_it_is_told(
    server: Server, sequence: tuple[str, ...]
) -> None:
    id = hold(server)
    for kind in sequence:
        payment = "ch_declined" if kind == "declined" else "ch_1"
        assert tell(server, news(kind, id, payment, PRICE)).status == 200

    assert order(server, id)["state"] == "refunded"
    assert level(server, id) == (5, 0, 0)


def test_a_declined_payment_changes_nothing_before_or_after_an_approved_one(server: Server) -> None:
    id = hold(server)
    assert tell(server, news("declined", id, "ch_1", PRICE)).json() == {"effect": "noted"}
    assert order(server, id)["state"] == "held"
    assert tell(server, news("approved", id, "ch_2", PRICE)).json() == {"effect": "paid"}
    assert tell(server, news("declined", id, "ch_3", PRICE)).json() == {"effect": "noted"}
    assert tell(server, news("refunded", id, "ch_3", PRICE)).json() == {"effect": "noted"}
    assert order(server, id)["payment"] == {"state": "approved", "id": "ch_2"}


def test_a_second_payment_of_an_order_is_given_back(server: Server) -> None:
    id = hold(server)
    tell(server, news("approved", id, "ch_1", PRICE))
    assert tell(server, news("approved", id, "ch_2", PRICE)).json() == {"effect": "refunded"}
    assert order(server, id)["payment"] == {"state": "approved", "id": "ch_1"}


def test_a_late_payment_gets_a_free_unit_once(server: Server) -> None:
    id = hold(server, 1, HOLD_S)
    expired(server, id)
    payment = f"ch_late_{next(_messages)}"
    body = news("approved", id, payment, PRICE)

    told = [tell(server, body).json()["effect"] for _ in range(3)]

    assert told == ["replaced"] * 3
    again = order(server, order(server, id)["replaced_by"])
    assert (again["state"], again["payment"]["id"]) == ("paid", payment)
    assert level(server, id) == (0, 0, 1)
    assert tell(server, news("refunded", id, payment, PRICE)).json() == {"effect": "refunded"}
    assert level(server, id) == (1, 0, 0)
    assert tell(server, body).json() == {"effect": "refunded"}, "the money is back: no unit again"
    assert level(server, id) == (1, 0, 0)


def test_a_late_payment_without_a_free_unit_is_given_back(server: Server) -> None:
    id = hold(server, 1, HOLD_S)
    expired(server, id)
    winner = server.reserve(order(server, id)["sale"], buyer="bob").json()["id"]
    assert tell(server, news("approved", winner, "ch_bob", PRICE)).json() == {"effect": "paid"}

    assert tell(server, news("approved", id, "ch_ada", PRICE)).json() == {"effect": "refunded"}

    assert order(server, id)["state"] == "expired"
    assert level(server, id) == (0, 0, 1)
    assert "payment_given_back" in server.errors()


def test_a_payment_of_a_cancelled_order_is_given_back(server: Server) -> None:
    id = hold(server)
    server.call("DELETE", f"/v1/reservations/{id}", buyer="ada")
    assert tell(server, news("approved", id, amount_minor=PRICE)).json() == {"effect": "refunded"}
    assert level(server, id) == (5, 0, 0)


def test_after_all_of_this_the_invariants_hold(server: Server) -> None:
    audit = server.audit()
    assert audit["ok"], json.dumps(audit)[:2_000]
