"""From the entries of a book's stream to messages, one a notice; whatever an entry holds, it becomes messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from ticketrush.events import AnyEvent
from ticketrush.orders.model import PAYLOAD_MAX, Notice
from ticketrush.orders.notices import Prices, encode, event_of, notice_of
from ticketrush.orders.protocol import Message

ERROR_MAX: Final = 1_000
"""Characters of what is wrong with a message."""

_events_of: Final = msgspec.msgpack.Decoder(list[AnyEvent]).decode
_parts_of: Final = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode
_pack: Final = msgspec.msgpack.Encoder().encode


class Entry(NamedTuple):
    """One entry of a stream, as the server has it: the events of one batch."""

    stream: str
    id: str
    fields: Mapping[bytes, bytes]


def rows_of(answer: Any) -> list[Entry]:
    """The entries of an answer to XREADGROUP."""
    streams = answer.items() if isinstance(answer, dict) else answer or ()
    found = []
    for stream, rows in streams:
        if len(rows) == 1 and isinstance(rows[0], list):
            rows = rows[0]  # RESP3 wraps them once more
        found += entries_of(stream.decode(), rows)
    return found


def entries_of(stream: str, rows: Any) -> list[Entry]:
    """The entries of one stream; those that were trimmed meanwhile are left out."""
    return [Entry(stream, row[0].decode(), row[1] or {}) for row in rows if row is not None and row[0] is not None]


def messages_of(entry: Entry, prices: Prices) -> list[Message]:
    """A message for each event that tells something of an order, or that cannot be understood.

    `where` is ``stream/entry/index``. The payload is the notice as JSON, or, of what cannot be
    understood, the event as it is; of an entry that is no list of events, all of its fields. Of these,
    what is more than `PAYLOAD_MAX` is cut off.
    """
    where = f"{entry.stream}/{entry.id}"
    packed = entry.fields.get(b"events", b"")
    messages = []
    try:
        for index, event in enumerate(_events_of(packed)):
            notice = notice_of(event, prices)
            if notice is not None:
                messages.append(_told(f"{where}/{index}", notice))
    except (ValueError, KeyError, RecursionError):
        return _one_by_one(where, packed, entry, prices)
    return messages


def _one_by_one(where: str, packed: bytes, entry: Entry, prices: Prices) -> list[Message]:
    """The same for an entry with something wrong in it: what is good of it stays good."""
    try:
        parts = _parts_of(packed)
    except (ValueError, RecursionError) as error:
        return [_wrong(f"{where}/0", _pack(entry.fields), f"no list of events: {error}")]
    messages = []
    for index, part in enumerate(parts):
        place = f"{where}/{index}"
        try:
            notice = notice_of(event_of(part), prices)
        except KeyError as error:
            messages.append(_wrong(place, bytes(part), f"of an item that no sale has: {error}"))
        except (ValueError, RecursionError) as error:
            messages.append(_wrong(place, bytes(part), f"no event that this program knows: {error}"))
        else:
            if notice is not None:
                messages.append(_told(place, notice))
    return messages


def _told(place: str, notice: Notice) -> Message:
    payload = encode(notice)
    if len(payload) <= PAYLOAD_MAX:
        return Message(place, payload, notice)
    return _wrong(place, payload, f"a notice of {len(payload):,} bytes")


def _wrong(place: str, payload: bytes, error: str) -> Message:
    """A message that is no notice. It is cut, so that everything on its way takes it."""
    return Message(place, payload[:PAYLOAD_MAX], None, error[:ERROR_MAX])
