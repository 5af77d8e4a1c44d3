"""What goes between the crowd's process and the one that sent it: a plan in, progress and a history out.

Everything is MessagePack. The plan (which carries the secret that signs tokens) goes in through
standard input, never through arguments that others can see. What comes out is a row of frames, each
with its length in four bytes before it.
"""

from __future__ import annotations

import struct
from typing import IO, Final

import msgspec

from ticketrush.audit import Told
from ticketrush.crowd.buyers import Shares

RESERVE_ANSWERS: Final = ("held", "sold_out", "all_held", "purchase_limit", "replayed", "error")
"""Answers to a reservation, as in the report. "error" is any other answer that is final."""

OTHER_ANSWERS: Final = ("paid", "pending", "refunded", "payment_error", "busy", "unknown")
"""Answers to a payment; then to both: "busy" (429, 503; the buyer asks again) and "unknown" (no answer)."""

ANSWERS: Final = RESERVE_ANSWERS + OTHER_ANSWERS
HELD, SOLD_OUT, ALL_HELD, PURCHASE_LIMIT, REPLAYED, ERROR = range(6)
PAID, PENDING, REFUNDED, PAYMENT_ERROR, BUSY, UNKNOWN = range(6, 12)

_LENGTH: Final = struct.Struct(">I")


class Door(msgspec.Struct, frozen=True):
    """A node that takes buyers, and how many of the connections go there."""

    host: str
    port: int
    connections: int


class Plan(msgspec.Struct, frozen=True):
    """What the crowd is to do. Times are seconds; `arrivals` is per second, 0 for a closed loop.

    All `doors` lead to the same sale: who is not answered at one asks at another. Without a `secret`
    buyers show no tokens but their names, as an open server wants it. There is a Progress at once
    whenever as many tickets are paid as one of `milestones` says. Who waits for a held unit goes home
    `linger_s` after the last buyer has come, or at the time limit.
    """

    doors: list[Door]
    sale: str
    item: str
    buyers: int
    tickets: int
    arrivals: float
    shares: Shares
    limit: int
    hold_s: float
    seed: int
    secret: bytes
    audience: str
    expires_at_s: int
    timeout_s: float = 10.0
    time_limit_s: float = 120.0
    linger_s: float = 86_400.0
    comebacks_max: int = 10_000
    milestones: list[int] = []


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """How far the crowd is. `answers` counts ANSWERS in their order, `p99_us` is of the last interval."""

    at_s: float
    buyers: int
    answers: list[int]
    p99_us: int


class Latencies(msgspec.Struct, frozen=True):
    """A histogram, only the buckets that counted something."""

    buckets: dict[int, int]
    largest_us: int


class Sample(msgspec.Struct, frozen=True):
    """An answer that should not have come."""

    asked: str
    status: int
    body: str


class History(msgspec.Struct, frozen=True, tag="history"):
    """What happened, as the buyers saw it.

    `buyers` came. Of those, `left_sold_out` went away because they were told that all is sold,
    `gave_up` were told that all is held and did not want to wait, and `left_waiting` were still
    waiting at the time limit. `surge_reservations` were acknowledged in the first `surge_s` seconds:
    the time in which (nearly) the whole stock was taken. `requests` counts what was sent to each door.
    The last buyer came `came_s` after the first, with `came_answers` answers given by then; 0 if not all came.
    """

    buyers: int
    answers: list[int]
    told: Told
    latencies: dict[str, Latencies]
    seconds: float
    cpu_s: float
    surge_reservations: int
    surge_s: float
    left_sold_out: int
    gave_up: int
    left_waiting: int
    finished: bool
    samples: list[Sample]
    requests: list[int]
    came_s: float = 0.0
    came_answers: int = 0


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """The crowd could not go on; `no_answer` says that the server was not there."""

    text: str
    no_answer: bool = False


Frame = Progress | History | Failure
_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final[msgspec.msgpack.Decoder[Frame]] = msgspec.msgpack.Decoder(Frame)


def write_frame(stream: IO[bytes], frame: Frame) -> None:
    """Write one frame, all of it."""
    body = _encoder.encode(frame)
    stream.write(_LENGTH.pack(len(body)) + body)
    stream.flush()


def read_frame(stream: IO[bytes]) -> Frame | None:
    """Read one frame, None at the end of the stream."""
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        return None
    (length,) = _LENGTH.unpack(head)
    body = stream.read(length)
    return _decoder.decode(body) if len(body) == length else None
