"""Draw the README's picture: python scripts/picture.py [--buyers 200000] [--tickets 10000] [FILE]

It runs a rush of that size and takes the upper part of its report, as a real browser shows it, into
FILE (docs/images/report.png). Run it on a machine that does nothing else: its figures are read.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from playwright.sync_api import sync_playwright

ROOT: Final = Path(__file__).parents[1]
WIDTH: Final = 1280
BYTES_MAX: Final = 300_000
PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS: Final = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run")

LAST: Final = ".cards > .card:nth-child(3)"
"""The picture ends below this card: verdict, figures, the stock, and the first row of smaller plots."""


def picture(page: Path, file: Path) -> None:
    """Write what a browser shows of the report `page` to `file`, as PNG."""
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        sys.exit("there is no Chromium; scripts/need chromium installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        view = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        view.goto(page.as_uri())
        box = view.locator(LAST).bounding_box()
        assert box is not None
        area = {"x": 0.0, "y": 0.0, "width": float(WIDTH), "height": box["y"] + box["height"] + 10}
        view.screenshot(path=file, full_page=True, clip=area)  # type: ignore[arg-type]
        browser.close()


def main() -> int:
    """Exit code 0 only if all was well with the rush and the picture is small enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=ROOT / "docs/images/report.png", metavar="FILE")
    parser.add_argument("--buyers", type=int, default=200_000)
    parser.add_argument("--tickets", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ticketrush-picture-") as folder:
        page = Path(folder) / "rush.html"
        size = ["--buyers", str(arguments.buyers), "--tickets", str(arguments.tickets)]
        done = subprocess.run([sys.executable, "-m", "ticketrush", "rush", *size, "--report", str(page)], check=False)
        if done.returncode:
            return done.returncode
        arguments.file.parent.mkdir(parents=True, exist_ok=True)
        picture(page, arguments.file)
    written = arguments.file.stat().st_size
    print(f"{arguments.file}: {written:,} bytes")
    if written > BYTES_MAX:
        print(f"that is more than {BYTES_MAX:,} bytes", file=sys.stderr)
    return int(written > BYTES_MAX)


if __name__ == "__main__":
    sys.exit(main())
