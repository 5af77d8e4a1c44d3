"""When the first hold of each book falls due, soonest first: asked at every batch, whatever the number of sales."""

from __future__ import annotations

import heapq
import itertools
from typing import Final

from ticketrush.ledger.redis_sale import RedisSale

STALE_MAX: Final = 64
"""Entries that are out of date and kept all the same, before all of them are struck out."""

Entry = tuple[int, int, RedisSale, int]
"""When, the order of arrival, and the book: its sale and number."""


class Due:
    """The books that have holds. An entry counts as long as its book still says the same."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._arrivals = itertools.count()
        self._most = STALE_MAX

    def put(self, sale: RedisSale, number: int) -> None:
        """A book has heard when its first hold falls due."""
        at_ms = sale.books[number].next_due_ms
        if at_ms is None:
            return
        heapq.heappush(self._entries, (at_ms, next(self._arrivals), sale, number))
        if len(self._entries) > self._most:
            self._entries = list({(id(each[2]), each[3]): each for each in self._entries if _is_so(each)}.values())
            heapq.heapify(self._entries)
            self._most = STALE_MAX + 2 * len(self._entries)

    def first_ms(self) -> int | None:
        """When the first hold of all falls due; None while nothing is held."""
        while self._entries and not _is_so(self._entries[0]):
            heapq.heappop(self._entries)
        return self._entries[0][0] if self._entries else None

    def by(self, at_ms: int) -> list[tuple[int, RedisSale, int]]:
        """The books whose first hold is due by `at_ms`, oldest first."""
        found = {}
        while self._entries and self._entries[0][0] <= at_ms:
            entry = heapq.heappop(self._entries)
            if _is_so(entry):
                found[entry[2].id, entry[3]] = entry
        for entry in found.values():
            heapq.heappush(self._entries, entry)
        return [(entry[0], entry[2], entry[3]) for _, entry in sorted(found.items(), key=lambda of: (of[1][0], of[0]))]


def _is_so(entry: Entry) -> bool:
    at_ms, _, sale, number = entry
    return sale.books[number].next_due_ms == at_ms
