"""Write the settings of the cluster file into a page: python scripts/cluster_file_tables.py docs/front-door.md.

They go between the two marks in it. A test compares the page with what this makes, so a setting cannot be forgotten.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ticketrush.edge.cluster_file import SHAPES, ClusterFile

BEGIN = "<!-- settings: written by scripts/cluster_file_tables.py from src/ticketrush/edge/cluster_file.py -->"
END = "<!-- end of settings -->"

_SCHEMA = ClusterFile.model_json_schema()
_KINDS = {"ipv4": "an IPv4 address", "ipv4network": "an IPv4 network"}


def with_tables(page: str) -> str:
    """The page with the tables as they are now. Raises ValueError if it lacks the marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page needs the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables()}\n{END}{after}"


def tables() -> str:
    """A table for each table of the file."""
    return "\n".join("\n".join(_table(name, table)) + "\n" for name, table in _tables("", _SCHEMA))


def _tables(place: str, table: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each table that is somewhere in `table`, called as in a TOML file; a table comes before those in it."""
    for name, field in table["properties"].items():
        below = _table_of(field)
        if below is not None:
            inner = f"{place}{name}"
            yield f"[[{inner}]]" if field.get("type") == "array" else f"[{inner}]", below
            yield from _tables(f"{inner}.", below)


def _table_of(field: dict[str, Any]) -> dict[str, Any] | None:
    """What is in a field that is a table, or a list of tables; else None."""
    for choice in (field, field.get("items", {}), *field.get("anyOf", ())):
        if "$ref" in choice:
            found: dict[str, Any] = _SCHEMA["$defs"][choice["$ref"].rpartition("/")[2]]
            return found
    return None


def _table(name: str, table: dict[str, Any]) -> Iterator[str]:
    yield f"| `{name}` | default | range | meaning |"
    yield "|---|---|---|---|"
    for key, field in table["properties"].items():
        if "description" not in field:
            raise ValueError(f"{name} {key} has no docstring in cluster_file.py, which is its meaning here")
        must = key in table.get("required", ())
        default = "must be there" if must else _default(field)
        yield f"| `{key}` | {default} | {_range(field)} | {field['description']} |"


def _default(field: dict[str, Any]) -> str:
    value = field["default"]
    if value is None or value == []:
        return "none"
    if isinstance(value, dict):
        return "its defaults"
    return f"`{json.dumps(value)}`"


def _range(field: dict[str, Any]) -> str:
    if _table_of(field) is not None:
        return "a table, below"
    if "anyOf" in field:
        return _range(next(choice for choice in field["anyOf"] if choice.get("type") != "null"))
    if field.get("type") == "array":
        return f"a list; each {_range(field['items'])}"
    if "enum" in field:
        return ", ".join(f"`{json.dumps(value)}`" for value in field["enum"])
    if "pattern" in field:
        return SHAPES[field["pattern"]]
    if "minimum" in field:
        return f"{field['minimum']:,} to {field['maximum']:,}"
    return "`true`, `false`" if field["type"] == "boolean" else _KINDS[field["format"]]


if __name__ == "__main__":
    file = Path(sys.argv[1])
    file.write_text(with_tables(file.read_text("utf-8")), "utf-8")
