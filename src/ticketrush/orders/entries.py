"""From the entries of a book's stream to messages, one a notice; whatever an entry holds, it becomes messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import msgspec

from ticketrush.events import AnyEvent
from ticketrush.orders.notices import Prices, encode, notice_of
from ticketrush.orders.protocol import Message

_events_of: Final = msgspec.msgpack.Decoder(list[AnyEvent]).decode
_event_of: Final = msgspec.msgpack.Decoder(AnyEvent).decode
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
    understood, the event as it is; of an entry that is no list of events, all of its fields.
    """
    where = f"{entry.stream}/{entry.id}"
    packed = entry.fields.get(b"events", b"")
    messages = []
    try:
        for index, event in enumerate(_events_of(packed)):
            notice = notice_of(event, prices)
            if notice is not None:
                messages.append(Message(f"{where}/{index}", encode(notice), notice))
    except (ValueError, KeyError, RecursionError):
        return _one_by_one(where, packed, entry, prices)
    return messages


def _one_by_one(where: str, packed: bytes, entry: Entry, prices: Prices) -> list[Message]:
    """The same for an entry with something wrong in it: what is good of it stays good."""
    try:
        parts = _parts_of(packed)
    except (ValueError, RecursionError) as error:
        return [Message(f"{where}/0", _pack(entry.fields), None, f"no list of events: {error}")]
    messages = []
    for index, part in enumerate(parts):
        place = f"{where}/{index}"
        try:
            notice = notice_of(_event_of(part), prices)
        except KeyError as error:
            messages.append(Message(place, bytes(part), None, f"of an item that no sale has: {error}"))
        except (ValueError, RecursionError) as error:
            messages.append(Message(place, bytes(part), None, f"no event that this program knows: {error}"))
        else:
            if notice is not None:
                messages.append(Message(place, encode(notice), notice))
    return messages
