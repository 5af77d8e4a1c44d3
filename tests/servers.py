"""Real servers for tests: started as processes, spoken to over sockets, ended by their process id.

::

    with running() as server:
        server.open_sale("g1", {"second": 100})
        answer = server.reserve("g1", buyer="ada", key="k1")
        assert answer.status == 201

Three fronts serve the same API: `FAST_LANE` and `NO_FAST_LANE` are ``ticketrush serve``,
`PLAIN_UVICORN` is uvicorn on its own with the ASGI application. `ON_REDIS` is the first one on another ledger.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.valkey import own_valkey
from tests.wire import Answer, Wire, request
from ticketrush.admission.tokens import Tokens

FAST_LANE: Final = "fast-lane"
NO_FAST_LANE: Final = "no-fast-lane"
PLAIN_UVICORN: Final = "plain-uvicorn"

ON_REDIS: Final = "on-redis"
"""The fast lane, on a ledger in a Valkey of its own."""

FRONTS: Final = (FAST_LANE, NO_FAST_LANE, PLAIN_UVICORN)
OURS: Final = (FAST_LANE, NO_FAST_LANE)
"""The fronts whose HTTP parsing is ours to answer for."""

SECRETS: Final = ("the-first-secret-mints-and-verifies-0123", "the-second-secret-only-verifies-01234567")

START_S: Final = 60.0
STOP_S: Final = 15.0

_UVICORN_URL: Final = re.compile(r"Uvicorn running on (http://[0-9.:]+)")


class Server:
    """A server process. `folder` has its journal and its output; start it there again to restart."""

    def __init__(
        self,
        folder: Path,
        front: str = FAST_LANE,
        *flags: str,
        env: Mapping[str, str] | None = None,
        secrets: tuple[str, ...] = SECRETS,
    ) -> None:
        """Start and wait until it serves. `flags` are those of ``serve``, `env` adds variables.

        Without `secrets` no tokens are set, for an open server.

        Raises:
            AssertionError: it did not start; says what it wrote.
        """
        self.folder, self.front, self.secrets = folder, front, secrets
        self.ledger = folder / "tickets.db"
        self._output, self._errors = folder / "stdout.txt", folder / "stderr.txt"
        self._errors.write_text("")
        command = [sys.executable, "-m", "ticketrush", "serve", "--json", "--port", "0", *flags]
        if front == NO_FAST_LANE:
            command.append("--no-fast-lane")
        elif front == PLAIN_UVICORN:
            command = [sys.executable, "-m", "uvicorn", "--factory", "ticketrush.http.server:application"]
            command += ["--port", "0", "--http", "httptools", "--no-access-log", *flags]
        with self._output.open("wb") as output, self._errors.open("ab") as errors:
            self.process = subprocess.Popen(
                command, cwd=folder, env=self._environment(env or {}), stdout=output, stderr=errors
            )
        try:
            self.url = self._wait_until_it_serves()
        except BaseException:
            self.kill()
            raise
        self.port = int(self.url.rpartition(":")[2])
        self.tokens = Tokens([secret.encode() for secret in secrets], "ticketrush") if secrets else None
        self.operator = self.mint("operator", scope="operator") if secrets else ""
        """A token that may run sales; empty on an open server."""

    def _environment(self, env: Mapping[str, str]) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("TICKETRUSH_")}
        own["TICKETRUSH_LEDGER"] = f"sqlite:///{self.ledger}"
        if self.secrets:
            own["TICKETRUSH_TOKEN_SECRETS"] = ",".join(self.secrets)
        return own | dict(env)

    def _wait_until_it_serves(self) -> str:
        until = time.monotonic() + START_S
        while time.monotonic() < until and self.process.poll() is None:
            url = self._announced()
            if url:
                return url
            time.sleep(0.02)
        raise AssertionError(f"the server did not start: {self._output.read_text()}{self.errors()}")

    def _announced(self) -> str | None:
        if self.front == PLAIN_UVICORN:
            found = _UVICORN_URL.search(self.errors())
            return found[1] if found else None
        lines = self._output.read_text().splitlines(keepends=True)
        return str(json.loads(lines[0])["url"]) if lines and lines[0].endswith("\n") else None

    # --- the process ------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def errors(self) -> str:
        """What it wrote to standard error so far."""
        return self._errors.read_text(errors="replace")

    def rss_mb(self) -> float:
        """Its memory now, in megabytes."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1]) / 1_024

    def terminate(self) -> None:
        """Ask it to stop, and do not wait."""
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> int:
        """Ask it to stop, kill it if it does not; its exit code (negative: the signal that ended it)."""
        if self.is_running:
            self.terminate()
        return self.wait()

    def wait(self) -> int:
        """Its exit code once it has stopped; killed after a bounded wait."""
        try:
            return self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return self.kill()

    def kill(self) -> int:
        """Kill it as a power cut would; its exit code."""
        self.process.kill()
        return self.process.wait()

    # --- speaking to it ---------------------------------------------------------------------

    def mint(self, buyer: str, *, ttl_s: float = 3_600, scope: str = "") -> str:
        """A token that says that its bearer is `buyer`."""
        assert self.tokens is not None, "an open server has no tokens"
        return self.tokens.mint(buyer, ttl_s=ttl_s, scope=scope)

    def connect(self, *, timeout_s: float = 10.0) -> Wire:
        """A raw connection."""
        return Wire(self.port, timeout_s=timeout_s)

    def head(self, buyer: str = "", key: str = "") -> dict[str, str]:
        """The headers that say who asks (a buyer, else an operator), and with which idempotency key."""
        headers = {"Idempotency-Key": key} if key else {}
        if self.tokens is None:
            headers["X-Buyer"] = buyer or "operator"
        else:
            headers["Authorization"] = f"Bearer {self.mint(buyer) if buyer else self.operator}"
        return headers

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        buyer: str = "",
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request on a connection of its own, as a buyer, else as the operator, else with just `headers`."""
        who = self.head(buyer, key) if headers is None else dict(headers)
        data = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        with self.connect() as wire:
            wire.send(request(method, path, data, who | {"Connection": "close"}))
            return wire.answer(has_body=method != "HEAD")

    def create_sale(self, sale: str, capacities: Mapping[str, int], limit: int | None = None, **more: Any) -> Answer:
        """Put a sale with these items; `more` are other fields of the sale."""
        items = [{"id": id, "capacity": capacity, "purchase_limit": limit} for id, capacity in capacities.items()]
        return self.call("PUT", f"/v1/sales/{sale}", {"items": items, **more})

    def open_sale(self, sale: str, capacities: Mapping[str, int], limit: int | None = None, **more: Any) -> str:
        """Put a sale and open it; its id."""
        answer = self.create_sale(sale, capacities, limit, **more)
        assert answer.status == 201, answer
        assert self.call("POST", f"/v1/sales/{sale}/open").status == 200
        return sale

    def reserve(self, sale: str, item: str = "second", quantity: int = 1, *, buyer: str, key: str = "") -> Answer:
        """The hot call."""
        body = {"item": item, "quantity": quantity}
        return self.call("POST", f"/v1/sales/{sale}/reservations", body, buyer=buyer, key=key)

    def level(self, sale: str, item: str = "second") -> dict[str, Any]:
        """An item of a sale as the API shows it: capacity, available, leased, held, sold."""
        items: list[dict[str, Any]] = self.call("GET", f"/v1/sales/{sale}").json()["items"]
        return next(each for each in items if each["id"] == item)

    def audit(self) -> dict[str, Any]:
        """The operator's audit."""
        report: dict[str, Any] = self.call("GET", "/v1/audit").json()
        return report

    def journal(self, limit: int = 10_000) -> list[dict[str, Any]]:
        """The whole journal, read in pages of `limit` events."""
        events: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = self.call("GET", f"/v1/audit/events?after={after}&limit={limit}").json()
            assert len(page["events"]) <= limit
            events += page["events"]
            after = page["next"]
        return events


@contextlib.contextmanager
def running(
    front: str = FAST_LANE,
    *flags: str,
    env: Mapping[str, str] | None = None,
    secrets: tuple[str, ...] = SECRETS,
) -> Iterator[Server]:
    """A server in a temporary folder; both are gone afterwards."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="ticketrush-test-"))
        if front == ON_REDIS:
            valkey = stack.enter_context(own_valkey("fsync"))
            env = {"TICKETRUSH_LEDGER": valkey.url} | dict(env or {})
        server = Server(Path(folder), front, *flags, env=env, secrets=secrets)
        stack.callback(server.stop)
        yield server
