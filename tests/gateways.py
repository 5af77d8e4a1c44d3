"""The test gateway as a process, for tests, and webhooks signed by hand."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from tests.wire import Answer, Wire, request
from ticketrush.payments.signatures import sign

SECRET: Final = "whsec_" + "dGhlLXNlY3JldC1vZi10aGUtZ2F0ZXdheS0wMTIz"
OTHER_SECRET: Final = "whsec_" + "YW5vdGhlci1zZWNyZXQtb2YtYS1nYXRld2F5LTEy"
PATH: Final = "/v1/webhooks/payments"
START_S: Final = 60.0


def news(
    kind: str, order: str, payment: str = "ch_1", amount_minor: int = 0, currency: str = "CNY", **more: Any
) -> bytes:
    """A message about a payment, as a gateway writes it."""
    data = {"payment": payment, "order": order, "amount_minor": amount_minor, "currency": currency, **more}
    return json.dumps({"type": f"payment.{kind}", "timestamp": "2026-11-24T10:00:00.000Z", "data": data}).encode()


def signed(body: bytes, *, id: str = "msg_1", age_s: float = 0, secret: str = SECRET) -> dict[str, str]:
    """The headers that a gateway sends with `body`, `age_s` seconds ago."""
    return sign(secret, id, int(time.time() - age_s), body)


class Gateway:
    """``ticketrush test-gateway``: its charges in a file of `folder`, so that it can be killed and started again."""

    def __init__(self, folder: Path, port: int, urls: Sequence[str], *flags: str) -> None:
        """Start it; `serving` waits until it serves. `urls` are those of nodes, without a path."""
        self.folder, self.port = folder, port
        self._output = folder / "gateway.out"
        command = [sys.executable, "-m", "ticketrush", "test-gateway", "--json", "--port", str(port)]
        command += ["--secret", SECRET, "--file", str(folder / "gateway.db"), *flags]
        for url in urls:
            command += ["--webhook-url", url + PATH]
        with self._output.open("wb") as output, (folder / "gateway.err").open("ab") as errors:
            self.process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=errors)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def serving(self) -> Gateway:
        """Wait until it accepts connections. Raises AssertionError with its output if it ends instead."""
        until_s = time.monotonic() + START_S
        while time.monotonic() < until_s and self.process.poll() is None:
            line = self._output.read_text()
            if line.endswith("\n"):
                assert json.loads(line)["url"].startswith("http://127.0.0.1:")
                self.port = int(json.loads(line)["url"].rpartition(":")[2])
                return self
            time.sleep(0.01)
        self.kill()
        raise AssertionError(f"the gateway did not start: {self.errors()}")

    def errors(self) -> str:
        """The end of what it logged."""
        return (self.folder / "gateway.err").read_text(errors="replace")[-3_000:]

    def call(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """One request on a connection of its own."""
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        with contextlib.closing(Wire(self.port, timeout_s=10.0)) as wire:
            wire.send(request(method, path, data, {"Connection": "close", **headers}))
            return wire.answer()

    def charges(self, order: str = "") -> list[dict[str, Any]]:
        """Its book: charges of an order, the last one first; else all of them."""
        if order:
            found: list[dict[str, Any]] = self.call("GET", f"/charges?order={order}").json()
            return found
        book: list[dict[str, Any]] = []
        while page := self.call("GET", f"/charges?after={book[-1]['id'] if book else ''}").json():
            book += page
        return book

    def health(self) -> dict[str, int]:
        """What it still has to do."""
        said: dict[str, int] = self.call("GET", "/healthz").json()
        return said

    def quiet(self, within_s: float = 30.0) -> dict[str, int]:
        """Wait until every charge is decided and every webhook was answered 2xx."""
        until_s = time.monotonic() + within_s
        while (said := self.health())["pending"] or said["waiting"]:
            assert time.monotonic() < until_s, f"{said} after {within_s} s: {self.errors()}"
            time.sleep(0.05)
        assert not said["given_up"], said
        return said

    def kill(self) -> int:
        """``kill -9``."""
        self.process.kill()
        return self.process.wait()

    def stop(self) -> int:
        """Ask it to stop; its exit code. It is killed if it does not."""
        self.process.terminate()
        try:
            return self.process.wait(15.0)
        except subprocess.TimeoutExpired:
            return self.kill()


class Purse:
    """A gateway in this process, for news that tests make up: it has made every charge that it is asked about.

    It only gives back. Charges whose id begins with "ch_strange" it does not know.
    """

    def __init__(self) -> None:
        self.given_back: set[str] = set()
        """Ids of the charges whose money went back."""
        purse = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                purse.given_back.add(self.path.split("/")[2])
                self.do_GET()

            def do_GET(self) -> None:
                id = self.path.split("/")[-1 if self.command == "GET" else 2]
                state = "refunded" if id in purse.given_back else "approved"
                charge = {"id": id, "order": "o1", "amount_minor": 700, "currency": "CNY", "state": state}
                is_list, is_strange = id.startswith("charges?"), id.startswith("ch_strange")
                said = json.dumps([] if is_list else charge).encode()
                self.send_response(404 if is_strange else 200)
                self.send_header("content-length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def env(self) -> dict[str, str]:
        """What a node needs to take payments through it."""
        return {"TICKETRUSH_PAYMENT_GATEWAY": self.url, "TICKETRUSH_WEBHOOK_SECRETS": f"{OTHER_SECRET},{SECRET}"}


@contextlib.contextmanager
def gateway(folder: Path, port: int, urls: Sequence[str], *flags: str) -> Iterator[Gateway]:
    """A running gateway, ended afterwards."""
    running = Gateway(folder, port, urls, *flags)
    try:
        yield running.serving()
    finally:
        running.stop()
