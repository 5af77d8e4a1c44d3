"""What this process knows without asking: which items cannot be bought now.

A closed gate answers a loser at once, without a look at the token and without I/O. It is opened and
closed only by what the ledger has committed, and by time.
"""

from __future__ import annotations

from ticketrush.model import Phase, Reason, Refused, Stock

_SOLD_OUT = Refused(Reason.SOLD_OUT)
_CLOSED = Refused(Reason.CLOSED)


class Gate:
    """For each sale, the items that are closed and the refusal that says why."""

    __slots__ = ("_changes_at_ms", "closed")

    def __init__(self) -> None:
        self.closed: dict[str, dict[str, Refused]] = {}
        """Sale -> item -> why it cannot be bought now; items that can be are not there."""
        self._changes_at_ms: dict[str, int] = {}

    def refresh(self, stock: Stock, now_ms: int) -> None:
        """Open and close the gates of a sale according to its levels and the time."""
        sale = stock.sale
        phase = sale.phase(now_ms)
        closed: dict[str, Refused] = {}
        if phase is Phase.OPEN:
            for level in stock.levels:
                if level.available == 0 and stock.settled:
                    closed[level.item] = (
                        Refused(Reason.ALL_HELD, stock.next_expiry_at_ms or now_ms)
                        if level.held or level.leased  # at another node, which may give it back
                        else _SOLD_OUT
                    )
        else:
            why = _CLOSED if phase is Phase.CLOSED else Refused(Reason.NOT_OPEN, sale.opens_at_ms or 0)
            closed = {item.id: why for item in sale.items}
        if closed:
            self.closed[sale.id] = closed
        else:
            self.closed.pop(sale.id, None)
        times = (sale.opens_at_ms, sale.closes_at_ms)
        later = [at_ms for at_ms in times if at_ms is not None and at_ms > now_ms]
        if later:
            self._changes_at_ms[sale.id] = min(later)
        else:
            self._changes_at_ms.pop(sale.id, None)

    def due(self, now_ms: int) -> list[str]:
        """Sales that the time has opened or closed since they were refreshed."""
        return [sale for sale, at_ms in self._changes_at_ms.items() if at_ms <= now_ms]

    def next_change_at_ms(self) -> int | None:
        """When the time will open or close the next sale."""
        return min(self._changes_at_ms.values(), default=None)
