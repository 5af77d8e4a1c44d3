"""A real browser that is cut off from everything but what it is told to open."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from playwright.sync_api import Browser, Page, Route, sync_playwright

__all__ = ["Browser", "Visit", "browsing", "visiting"]

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome", "/usr/bin/chromium")
"""As scripts/need looks for them."""

ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
)


@contextlib.contextmanager
def browsing() -> Iterator[Browser]:
    """Chromium, without a window. Fails, never skips, where there is none."""
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    assert program is not None, "no Chromium; `scripts/need chromium` installs it"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page that was opened, and what it did beyond being shown."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    """Errors and warnings on its console, and exceptions of its scripts."""
    strangers: list[str] = field(default_factory=list)
    """Addresses that it asked for and must not know. They got no answer."""

    def check(self) -> None:
        """It complained of nothing, and asked nobody else."""
        assert self.strangers == []
        assert self.complaints == []


@contextlib.contextmanager
def visiting(
    browser: Browser,
    url: str,
    *,
    home: str,
    width: int = 1280,
    height: int = 900,
    scheme: Literal["light", "dark"] = "light",
    scripts: bool = True,
) -> Iterator[Visit]:
    """Open `url`, let it ask for addresses that begin with `home`, and check at the end that it asked for no others."""
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, java_script_enabled=scripts
    )
    try:
        visit = Visit(context.new_page())

        def answer(route: Route) -> None:
            if route.request.url.startswith((home, "data:")):
                route.continue_()
            else:
                visit.strangers.append(route.request.url)
                route.abort()

        context.route("**/*", answer)
        visit.page.on("console", lambda said: _note(visit, said))
        visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        visit.page.goto(url)
        yield visit
        visit.check()
    finally:
        context.close()


def _note(visit: Visit, said: Any) -> None:
    if said.type in {"error", "warning"}:
        visit.complaints.append(f"{said.type}: {said.text}")
