"""The SQL of the order stores, from the files beside this one: migrations and statements."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Final, NamedTuple

from ticketrush.orders.errors import StoreOutdated

_HERE: Final = files("ticketrush.orders")
_FILE: Final = re.compile(r"(\d{4})_\w+\.sql")
_BLOCK: Final = re.compile(r"^-- (\w+): ", re.MULTILINE)


class Migration(NamedTuple):
    """One step from a version of the tables to the next; `name` is its file's, without the ending."""

    number: int
    name: str
    sql: str


def migrations(backend: str) -> list[Migration]:
    """All migrations of a backend, in order, numbered from 1 without a gap."""
    found = []
    for file in _HERE.joinpath("migrations", backend).iterdir():
        match = _FILE.fullmatch(file.name)
        if match:
            found.append(Migration(int(match[1]), file.name.removesuffix(".sql"), file.read_text("utf-8")))
    found.sort()
    assert [each.number for each in found] == list(range(1, len(found) + 1)), f"a gap in the migrations of {backend}"
    return found


def missing(known: Sequence[Migration], applied: Sequence[tuple[int, str]], where: str) -> list[Migration]:
    """Those of the known migrations that are to be applied after those that were.

    Raises:
        StoreOutdated: what was applied is not what this program knows: it was a newer one, or another.
    """
    names = [name for _, name in applied]
    if names != [each.name for each in known[: len(names)]]:
        raise StoreOutdated(
            f"the tables in {where} were made by another version of this program (they have {names[-1]}, it knows "
            f"{known[-1].name}); update it"
        )
    return list(known[len(names) :])


def check_whole(known: Sequence[Migration], applied: Sequence[tuple[int, str]], where: str) -> None:
    """Raises StoreOutdated unless exactly the known migrations were applied."""
    lacking = missing(known, applied, where)
    if lacking:
        state = "has no tables yet" if not applied else f"lacks {', '.join(each.name for each in lacking)}"
        raise StoreOutdated(f"the order store {where} {state}: run `ticketrush migrate --orders {where}`")


def statements(backend: str) -> Mapping[str, str]:
    """The statements of a backend by name, from ``BACKEND.sql``."""
    _, *parts = _BLOCK.split(_HERE.joinpath(f"{backend}.sql").read_text("utf-8"))
    blocks = zip(parts[::2], parts[1::2], strict=True)
    return {name: f"-- {name}: {text.strip()}" for name, text in blocks}
