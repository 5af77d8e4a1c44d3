"""docs/http.md: no call and no problem code is left out, and none is made up; answers are the server's."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
import pytest
from fastapi.routing import APIRoute

from ticketrush import model as m
from ticketrush.http import buyers, operations, operators, webhooks
from ticketrush.http.answers import ReservationView, SaleView
from ticketrush.http.buyers import OrderView, PaidView
from ticketrush.http.orders import OrdersView
from ticketrush.http.problems import KINDS
from ticketrush.http.requests import ID_MAX, ReservationId
from ticketrush.ids import Ids
from ticketrush.ledger.redis_sale import RedisSale

PAGE: Final = (Path(__file__).parents[2] / "docs/http.md").read_text(encoding="utf-8")
ROW: Final = re.compile(r"^\| `(\w+)` \| (\d{3}) \| (.+) \|$", re.MULTILINE)

CALLS: Final = [
    (method, route.path)
    for router in (buyers.router, buyers.demo_router, operators.router, operations.router, webhooks.router)
    for route in router.routes
    if isinstance(route, APIRoute)
    for method in sorted(route.methods or ())
]


def test_every_problem_code_is_in_the_table_with_its_status_and_its_words() -> None:
    table = {code: (int(status), words) for code, status, words in ROW.findall(PAGE)}

    assert table == {code: (kind.status, kind.detail) for code, kind in KINDS.items()}


def test_every_code_that_an_example_shows_exists() -> None:
    assert set(re.findall(r'"code":"(\w+)"', PAGE)) <= set(KINDS)


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_every_call_is_described(method: str, path: str) -> None:
    assert re.search(rf"`{method}`?[^`\n]*`?{re.escape(path)}[`?]", PAGE), f"{method} {path} is not in docs/http.md"


def test_links_inside_the_page_lead_somewhere() -> None:
    headings = {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", PAGE, re.MULTILINE)
    }

    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= headings


def examples() -> Iterator[dict[str, Any]]:
    """The bodies of the answers on the page."""
    for block in re.findall(r"```http\n(.*?)```", PAGE, re.DOTALL):
        body = block.partition("\n\n")[2]
        if body:
            yield json.loads(body)


@pytest.mark.parametrize(
    ("view", "is_one"),
    [
        (PaidView, lambda body: body.keys() >= {"order", "payment"} and isinstance(body["order"], dict)),
        (OrderView, lambda body: isinstance(body.get("payment"), dict) and "id" in body),
        (OrdersView, lambda body: "orders" in body),
        (ReservationView, lambda body: "changed_at" in body),
        (SaleView, lambda body: "items" in body),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_answers_on_the_page_have_the_fields_of_the_servers(
    view: type[msgspec.Struct], is_one: Callable[[dict[str, Any]], bool]
) -> None:
    found = [body for body in examples() if is_one(body)]
    assert found
    for body in found:
        assert msgspec.to_builtins(msgspec.convert(body, view)) == body


def test_the_page_and_the_description_say_how_long_an_id_may_be() -> None:
    sale = RedisSale(m.Sale("g1", (m.Item("second", 1),)), 2**63 - 1, 64, "")
    assert max(len(Ids().draw() + route) for route in sale.routes) == ID_MAX
    assert f"at most {ID_MAX} of" in PAGE
    assert f"at most {ID_MAX} of" in get_args(ReservationId)[1].description
