"""Bodies on the wire: asked for, in pieces, in chunks, of doubtful length, too large (RFC 9112, 6 and 7)."""

from __future__ import annotations

import pytest

from tests.contract.shop import COLD, HOT, Shop, done, good_body, is_ended
from tests.servers import OURS

pytestmark = pytest.mark.parametrize("server", OURS, indirect=True)

both = pytest.mark.parametrize("kind", [HOT, COLD])


@both
def test_a_body_is_asked_for_before_it_is_sent(shop: Shop, kind: str) -> None:
    head, _, body = shop.of_kind(kind, Expect="100-continue").partition(b"\r\n\r\n")
    with shop.server.connect() as wire:
        wire.send(head + b"\r\n\r\n")
        assert wire.answer().status == 100
        assert wire.is_silent(0.05)
        wire.send(body)
        assert done(wire.answer())
        wire.send(shop.hot())
        assert done(wire.answer())


@both
def test_a_body_that_was_not_waited_for_is_taken(shop: Shop, kind: str) -> None:
    with shop.server.connect() as wire:
        wire.send(shop.of_kind(kind, Expect="100-continue"))
        answer = wire.answer()
        if answer.status == 100:
            answer = wire.answer()

        assert done(answer)


def test_the_second_of_a_pipeline_is_asked_for_its_body_after_the_first_answer(shop: Shop) -> None:
    head, _, body = shop.hot(Expect="100-continue").partition(b"\r\n\r\n")
    with shop.server.connect(timeout_s=3) as wire:
        wire.send(shop.hot() + head + b"\r\n\r\n")
        assert [answer.status for answer in wire.answers(2)] == [201, 100]
        wire.send(body)
        assert wire.answer().status == 201


@both
@pytest.mark.parametrize("sent", [0, 1, 10])
def test_the_body_of_the_second_of_a_pipeline_may_come_later(shop: Shop, kind: str, sent: int) -> None:
    head, _, body = shop.of_kind(kind).partition(b"\r\n\r\n")
    with shop.server.connect(timeout_s=3) as wire:
        wire.send(shop.hot() + head + b"\r\n\r\n" + body[:sent])
        assert wire.answer().status == 201
        wire.send(body[sent:])
        assert done(wire.answer())


@both
def test_too_large_a_body_is_refused_before_it_is_sent(shop: Shop, kind: str) -> None:
    head = shop.of_kind(kind, Expect="100-continue", Content_Length="10000000").partition(b"\r\n\r\n")[0]
    with shop.server.connect() as wire:
        wire.send(head + b"\r\n\r\n")

        assert wire.answer().code == "body_too_large"
        assert is_ended(wire)


@both
def test_http_1_0_is_never_told_to_continue(shop: Shop, kind: str) -> None:
    assert done(shop.ask(shop.of_kind(kind, version="HTTP/1.0", Expect="100-continue")))


@both
def test_a_request_may_come_byte_by_byte(shop: Shop, kind: str) -> None:
    with shop.server.connect() as wire:
        for byte in shop.of_kind(kind):
            wire.send(bytes([byte]))
        assert done(wire.answer())


def chunked(pieces: list[bytes], extension: bytes = b"", trailer: bytes = b"") -> bytes:
    chunks = b"".join(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces)
    return chunks + b"0" + extension + b"\r\n" + trailer + b"\r\n"


@both
@pytest.mark.parametrize("size", [1, 5, 1_000])
def test_a_chunked_body_is_taken(shop: Shop, kind: str, size: int) -> None:
    body = good_body(kind)
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    with shop.server.connect() as wire:
        wire.send(shop.of_kind(kind, chunked(pieces), Transfer_Encoding="chunked") + shop.hot())

        assert all(done(answer) for answer in wire.answers(2))


@both
def test_extensions_of_chunks_mean_nothing(shop: Shop, kind: str) -> None:
    body = chunked([good_body(kind)], extension=b';a=1;b="x y"')

    assert done(shop.ask(shop.of_kind(kind, body, Transfer_Encoding="chunked")))


@both
@pytest.mark.parametrize(
    "trailer", [b"X-Checksum: 1\r\n", b"Authorization: Bearer x\r\n", b"Idempotency-Key: a b\r\n", b"Expect: 1\r\n"]
)
def test_trailers_are_not_headers(shop: Shop, kind: str, trailer: bytes) -> None:
    body = chunked([good_body(kind)], trailer=trailer)
    with shop.server.connect() as wire:
        wire.send(shop.of_kind(kind, body, Transfer_Encoding="chunked") + shop.hot())

        assert all(done(answer) for answer in wire.answers(2))


@both
def test_trailers_have_a_bound(shop: Shop, kind: str) -> None:
    head, _, _ = shop.of_kind(kind, b"", Transfer_Encoding="chunked").partition(b"\r\n\r\n")
    trailers = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 100) for number in range(10_000))
    with shop.server.connect() as wire:
        wire.send(head + b"\r\n\r\n" + chunked([good_body(kind)], trailer=trailers))

        answer = wire.answer()
        assert answer.status in {400, 431}
        assert answer.code


@both
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("Content-Length: 17", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 17"),
        ("Content-Length: 17", "content-length: 17"),
        ("Content-Length: 17", "Content-Length: 18"),
        ("Transfer-Encoding: gzip", "X-A: 1"),
        ("Transfer-Encoding: chunked, identity", "X-A: 1"),
    ],
)
def test_a_body_of_doubtful_length_is_refused(shop: Shop, kind: str, first: str, second: str) -> None:
    head = shop.of_kind(kind, b"").partition(b"\r\nContent-Length")[0]
    data = head + f"\r\n{first}\r\n{second}\r\n\r\n".encode() + chunked([good_body(kind)])
    with shop.server.connect() as wire:
        wire.send(data)
        answer = wire.answer()

        assert (answer.status, answer.code) == (400, "malformed")
        assert is_ended(wire)
    assert shop.held == 0
