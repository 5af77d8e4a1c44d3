"""What is wrong with a cluster file, in words: the place, what to write, and what is there instead."""

from __future__ import annotations

import difflib
import re
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

_AT: Final = re.compile(
    r"^(?:Invalid value|Expected newline|Unclosed).* \(at line (?P<line>\d+), column (?P<column>\d+)\)$"
)
"""Errors of TOML that a text without quotes leads to."""

_BEFORE: Final = re.compile(r"[\w./:*-]*$")
_AFTER: Final = re.compile(r"[\w./:*-]*")


def in_words(
    name: str, error: ValidationError, known: Collection[str], shapes: Mapping[str, str], tables: Mapping[str, str]
) -> str:
    """What is wrong with the file `name`: each thing, on a line of its own if there are several.

    `known` are the names that a file may have, `shapes` what a text must be like, by its pattern, `tables` how a table
    within a table is written, by its name.
    """
    details = error.errors(include_url=False)
    meant = {(*detail["loc"][:-1], _meant(detail, known)) for detail in details}
    lines = [_one(detail, known, shapes, tables) for detail in details if not _follows(detail, meant)]
    return f"{name}: {lines[0]}" if len(lines) == 1 else "\n  ".join([f"{name} has {len(lines)} errors:", *lines])


def _follows(detail: Any, meant: Collection[tuple[str | int, ...]]) -> bool:
    """Whether a thing is wrong because of another one alone: it is there by another name, or has mistakes itself."""
    if detail["type"] == "too_short":
        return bool(detail["input"])
    return detail["type"] == "missing" and detail["loc"] in meant


def about_quotes(text: str, said: str) -> str:
    """What to add to `said`, an error of TOML in `text`, where a value has no quotes; "" elsewhere."""
    found = _AT.search(said)
    if found is None:
        return ""
    line, at = text.split("\n")[int(found["line"]) - 1], int(found["column"]) - 1
    before, after = (part[0] if part else "" for part in (_BEFORE.search(line[:at]), _AFTER.match(line[at:])))
    is_begun = said.startswith("Invalid value") or before  # 10.0.0.1 begins as a number
    if not is_begun or not after or (before + after).isdecimal():
        return ""
    return "; write true or false" if after in {"True", "False"} else '; text needs quotes, like "…"'


def _one(detail: Any, known: Collection[str], shapes: Mapping[str, str], tables: Mapping[str, str]) -> str:
    place = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).lstrip(".")
    if len(detail["loc"]) == 1 and detail["type"] in {"missing", "too_short"}:
        return f"{place} is missing: name one {place.removesuffix('s')} at least, as [[{place}]]"
    said, value = _what_to_write(detail, shapes), detail["input"]
    if detail["type"] == "extra_forbidden":
        close = _meant(detail, known)
        said += f"; did you mean {close}?" if close else ""
    elif len(detail["loc"]) == 1 and detail["type"] == "tuple_type":
        said = f"write each of them as a table of its own: [[{place}]]"
    elif detail["type"] == "model_type" and detail["loc"][-1] in tables:
        said = f"write {tables[detail['loc'][-1]]}"
    elif detail["type"] in {"int_type", "bool_type"} and isinstance(value, str):
        said += ", without quotes"
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


def _meant(detail: Any, known: Collection[str]) -> str:
    """What may have been meant by a name that is not known; "" if it is known, or like none that is."""
    if detail["type"] != "extra_forbidden":
        return ""
    return next(iter(difflib.get_close_matches(str(detail["loc"][-1]), sorted(known), n=1)), "")


def _may_be_secret(detail: Any) -> bool:
    """Whether a value is the password of OSPF, or has a name that is not known."""
    return bool(detail["loc"] == ("ospf", "key") or detail["type"] == "extra_forbidden")
