"""What is wrong with a cluster file, in words: the place, what to write, and what is there instead."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any, Final

from pydantic import ValidationError

_WORDS: Final = {
    "extra_forbidden": "is not known here",
    "tuple_type": 'write a list, like ["…"]',
    "model_type": "write a table, like {{ name = value }}",
    "missing": "is missing; write it too",
    "string_type": 'write text between quotes, like "…"',
    "string_too_long": "write {max_length} characters at most",
    "too_short": "write one at least",
    "too_long": "there are {actual_length}; write {max_length} at most",
    "int_type": "write a whole number",
    "int_parsing": "write a whole number",
    "int_parsing_size": "write a smaller number",
    "int_from_float": "write a whole number",
    "finite_number": "write a whole number",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "greater_than_equal": "write {ge} at least",
    "less_than_equal": "write {le} at most",
    "literal_error": "write {expected}",
    "ip_v4_address": 'write an IPv4 address, like "10.0.0.1"',
    "ip_v4_network": 'write an IPv4 network that begins at its address, like "10.0.1.0/24"',
}
"""What pydantic says in its own words, in ours; its names and its values of the context."""


def in_words(name: str, error: ValidationError, known: Collection[str], shapes: Mapping[str, str]) -> str:
    """What is wrong with the file `name`: each thing, on a line of its own if there are several.

    `known` are the names that a file may have, `shapes` what a text must be like, by its pattern.
    """
    lines = [_one(detail, known, shapes) for detail in error.errors(include_url=False)]
    return f"{name}: {lines[0]}" if len(lines) == 1 else "\n  ".join([f"{name} has {len(lines)} errors:", *lines])


def _one(detail: Any, known: Collection[str], shapes: Mapping[str, str]) -> str:
    place = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).lstrip(".")
    said = _what_to_write(detail, shapes)
    if detail["type"] == "extra_forbidden":
        said += _perhaps(str(detail["loc"][-1]), known)
    elif len(detail["loc"]) == 1 and detail["type"] in {"tuple_type", "missing", "too_short"}:
        said = f"write each of them as a table of its own: [[{place}]]"
    value = detail["input"]
    is_shown = isinstance(value, str | int | float | bool) and not _may_be_secret(detail)
    shown = f" (it is {value!r})" if is_shown else ""
    return f"{place}: {said}{shown}" if place else said


def _what_to_write(detail: Any, shapes: Mapping[str, str]) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "string_pattern_mismatch" and context["pattern"] in shapes:
        return f"write {shapes[context['pattern']]}"
    if kind not in _WORDS:
        return str(detail["msg"]).removeprefix("Value error, ")
    said = _WORDS[kind].format(**context)
    return said.replace("'", '"') if kind == "literal_error" else said


def _perhaps(name: str, known: Collection[str]) -> str:
    """What may have been meant by a name that is not known."""
    close = difflib.get_close_matches(name, sorted(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _may_be_secret(detail: Any) -> bool:
    """Whether a value is the password of OSPF, or has a name that is not known."""
    return bool(detail["loc"] == ("ospf", "key") or detail["type"] == "extra_forbidden")
