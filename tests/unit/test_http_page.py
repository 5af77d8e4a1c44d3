"""docs/http.md: no call and no problem code is left out, and none is made up."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest
from fastapi.routing import APIRoute

from ticketrush.http import buyers, operations, operators, webhooks
from ticketrush.http.problems import KINDS

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
