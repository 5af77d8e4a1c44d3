"""Dead letters, dealt with by a person: tried again, or given up."""

from __future__ import annotations

import msgspec

from ticketrush.orders.errors import NoticeRefused
from ticketrush.orders.model import PAYLOAD_MAX, DeadLetter, Notice
from ticketrush.orders.notices import Prices, decode, event_of, notice_of
from ticketrush.orders.protocol import OrderStore


async def replay(store: OrderStore, letter: DeadLetter, now_ms: int) -> str:
    """Put what a letter says into the store once more, and settle it if that goes; else why it still does not.

    Interrupted between the two it can be replayed again: the store knows the notice by then.

    Raises:
        StoreUnavailable: the store did not answer.
    """
    try:
        await store.put([_notice_in(letter.payload)])
    except KeyError as error:
        return f"an event of an item whose price is not in it ({error}); `ticketrush reconcile` brings such orders"
    except (ValueError, RecursionError) as error:
        cut = f"; only its first {PAYLOAD_MAX:,} bytes were kept" if len(letter.payload) == PAYLOAD_MAX else ""
        return f"not a notice: {error}{cut}"
    except NoticeRefused as error:
        return str(error)
    await store.settle(letter.number, "replayed", now_ms)
    return ""


def _notice_in(payload: bytes) -> Notice:
    """The notice that a payload is, or that the ledger's event tells of which it is.

    Raises:
        ValueError: it is neither.
        KeyError: the event does not say what the item costs.
    """
    try:
        return decode(payload)
    except msgspec.DecodeError:
        try:
            notice = notice_of(event_of(payload), Prices())
        except (msgspec.DecodeError, RecursionError):
            notice = None  # what is wrong with it as a notice says more
        if notice is None:
            raise
        return notice


async def give_up(store: OrderStore, number: int, reason: str, now_ms: int) -> bool:
    """Settle a letter without its ever becoming part of an order. False if no such one is open."""
    return await store.settle(number, f"given up: {reason}", now_ms)
