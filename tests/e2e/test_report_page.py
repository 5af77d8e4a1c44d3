"""The report as a person sees it: in a real browser, on a large and a small screen, by day and by night."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, Literal

import pytest
from playwright.sync_api import Browser, Locator, Page

from tests.e2e.browser import visiting
from tests.e2e.rushes import Rush

PLOTS: Final = (
    "Units sold, held and available over time",
    "Answers per second by kind",
    "Reservations made, paid, expired",
    "Latency in milliseconds by percentile",
)

VISIBILITY: Final = "line => getComputedStyle(line).visibility"

READABLE: Final = 4.5
"""Contrast of text to what is behind it, WCAG 2.2, 1.4.3."""


@pytest.fixture(scope="module")
def page(story: Rush, browser: Browser) -> Iterator[Page]:
    """The report of the story on a desk; it must ask for nothing and complain of nothing in all of its tests."""
    url = story.page.as_uri()
    with visiting(browser, url, home=url) as visit:
        yield visit.page


def plot(page: Page, label: str) -> Locator:
    """The plot with this label."""
    return page.locator(f'svg[data-plot][aria-label="{label}"]')


def data_of(drawing: Locator) -> dict[str, Any]:
    """The numbers behind a plot."""
    data: dict[str, Any] = json.loads(drawing.get_attribute("data-plot") or "")
    return data


def number(text: str) -> float:
    """The number in a text like "13,394 ms"."""
    return float(re.sub(r"[^0-9.]", "", text))


def contrast(of: Locator) -> float:
    """How well a text can be told from the first background behind it that is not transparent."""
    colors: list[str] = of.evaluate(
        """element => {
            let behind = element;
            while (getComputedStyle(behind).backgroundColor === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
            return [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
        }"""
    )
    darker, lighter = sorted(_luminance([int(part) for part in re.findall(r"\d+", color)[:3]]) for color in colors)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(rgb: list[int]) -> float:
    """WCAG's relative luminance of a colour."""
    linear = [(part / 255 / 12.92) if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


# --- what it says ------------------------------------------------------------------------------


def test_the_verdict_is_the_first_thing_to_see(page: Page) -> None:
    verdict = page.locator(".verdict")

    assert verdict.inner_text() == "✓ All eight audits hold"
    box = verdict.bounding_box()
    assert box is not None
    assert box["y"] < 100
    assert page.get_by_role("heading", level=1).inner_text().replace("\n", " ") == (
        "200 tickets sold to a crowd of 3,000: not one too many, not one too few."
    )


def test_the_tiles_have_the_figures_of_the_report(page: Page, story: Rush) -> None:
    report = story.report()

    tiles = page.get_by_role("region", name="Key figures").locator(".tile")
    shown = dict(zip(tiles.locator("span").all_inner_texts(), tiles.locator("b").all_inner_texts(), strict=True))

    assert all(tile.is_visible() for tile in tiles.all())
    assert shown["Tickets paid"] == "200"
    assert shown["Buyers served"] == "3,000"
    assert number(shown["Requests"]) == report["requests_per_s"]
    assert number(shown["Reservations"]) == report["reserve_per_s"]
    assert number(shown["Median latency"]) == pytest.approx(report["latency_ms"]["p50"], abs=0.051)
    assert number(shown["99th percentile"]) == pytest.approx(report["latency_ms"]["p99"], abs=0.051)
    assert number(shown["Server CPU"]) == pytest.approx(report["server_cpu_us_per_request"], abs=0.051)
    assert number(shown["Server memory"]) == pytest.approx(report["server_rss_mb"], abs=0.51)
    assert len(shown) == 8


def test_what_must_be_zero_is_zero_and_every_audit_is_explained(page: Page) -> None:
    zeros = page.get_by_role("region", name="What must be zero")
    audits = page.locator(".audit li")

    assert zeros.locator("b").all_inner_texts() == ["0", "0", "0", "0"]
    assert zeros.locator(".wrong").count() == 0
    assert audits.locator("small").all_inner_texts() == [f"I{number}" for number in range(1, 9)]
    assert audits.locator("mark").all_inner_texts() == ["✓"] * 8
    assert page.locator(".trouble").count() == 0


# --- the plots ---------------------------------------------------------------------------------


@pytest.mark.parametrize("label", PLOTS)
def test_a_plot_is_drawn_with_its_data(page: Page, label: str) -> None:
    drawing = plot(page, label)

    box = drawing.bounding_box()
    assert box is not None
    assert box["width"] > 400
    assert box["height"] > 150
    data = data_of(drawing)
    paths = drawing.locator("path")
    assert paths.count() == len(data["rows"]) >= 3
    for path in paths.all():
        length, paint = path.evaluate(
            """path => {
                const style = getComputedStyle(path);
                return [path.getTotalLength(), path.classList.contains("line") ? style.stroke : style.fill];
            }"""
        )
        assert length > 300, "from one side to the other"
        assert paint.startswith("rgb"), "a colour of the page"
        assert paint != "rgb(0, 0, 0)", "a colour of the page, not the default"
    assert any(number(value) > 0 for row in data["rows"] for value in row["values"])
    assert len(drawing.locator("text").all_inner_texts()) >= 6, "both axes have their figures"


def test_the_plot_of_the_stock_ends_with_everything_sold(page: Page) -> None:
    rows = {row["name"]: row["values"] for row in data_of(plot(page, PLOTS[0]))["rows"]}

    assert (rows["Available"][0], rows["Sold"][0]) == ("200", "0")
    assert [rows[name][-1] for name in ("Sold", "Held, not paid yet", "Available")] == ["200", "0", "0"]
    columns = zip(*rows.values(), strict=True)
    assert {sum(map(number, column)) for column in columns} == {200}, "always every unit"


@pytest.mark.parametrize("label", PLOTS)
def test_the_pointer_reads_the_values_off_a_plot(page: Page, label: str) -> None:
    drawing, tip = plot(page, label), page.locator(".tip")
    drawing.scroll_into_view_if_needed()
    box, data = drawing.bounding_box(), data_of(drawing)
    assert box is not None
    page.mouse.move(2, 2)
    assert not tip.is_visible()

    for share in (0.02, 0.5, 0.99):
        x = box["x"] + share * box["width"]
        page.mouse.move(x, box["y"] + box["height"] / 2)

        nearest = min(range(len(data["x"])), key=lambda at: abs(data["x"][at] - share * data["w"]))
        assert tip.locator("strong").inner_text() == data["names"][nearest]
        assert tip.locator("div span").all_inner_texts() == [row["values"][nearest] for row in data["rows"]]
        assert drawing.locator(".at").evaluate(VISIBILITY) == "visible"
        shown = tip.bounding_box()
        assert shown is not None
        assert shown["x"] >= 0
        assert shown["x"] + shown["width"] <= 1280, "it stays on the screen"
        assert not shown["x"] <= x <= shown["x"] + shown["width"], "it does not cover what it explains"

    page.mouse.move(2, 2)
    assert not tip.is_visible()
    assert drawing.locator(".at").evaluate(VISIBILITY) == "hidden"


def test_without_scripts_the_plots_are_still_complete(story: Rush, browser: Browser) -> None:
    url = story.page.as_uri()
    with visiting(browser, url, home=url, scripts=False) as visit:
        for label in PLOTS:
            assert plot(visit.page, label).locator("path").count() >= 3
            assert plot(visit.page, label).is_visible()


# --- where it is seen --------------------------------------------------------------------------


def test_by_day_and_by_night_it_can_be_read(story: Rush, browser: Browser) -> None:
    pages: dict[str, str] = {}
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        url = story.page.as_uri()
        with visiting(browser, url, home=url, scheme=scheme) as visit:
            pages[scheme] = visit.page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
            for text in (
                "h1",
                "h2",
                ".lead",
                ".verdict",
                ".tile b",
                ".tile span",
                ".zeros b",
                ".card > p",
                ".legend",
                ".tile i",
                ".audit small",
                "footer",
            ):
                assert contrast(visit.page.locator(text).first) >= READABLE, f"{text} when it is {scheme}"

    light, dark = (sum(map(int, re.findall(r"\d+", pages[scheme]))) for scheme in schemes)
    assert light > 700
    assert dark < 100


def test_on_a_telephone_nothing_is_wider_than_the_screen(story: Rush, browser: Browser) -> None:
    url = story.page.as_uri()
    with visiting(browser, url, home=url, width=390, height=844) as visit:
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390
        too_wide = visit.page.evaluate(
            """() => [...document.querySelectorAll("body *")]
                .filter(element => !element.closest(".scroll") && element.getBoundingClientRect().right > 390.5)
                .map(element => `${element.tagName} ${element.className}: ${element.textContent.slice(0, 40)}`)"""
        )
        assert too_wide == []
        for tile in visit.page.locator(".tile").all():
            assert tile.evaluate("tile => tile.scrollWidth <= tile.clientWidth"), tile.inner_text()
        stock = visit.page.locator(".scroll")
        assert stock.evaluate("box => box.scrollWidth > box.clientWidth"), "the wide plot scrolls by itself"
