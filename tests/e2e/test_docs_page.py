"""The server's own pages, where there is no way to the internet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.e2e.browser import visiting
from tests.servers import Server, running


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as started:
        yield started


def test_docs_shows_every_call_without_the_internet(server: Server, browser: Browser) -> None:
    described = server.call("GET", "/openapi.json").json()

    with visiting(browser, f"{server.url}/docs", home=server.url) as visit:
        visit.page.get_by_text("Reserve units").first.wait_for(timeout=10_000)
        shown = visit.page.locator("body").inner_text().replace("\u200b", "")

    for path, operations in described["paths"].items():
        assert path in shown
        for operation in operations.values():
            assert operation["summary"] in shown


@pytest.mark.parametrize("path", ["/redoc", "/docs/oauth2-redirect", "/docs/files/nothing.js"])
def test_there_is_no_page_that_needs_the_internet(path: str, server: Server) -> None:
    assert server.call("GET", path, headers={"Accept": "text/html"}).code == "not_found"
