"""Expires holds: the oldest due ones of all books first, as one ledger would.

What several books have due is read first, to know how far each may go: then they go side by side.
"""

from __future__ import annotations

from collections import Counter
from typing import Final, NamedTuple

from ticketrush import model as m
from ticketrush.ledger.redis_node import RedisNode, all_of
from ticketrush.ledger.redis_sale import RedisSale

AT_ONCE: Final = 1_000
"""Holds that one script expires: no other call waits for long."""

BOOKS_MAX: Final = 32
"""Books that are looked at side by side."""


class Share(NamedTuple):
    """How many holds of a book may expire, and by when they are due."""

    sale: RedisSale
    number: int
    most: int
    due_by_ms: int


class Expirer:
    """Expires holds, for one node."""

    def __init__(self, node: RedisNode) -> None:
        self._node = node

    async def expire(self, command: m.Expire) -> m.ExpiredSome:
        """At most `command.most` holds that are due."""
        count = 0
        while (due := self._node.due.by(self._node.now_ms)) and count < command.most:
            shares = await self._shares(due, min(command.most - count, AT_ONCE))
            replies = await all_of(
                *(
                    self._node.book(share.sale, share.number, "expire", most=share.most, due_by=share.due_by_ms)
                    for share in shares
                )
            )
            some = sum(reply[8] for reply in replies)
            if not some:  # what is known of the books is out of date; the next look tells
                return m.ExpiredSome(count, more=True)
            count += some
        return m.ExpiredSome(count, more=bool(due))

    async def _shares(self, due: list[tuple[int, RedisSale, int]], most: int) -> list[Share]:
        """What each book has to do so that the `most` oldest holds of all of them expire."""
        now_ms = self._node.now_ms
        if len(due) == 1:
            _, sale, number = due[0]
            return [Share(sale, number, most, now_ms)]
        books = [(sale, number) for _, sale, number in due[:BOOKS_MAX]]
        rows = await all_of(
            *(self._node.command("lrange", sale.books[number].due, 0, most - 1) for sale, number in books)
        )
        found = sorted(
            (int(row.partition(b" ")[0]), sale.id, number, index)
            for index, ((sale, number), entries) in enumerate(zip(books, rows, strict=True))
            for row in entries
        )
        first_left = (now_ms + 1, "", 0)  # the oldest hold that nobody looks at now
        if len(due) > BOOKS_MAX:
            at_ms, sale, number = due[BOOKS_MAX]
            first_left = (at_ms, sale.id, number)
        oldest = [each for each in found[:most] if each[:3] < first_left]
        counts = Counter(index for *_, index in oldest)
        until_ms = {index: at_ms for at_ms, _, _, index in oldest}
        return [Share(*books[index], count, until_ms[index]) for index, count in counts.items()]
