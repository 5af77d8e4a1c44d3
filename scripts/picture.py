"""Draw the pictures of the documentation: python scripts/picture.py [rush|strategies] [FILE]

It runs the command and takes the upper part of its report, as a real browser shows it, into FILE
(docs/images/report.png, docs/images/strategies.png). Run it on a machine that does nothing else: its
figures are read.
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

COMMANDS: Final = {
    "rush": ("rush", "--buyers", "200000", "--tickets", "10000"),
    "strategies": ("strategies", "--database", "both"),
}
FILES: Final = {"rush": ROOT / "docs/images/report.png", "strategies": ROOT / "docs/images/strategies.png"}
LAST: Final = {"rush": ".cards > .card:nth-child(3)", "strategies": ".cards > .card:nth-child(5)"}
"""The picture ends below this card."""


def picture(page: Path, file: Path, last: str) -> None:
    """Write what a browser shows of the report `page` to `file`, as PNG; it ends below the element `last`."""
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None:
        sys.exit("there is no Chromium; scripts/need chromium installs it")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        view = browser.new_page(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        view.goto(page.as_uri())
        box = view.locator(last).bounding_box()
        assert box is not None
        area = {"x": 0.0, "y": 0.0, "width": float(WIDTH), "height": box["y"] + box["height"] + 10}
        view.screenshot(path=file, full_page=True, clip=area)  # type: ignore[arg-type]
        browser.close()


def main() -> int:
    """Exit code 0 only if all was well with the run and the picture is small enough."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=sorted(COMMANDS), default="rush")
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    file: Path = arguments.file or FILES[arguments.what]
    with tempfile.TemporaryDirectory(prefix="ticketrush-picture-") as folder:
        page = Path(folder) / "report.html"
        command = [sys.executable, "-m", "ticketrush", *COMMANDS[arguments.what], "--report", str(page)]
        done = subprocess.run(command, check=False)
        if done.returncode:
            return done.returncode
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(page, file, LAST[arguments.what])
    written = file.stat().st_size
    print(f"{file}: {written:,} bytes")
    if written > BYTES_MAX:
        print(f"that is more than {BYTES_MAX:,} bytes", file=sys.stderr)
    return int(written > BYTES_MAX)


if __name__ == "__main__":
    sys.exit(main())
