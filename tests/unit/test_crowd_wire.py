"""The connection: every way in which an answer can arrive."""

from __future__ import annotations

import asyncio

import pytest

from ticketrush.crowd.wire import MEMO_MAX, Memo, Reply, Wire

SOLD_OUT = b'{"code":"sold_out","title":"x"}'


def answer(status: int = 409, body: bytes = SOLD_OUT, extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n%b\r\n%b" % (status, len(body), extra, body)


class Pipe(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.aborted = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written.append(bytes(data))

    def abort(self) -> None:
        self.aborted = True


class Owner:
    """Keeps what it is told, and asks again if `requests` are left."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.lost_in_flight: list[bool] = []

    def ready(self, wire: Wire) -> None:
        wire.send(b"first")

    def answered(self, wire: Wire, reply: Reply) -> None:
        self.replies.append(reply)
        if reply.keep_alive:
            wire.send(b"next")

    def lost(self, wire: Wire, *, in_flight: bool) -> None:
        self.lost_in_flight.append(in_flight)


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


@pytest.fixture
def wire(owner: Owner, pipe: Pipe) -> Wire:
    wire = Wire(owner, Memo())
    wire.connection_made(pipe)
    return wire


def test_an_answer_frees_the_connection_for_the_next_request(wire: Wire, owner: Owner, pipe: Pipe) -> None:
    wire.data_received(answer(201, b'{"id":"r1"}'))
    assert owner.replies == [Reply(201, "", 0.0, True, b'{"id":"r1"}')]
    assert pipe.written == [b"first", b"next"]


def test_the_same_bytes_are_the_same_reply_without_parsing(wire: Wire, owner: Owner) -> None:
    for _ in range(3):
        wire.data_received(answer(extra=b"Retry-After: 2\r\n"))
    assert owner.replies[0] == Reply(409, "sold_out", 2.0, True, SOLD_OUT)
    assert owner.replies[0] is owner.replies[1] is owner.replies[2]


@pytest.mark.parametrize("size", [1, 2, 7, 30])
def test_an_answer_in_pieces_is_one_answer(wire: Wire, owner: Owner, size: int) -> None:
    whole = answer(extra=b"retry-after: 3\r\n")
    for _ in range(2):
        for start in range(0, len(whole), size):
            wire.data_received(whole[start : start + size])
    assert owner.replies == [Reply(409, "sold_out", 3.0, True, SOLD_OUT)] * 2


def test_seen_bytes_in_the_middle_of_an_answer_are_body_not_an_answer(wire: Wire, owner: Owner) -> None:
    wire.data_received(answer())
    inner = answer()
    wire.data_received(b"HTTP/1.1 201 X\r\ncontent-length: %d\r\n\r\n" % len(inner))
    wire.data_received(inner)
    assert [reply.status for reply in owner.replies] == [409, 201]
    assert owner.replies[1].body == inner


def test_a_chunked_answer_is_read(wire: Wire, owner: Owner) -> None:
    wire.data_received(b"HTTP/1.1 409 X\r\ntransfer-encoding: chunked\r\n\r\n1f\r\n" + SOLD_OUT + b"\r\n0\r\n\r\n")
    assert owner.replies == [Reply(409, "sold_out", 0.0, True, SOLD_OUT)]


def test_an_interim_answer_is_not_the_answer(wire: Wire, owner: Owner) -> None:
    wire.data_received(b"HTTP/1.1 100 Continue\r\n\r\n" + answer())
    wire.data_received(answer(201, b"{}"))
    assert [reply.status for reply in owner.replies] == [409, 201]


def test_connection_close_ends_the_connection_after_the_answer(wire: Wire, owner: Owner, pipe: Pipe) -> None:
    wire.data_received(answer(extra=b"connection: close\r\n"))
    assert not owner.replies[0].keep_alive
    assert pipe.aborted
    assert pipe.written == [b"first"]
    wire.connection_lost(None)
    assert owner.lost_in_flight == [False]


def test_a_connection_lost_before_the_answer_is_told_as_in_flight(wire: Wire, owner: Owner) -> None:
    wire.data_received(answer()[:20])
    wire.connection_lost(None)
    assert owner.lost_in_flight == [True]
    assert owner.replies == []


@pytest.mark.parametrize("garbage", [b"\x00\x01\x02", b"SSH-2.0-x\r\n", b"HTTP/1.1 abc\r\n\r\n"])
def test_what_is_not_http_cuts_the_connection(wire: Wire, owner: Owner, pipe: Pipe, garbage: bytes) -> None:
    wire.data_received(garbage)
    assert pipe.aborted
    assert owner.replies == []


def test_an_answer_that_nobody_asked_for_cuts_the_connection(wire: Wire, owner: Owner, pipe: Pipe) -> None:
    wire.busy = False
    wire.data_received(answer())
    assert pipe.aborted
    assert owner.replies == []


def test_a_body_that_is_no_problem_document_has_no_code(wire: Wire, owner: Owner) -> None:
    for body in (b"", b"<html>", b"[1]", b"\xff\xfe", b'{"code":7}'):
        wire.data_received(answer(500, body))
    assert [reply.code for reply in owner.replies] == [""] * 5


def test_the_memo_keeps_refusals_only_and_not_many() -> None:
    memo = Memo()
    memo.keep(b"won", Reply(201, "", 0.0, True, b""))
    memo.keep(b"closing", Reply(409, "sold_out", 0.0, False, b""))
    assert not memo.replies
    for number in range(3 * MEMO_MAX):
        memo.keep(b"%d" % number, Reply(409, "sold_out", 0.0, True, b""))
    assert len(memo.replies) <= MEMO_MAX
