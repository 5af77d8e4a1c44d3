"""A small HTTP client for the operator's commands: JSON in, JSON out, one request a connection.

The standard library is enough for it; no proxy is used and no redirect is followed, so a token goes
to the named server and nowhere else.
"""

from __future__ import annotations

import http.client
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from ticketrush.addresses import check_web
from ticketrush.cli.app import RefusedError, UnreachableError, UsageError

TIMEOUT_S: Final = 30.0


class Client:
    """Talks to the server at `url`, showing `token` if there is one."""

    def __init__(self, url: str, token: str | None) -> None:
        try:
            check_web(url)
        except ValueError:
            raise UsageError(f"{url!r} is not the URL of a server; write it like http://127.0.0.1:8000") from None
        parts = urlsplit(url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(str(parts.hostname), parts.port, timeout=TIMEOUT_S)
        self._url = url
        self._base = parts.path.rstrip("/")
        self._headers = {"Accept": "application/json", "Connection": "close"}
        if token:
            self._headers["Authorization"] = f"Bearer {token.strip()}"

    def call(self, method: str, path: str, body: object = None, *, key: str = "") -> dict[str, Any]:
        """The JSON object that the server answers; `key` is the idempotency key.

        Raises:
            UnreachableError: no answer; what was asked may have happened.
            RefusedError: a problem, with the server's own words.
        """
        headers = dict(self._headers)
        if key:
            headers["Idempotency-Key"] = key
        content = None if body is None else msgspec.json.encode(body)
        if content is not None:
            headers["Content-Type"] = "application/json"
        return self._understand(*self._exchange(method, path, content, headers))

    def reach(self) -> None:
        """See whether anybody answers, whatever the answer is.

        Raises:
            UnreachableError: nobody does.
        """
        self._exchange("GET", "/healthz", None, self._headers)

    def _exchange(self, method: str, path: str, content: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        try:
            self._connection.request(method, self._base + path, content, headers)
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise UnreachableError(
                f"{self._url} did not answer ({why}). Start a server with `ticketrush serve`, or name another "
                "with --url or TICKETRUSH_URL"
            ) from None
        except ValueError as error:
            raise UsageError(f"the request cannot be sent ({error}); check --url and --token") from None
        finally:
            self._connection.close()

    def _understand(self, status: int, text: bytes) -> dict[str, Any]:
        try:
            answer = msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.MsgspecError:
            raise RefusedError(f"{self._url} answered {status} without a JSON object; is it ticketrush?") from None
        if status < 300:
            return answer
        advice = ""
        if status in {401, 403} and answer.get("code") != "not_open":
            advice = " An operator's token comes from `ticketrush token mint --operator`; give it as TICKETRUSH_TOKEN."
        what = str(answer.get("detail") or answer.get("title") or "no reason given")
        raise RefusedError(f"{what.rstrip('.')} ({answer.get('code', 'no code')}, HTTP {status}).{advice}")
