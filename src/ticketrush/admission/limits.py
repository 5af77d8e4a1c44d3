"""What no ledger should see: arguments outside their bounds, or of a type that a journal cannot give back.

HTTP bodies have been checked against their types before; this is for callers from Python.
"""

from __future__ import annotations

from ticketrush import model as m
from ticketrush.errors import InvalidRequest


def check_reserve(item: object, buyer: object, quantity: object, key: object) -> None:
    """Refuse what cannot be reserved. Raises InvalidRequest."""
    _check_whole("quantity", quantity, m.QUANTITY_MAX)
    if not (isinstance(item, str) and m.IDENTIFIER.fullmatch(item)):
        raise InvalidRequest(f"item {item!r:.80} is not 1 to 64 of the characters A-Z a-z 0-9 . _ ~ -")
    if not (isinstance(buyer, str) and m.BUYER.fullmatch(buyer)):
        raise InvalidRequest("the buyer's id is not a text of 1 to 128 visible ASCII characters")
    if key != "":
        check_key(key)


def check_key(key: object) -> None:
    """Refuse what is no idempotency key. Raises InvalidRequest."""
    if not (isinstance(key, str) and m.KEY.fullmatch(key)):
        raise InvalidRequest("the idempotency key is not a text of 1 to 128 visible ASCII characters")


def check_units(units: object) -> None:
    """Refuse what cannot be added to the stock. Raises InvalidRequest."""
    _check_whole("units", units, m.CAPACITY_MAX)


def check_id(id: object) -> None:
    """Refuse what is no reservation's id. Raises InvalidRequest."""
    if not isinstance(id, str):
        raise InvalidRequest(f"id {id!r:.80} is not a text")


def check_payment(payment: object) -> None:
    """Refuse what cannot name a payment. Raises InvalidRequest."""
    if not (isinstance(payment, str) and 0 < len(payment) <= 128 and payment.isprintable()):
        raise InvalidRequest(f"payment {payment!r:.80} is not a text of 1 to 128 printable characters")


def _check_whole(name: str, number: object, most: int) -> None:
    if type(number) is not int or not 1 <= number <= most:
        raise InvalidRequest(f"{name} {number!r:.80} is not a whole number between 1 and {most}")
