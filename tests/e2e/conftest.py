"""What is made once for many tests here: a rush, and a browser."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.browser import Browser, browsing
from tests.e2e.rushes import Rush, rush


@pytest.fixture(scope="session")
def story(tmp_path_factory: pytest.TempPathFactory) -> Rush:
    """The full story in small: 3,000 buyers, 200 tickets, holds of 0.6 s that are abandoned and sold again."""
    return rush(tmp_path_factory.mktemp("story"), "--buyers", "3000", "--tickets", "200", "--hold", "0.6")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real browser, for one file: as long as there is one, its event loop runs, and no other one can."""
    with browsing() as started:
        yield started
