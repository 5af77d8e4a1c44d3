"""SQL from files: each file has blocks that begin with ``-- name: WORD``."""

from __future__ import annotations

from importlib.resources import files


def statements(file: str) -> dict[str, str]:
    """The blocks of `file` in this room, by their names."""
    text = files("ticketrush.strategies").joinpath(file).read_text("utf-8")
    blocks = text.split("-- name: ")[1:]
    return {name.strip(): body.strip() for name, _, body in (block.partition("\n") for block in blocks)}
