"""What no ledger should see: arguments outside their bounds, or of a type that a journal cannot give back.

HTTP bodies have been checked against their types before; this is for callers from Python.
"""

from __future__ import annotations

import re
from typing import Final

from ticketrush import model as m
from ticketrush.errors import InvalidRequest
from ticketrush.model import Reason, Refused

_HALF: Final = re.compile("[\ud800-\udfff]")
"""Half of a character that UTF-16 writes in two: nothing can be written with it."""


def unheard_of(command: m.Command) -> Refused | None:
    """The refusal of a command about what no ledger can have under such an id; None if a ledger must say.

    To a caller it is unknown like any other. One that cannot even be written would fail its whole batch.
    """
    match command:
        case m.Confirm() | m.Cancel() | m.Refund() if not is_id(command.id):
            return Refused(Reason.UNKNOWN_RESERVATION)
        case m.Reserve() | m.OpenSale() | m.CloseSale() | m.AddStock() if not _is_name(command.sale):
            return Refused(Reason.UNKNOWN_SALE)
        case m.Reserve() | m.AddStock() if not _is_text(command.item):
            return Refused(Reason.UNKNOWN_ITEM)
    return None


def is_id(id: object) -> bool:
    """Whether a reservation may have this id: 1 to 128 visible ASCII characters."""
    return isinstance(id, str) and m.KEY.fullmatch(id) is not None


def check_reserve(item: object, buyer: object, quantity: object, key: object) -> None:
    """Refuse what cannot be reserved. Raises InvalidRequest."""
    _check_whole("quantity", quantity, m.QUANTITY_MAX)
    if not _is_name(item):
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


def check_payment(payment: object) -> None:
    """Refuse what cannot name a payment. Raises InvalidRequest."""
    if not (isinstance(payment, str) and 0 < len(payment) <= 128 and payment.isprintable()):
        raise InvalidRequest(f"payment {payment!r:.80} is not a text of 1 to 128 printable characters")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and _HALF.search(value) is None


def _is_name(name: object) -> bool:
    return isinstance(name, str) and m.IDENTIFIER.fullmatch(name) is not None


def _check_whole(name: str, number: object, most: int) -> None:
    if type(number) is not int or not 1 <= number <= most:
        raise InvalidRequest(f"{name} {number!r:.80} is not a whole number between 1 and {most}")
