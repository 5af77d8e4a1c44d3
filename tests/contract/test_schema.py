"""The API does what its own description says, whatever schemathesis makes up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.servers import FAST_LANE, PLAIN_UVICORN, Server, running

EXAMPLES = 10
"""Requests an operation and a phase."""

NOT_PROMISED = "positive_data_acceptance,use_after_free"
"""For JSON Schema 1.0 is an integer, here quantities are written without a point. DELETE cancels and keeps."""

KNOWN = """
[checks]
negative_data_rejection.expected-statuses = [400, 401, 403, 404, 405, 409, 410, 413, 422]

[[operations]]
include-path = "/v1/sales/{{sale}}/reservations"
parameters = {{ "path.sale" = "g1" }}

[[operations]]
include-path = "/v1/sales/{{sale}}/items/{{item}}/stock"
parameters = {{ "path.sale" = "g1", "path.item" = "second" }}

[[operations]]
include-path = "/v1/orders/{{id}}"
parameters = {{ "path.id" = "{id}" }}

[[operations]]
include-path = "/v1/orders/{{id}}/payment"
parameters = {{ "path.id" = "{id}" }}
"""
"""Things that exist, so that not every made-up request ends at an unknown id."""


def test_no_made_up_request_finds_a_5xx_or_an_answer_that_is_not_described() -> None:
    with running(FAST_LANE) as fast, running(PLAIN_UVICORN) as plain:
        servers = (fast, plain)
        for server, run in [(server, schemathesis(server)) for server in servers]:
            try:
                said, _ = run.communicate(timeout=60)
            finally:
                run.kill()
            assert run.returncode == 0, f"{server.front}: {said[-5_000:]}"
            assert "Tested: 18" in said
        assert all(server.audit()["ok"] for server in servers)
        assert not any("Traceback" in server.errors() for server in servers)


def schemathesis(server: Server) -> subprocess.Popen[str]:
    """A run of schemathesis against `server`, started; it knows a sale and a reservation there."""
    server.open_sale("g1", {"second": 1_000_000})
    made = server.call("POST", "/v1/sales/g1/reservations", {"item": "second"})
    (server.folder / "schemathesis.toml").write_text(KNOWN.format(id=made.json()["id"]))
    command = [str(Path(sys.executable).with_name("st")), "run", f"{server.url}/openapi.json"]
    command += ["--header", f"Authorization: Bearer {server.operator}", "--exclude-checks", NOT_PROMISED]
    command += ["--max-examples", str(EXAMPLES), "--seed", "1", "--warnings", "off", "--no-color"]
    return subprocess.Popen(command, cwd=server.folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def operations(server: Server) -> list[tuple[str, str, dict[str, Any]]]:
    schema = json.loads(server.call("GET", "/openapi.json").body)
    return [
        (path, method, operation) for path, methods in schema["paths"].items() for method, operation in methods.items()
    ]


def test_every_call_describes_itself_its_answers_and_its_problems(server: Server) -> None:
    for path, method, operation in operations(server):
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["description"], where
        assert any(status.startswith("2") for status in operation["responses"]), where
        for status, response in operation["responses"].items():
            kind = "application/json" if status.startswith("2") else "application/problem+json"
            assert list(response["content"]) == [kind], f"{where} {status}"


def test_the_description_says_which_calls_need_a_token_and_a_key(server: Server) -> None:
    described = {(method, path): operation for path, method, operation in operations(server)}
    public = {key for key, operation in described.items() if not operation.get("security")}
    keys = {
        key: parameter["required"]
        for key, operation in described.items()
        for parameter in operation.get("parameters", [])
        if parameter["name"] == "Idempotency-Key"
    }

    assert public == {
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("get", "/v1/sales/{sale}"),
        ("post", "/v1/webhooks/payments"),  # signed
    }
    assert keys == {
        ("post", "/v1/sales/{sale}/reservations"): False,
        ("post", "/v1/sales/{sale}/items/{item}/stock"): True,
    }
