"""The bytes that buyers send."""

from __future__ import annotations

from ticketrush.crowd.buyers import Buyers, Mint, minter
from ticketrush.crowd.history import Plan


class Forms:
    """Prepared requests; only the token (for an open server: the name), the key and an id are filled in."""

    __slots__ = ("_buyers", "_mint", "_pay", "_reserve", "_tails")

    def __init__(self, plan: Plan, buyers: Buyers) -> None:
        door = plan.doors[0]  # all doors are one server, as behind a load balancer
        host = f"[{door.host}]" if ":" in door.host else door.host
        name = "authorization: Bearer" if plan.secret else "x-buyer:"
        common = f"host: {host}:{door.port}\r\ncontent-type: application/json\r\n{name} ".encode()
        self._buyers = buyers
        self._mint: Mint = minter(plan.secret, plan.audience, plan.expires_at_s) if plan.secret else bytes
        self._reserve = b"POST /v1/sales/%b/reservations HTTP/1.1\r\n%b" % (plan.sale.encode(), common)
        self._pay = b"POST /v1/orders/%b/payment HTTP/1.1\r\n" + common + b"%b\r\nidempotency-key: %b.pay%b"
        self._tails = {
            quantity: _tail(b'{"item":"%b","quantity":%d}' % (plan.item.encode(), quantity))
            for quantity in (1, plan.limit)
        }

    def reserve(self, index: int, wish: int, quantity: int) -> bytes:
        """Buyer `index` wants `quantity` units, as the n-th wish."""
        name, tail = self._buyers.name(index), self._tails[quantity]
        return b"%b%b\r\nidempotency-key: %b.%d%b" % (self._reserve, self._mint(name), name, wish, tail)

    def pay(self, index: int, order: str) -> bytes:
        """Buyer `index` pays `order`."""
        name = self._buyers.name(index)
        return self._pay % (order.encode(), self._mint(name), name, _tail(b'{"card":"approve"}'))


def _tail(body: bytes) -> bytes:
    return b"\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
