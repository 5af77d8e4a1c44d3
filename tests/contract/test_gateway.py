"""The test gateway as a process: what it decides, keeps, tells, and tells again; and the client that speaks to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.gateways import SECRET, Gateway, gateway
from tests.in_loop import in_loop
from ticketrush.cluster.ports import free_port
from ticketrush.errors import InvalidRequest
from ticketrush.payments.http_gateway import ANSWER_BYTES_MAX, TRIES, HttpGateway
from ticketrush.payments.protocol import Charge, ChargeState, GatewayUnavailable
from ticketrush.payments.service import sender
from ticketrush.payments.service.book import _NEXT, Book
from ticketrush.payments.service.habits import Habits
from ticketrush.payments.signatures import Verifier

WEBHOOK_HEADERS = ("webhook-id", "webhook-timestamp", "webhook-signature")


class Hearer:
    """A server that is told things: it answers as `answers` say, then 200, and remembers what it got."""

    def __init__(self, answers: list[tuple[int, bytes]] | None = None) -> None:
        self.heard: list[tuple[str, dict[str, str], bytes]] = []
        self.answers = answers or []
        hearer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                hearer.heard.append((self.path, headers, body))
                status, said = hearer.answers.pop(0) if hearer.answers else (200, b"{}")
                self.send_response(status)
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            do_GET = do_POST

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def told(self) -> list[tuple[str, str]]:
        """Kind and payment of each webhook."""
        messages = [json.loads(body) for _, _, body in self.heard]
        return [(each["type"], each["data"]["payment"]) for each in messages]

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def hearers() -> Iterator[Callable[..., Hearer]]:
    made: list[Hearer] = []

    def make(*answers: tuple[int, bytes]) -> Hearer:
        made.append(Hearer(list(answers)))
        return made[-1]

    yield make
    for each in made:
        each.close()


def body(order: str = "o1", card: str = "approve", **more: Any) -> dict[str, Any]:
    return {"order": order, "amount_minor": 700, "currency": "CNY", "card": card, **more}


# --- the gateway ---------------------------------------------------------------------------------


def test_a_charge_is_decided_told_refunded_and_told_again(tmp_path: Path, hearers: Callable[..., Hearer]) -> None:
    hearer = hearers()
    with gateway(tmp_path, 0, [hearer.url]) as made:
        first, again = made.call("POST", "/charges", body()), made.call("POST", "/charges", body(card="decline"))
        assert (first.status, first.json()["state"]) == (201, "approved")
        assert (again.status, again.json()) == (200, first.json()), "an order is charged once"
        id = first.json()["id"]
        refunds = [made.call("POST", f"/charges/{id}/refund") for _ in range(2)]
        assert [(each.status, each.json()["state"]) for each in refunds] == [(200, "refunded")] * 2
        made.quiet()
        assert made.call("GET", f"/charges/{id}").json() == refunds[0].json()

    assert sorted(hearer.told) == [("payment.approved", id), ("payment.refunded", id)]
    path, headers, raw = hearer.heard[0]
    assert path == "/v1/webhooks/payments"
    assert Verifier((SECRET,)).accepts(raw, *(headers[name].encode() for name in WEBHOOK_HEADERS))
    assert json.loads(raw)["data"] == {"payment": id, "order": "o1", "amount_minor": 700, "currency": "CNY"}


def test_cards_and_delays_decide(tmp_path: Path, hearers: Callable[..., Hearer]) -> None:
    with gateway(tmp_path, 0, [hearers().url]) as made:
        declined = made.call("POST", "/charges", body("o1", "decline")).json()
        late = made.call("POST", "/charges", body("o2", "late", delay_ms=1_000)).json()
        assert (declined["state"], late["state"]) == ("declined", "pending")
        assert made.call("POST", f"/charges/{late['id']}/refund").status == 409
        assert made.call("POST", f"/charges/{declined['id']}/refund").status == 409
        assert made.call("POST", "/charges", body("o1")).json()["state"] == "approved", "another card may be tried"
        made.quiet()
        assert [each["state"] for each in made.charges()] == ["declined", "approved", "approved"]
        assert [each["state"] for each in made.charges("o1")] == ["approved", "declined"]


def test_a_key_gets_the_same_charge_whatever_became_of_it(tmp_path: Path, hearers: Callable[..., Hearer]) -> None:
    key = {"idempotency-key": "k1"}
    with gateway(tmp_path, 0, [hearers().url]) as made:
        first = made.call("POST", "/charges", body(), **key).json()
        made.call("POST", f"/charges/{first['id']}/refund")
        again = made.call("POST", "/charges", body(), **key).json()
        assert (again["id"], again["state"]) == (first["id"], "refunded")
        assert made.call("POST", "/charges", body()).json()["id"] != first["id"]


def test_a_webhook_is_sent_until_it_is_taken(tmp_path: Path, hearers: Callable[..., Hearer]) -> None:
    hearer = hearers((503, b"{}"), (401, b"{}"), (302, b"{}"))
    with gateway(tmp_path, 0, [hearer.url]) as made:
        made.call("POST", "/charges", body())
        said = made.quiet()

    assert (said["delivered"], said["retried"]) == (1, 3)
    assert len({headers["webhook-id"] for _, headers, _ in hearer.heard}) == 1
    assert len(hearer.heard) == 4


def test_it_repeats_reorders_and_declines_as_asked(tmp_path: Path, hearers: Callable[..., Hearer]) -> None:
    hearer = hearers()
    flags = ("--repeat", "3", "--reorder", "--decline-share", "0.5", "--seed", "7")
    with gateway(tmp_path, 0, [hearer.url], *flags) as made:
        charges = [made.call("POST", "/charges", body(f"o{number}")).json() for number in range(12)]
        made.quiet()

    expected = [(f"payment.{each['state']}", each["id"]) for each in charges for _ in range(3)]
    assert sorted(hearer.told) == sorted(expected)
    assert hearer.told != expected
    assert {each["state"] for each in charges} == {"approved", "declined"}


def test_of_several_urls_the_next_one_is_tried(tmp_path: Path, hearers: Callable[..., Hearer]) -> None:
    hearer = hearers()
    with gateway(tmp_path, 0, [f"http://127.0.0.1:{free_port()}", hearer.url]) as made:
        for number in range(4):
            made.call("POST", "/charges", body(f"o{number}"))
        made.quiet()
    assert len(hearer.told) == 4


@in_loop
async def test_webhooks_go_on_when_the_disk_was_full(
    tmp_path: Path, hearers: Callable[..., Hearer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "LOOK_S", 0.1)
    hearer, book, now_ms = hearers(), Book(str(tmp_path / "gateway.db"), Habits()), time.time_ns() // 1_000_000
    for number in range(100):
        book.charge(f"o{number}", 700, "CNY", key=None, decline=False, at_ms=now_ms + 1, now_ms=now_ms)
    room = book._db.pragma("max_page_count")
    book._db.pragma("max_page_count", 1)  # no more than there are
    work = asyncio.create_task(sender.Sender(book, [hearer.url], SECRET).run())
    await asyncio.sleep(0.3)
    assert book.open_matters() == (100, 100, 0)
    book._db.pragma("max_page_count", room)
    async with asyncio.timeout(20):
        while book.open_matters() != (100, 0, 0):
            assert not work.done()
            await asyncio.sleep(0.02)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    book.close()
    assert len(hearer.told) == 100


def test_when_the_next_thing_is_due_is_found_without_reading_the_whole_book() -> None:
    now_ms = time.time_ns() // 1_000_000
    with contextlib.closing(Book(":memory:", Habits())) as book:
        assert book.next_at_ms() is None
        book.charge("o1", 700, "CNY", key=None, decline=False, at_ms=now_ms + 9, now_ms=now_ms)
        assert book.next_at_ms() == now_ms + 9
        book.charge("o2", 700, "CNY", key=None, decline=False, at_ms=now_ms, now_ms=now_ms)
        assert book.next_at_ms() == now_ms
        plan = [str(row[3]) for row in book._db.execute(f"explain query plan {_NEXT}")]
    assert not [step for step in plan if step.startswith(("SCAN charges", "SCAN deliveries"))]


def test_what_is_no_charge_is_refused(tmp_path: Path, hearers: Callable[..., Hearer]) -> None:
    wrong: list[object] = [b"{", b"[]", b"x" * 20_000, body(card="gold"), body(amount_minor=-1), body(currency="yuan")]
    wrong += [body(order=""), body(order="a b"), body(more=1)]
    with gateway(tmp_path, 0, [hearers().url]) as made:
        assert [made.call("POST", "/charges", each).status for each in wrong] == [422, 422, 413] + [422] * 6
        assert made.call("GET", "/charges/unknown").status == 404
        assert made.call("GET", "/charges?limit=0").status == 422
        assert made.charges() == []


def test_a_secret_or_a_port_that_cannot_be_used_is_told_at_once(tmp_path: Path, hearers: Callable[..., Hearer]) -> None:
    with pytest.raises(AssertionError, match="webhook secret"):
        Gateway(tmp_path, 0, [hearers().url], "--secret", "whsec_short").serving()
    (tmp_path / "other").mkdir()
    with gateway(tmp_path, 0, [hearers().url]) as made, pytest.raises(AssertionError, match="cannot listen"):
        Gateway(tmp_path / "other", made.port, [hearers().url]).serving()


# --- its client ----------------------------------------------------------------------------------


async def ask(url: str, question: Callable[[HttpGateway], Any], timeout_s: float = 2.0) -> Any:
    client = HttpGateway(url, timeout_s=timeout_s)
    try:
        return await question(client)
    finally:
        await client.close()


def charge(client: HttpGateway) -> Any:
    return client.charge("o1", 700, "CNY", "approve", 0)


def test_the_client_speaks_all_calls(tmp_path: Path, hearers: Callable[..., Hearer]) -> None:
    async def story(client: HttpGateway) -> None:
        made: Charge = await charge(client)
        assert (made.order, made.amount_minor, made.currency, made.state) == ("o1", 700, "CNY", ChargeState.APPROVED)
        assert await client.read(made.id) == await client.latest("o1") == made
        refunded = await client.refund(made.id)
        assert refunded is not None
        assert refunded.state is ChargeState.REFUNDED
        assert await client.refund("unknown") is None
        assert await client.read("a/b?c") is None
        assert await client.latest("o2") is None
        with pytest.raises(InvalidRequest, match="gold"):
            await client.charge("o3", 700, "CNY", "gold", 0)

    with gateway(tmp_path, 0, [hearers().url]) as made:
        asyncio.run(ask(made.url, story))


GOOD = b'{"id":"ch_1","order":"o1","amount_minor":700,"currency":"CNY","state":"approved"}'
NAMES = [b'""', b'"a b"', b'"a\\u0000b"', b'"%s"' % (b"x" * 129)]
"""Of which no order and no charge has one."""


def test_an_answer_that_got_lost_is_asked_for_again_with_the_same_key(hearers: Callable[..., Hearer]) -> None:
    hearer = hearers((500, b""), (503, b""), (200, GOOD))

    made = asyncio.run(ask(hearer.url, charge))

    assert made.id == "ch_1"
    assert len({headers["idempotency-key"] for _, headers, _ in hearer.heard}) == 1
    assert len({body for _, _, body in hearer.heard}) == 1
    assert len(hearer.heard) == 3


@pytest.mark.parametrize(
    "answer",
    [
        *((500, b""), (200, b"{"), (200, b"[]"), (200, b"x" * (ANSWER_BYTES_MAX + 1)), (302, b""), (418, b"")),
        *((201, GOOD.replace(b'"ch_1"', name)) for name in NAMES),
        (201, GOOD.replace(b"o1", b"o2")),
    ],
)
def test_an_answer_that_is_none_is_not_known(hearers: Callable[..., Hearer], answer: tuple[int, bytes]) -> None:
    hearer = hearers(*[answer] * TRIES)
    with pytest.raises(GatewayUnavailable):
        asyncio.run(ask(hearer.url, charge))
    assert len(hearer.heard) <= TRIES


def test_the_last_charge_of_another_order_is_not_known(hearers: Callable[..., Hearer]) -> None:
    with pytest.raises(GatewayUnavailable, match="charge of o2 instead of o1"):
        asyncio.run(
            ask(hearers((200, b"[" + GOOD.replace(b"o1", b"o2") + b"]")).url, lambda client: client.latest("o1"))
        )


@pytest.mark.parametrize("host", ["gw..x", "x:99999", "[::1", "a" * 64, ""])
def test_what_is_no_url_is_unavailable_and_its_password_is_not_told(host: str) -> None:
    with pytest.raises(GatewayUnavailable, match=r"\(not a URL\)") as failed:
        asyncio.run(ask(f"http://me:hush@{host}", lambda client: client.latest("o1")))
    assert "hush" not in str(failed.value)


def test_without_a_gateway_the_client_gives_up_in_time() -> None:
    async def story(client: HttpGateway) -> None:
        async with asyncio.timeout(5):
            with pytest.raises(GatewayUnavailable, match=r"did not answer POST /charges \(connection refused\)"):
                await charge(client)

    asyncio.run(ask(f"http://127.0.0.1:{free_port()}", story))


def test_two_gateways_do_not_write_one_book(tmp_path: Path) -> None:
    with gateway(tmp_path, free_port(), ["http://127.0.0.1:1"]) as first:
        other = tmp_path / "other"
        other.mkdir()
        command = [sys.executable, "-m", "ticketrush", "test-gateway", "--port", "0", "--secret", SECRET]
        command += ["--webhook-url", "http://127.0.0.1:1/x", "--file", str(first.folder / "gateway.db")]
        second = subprocess.run(command, cwd=other, capture_output=True, text=True, timeout=60, check=False)
        assert (second.returncode, "database is locked" in second.stderr) == (2, True), second.stderr
