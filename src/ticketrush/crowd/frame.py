"""What every report page has around it: the style, light and dark, and the script for values under the pointer."""

from __future__ import annotations

import html
from importlib.resources import files
from string import Template
from typing import Final

_FRAME: Final = Template(files("ticketrush.crowd").joinpath("frame.html").read_text(encoding="utf-8"))


def frame(title: str, main: str) -> str:
    """A whole page with the text `title` and the HTML `main`; it needs no file from elsewhere."""
    return _FRAME.substitute(title=html.escape(title), main=main)
