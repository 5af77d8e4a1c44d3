"""The API does what its own description says, whatever schemathesis makes up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers import FAST_LANE, PLAIN_UVICORN, Server, running

EXAMPLES = 10
"""Requests an operation and a phase."""

NOT_PROMISED = "positive_data_acceptance,use_after_free"
"""For JSON Schema 1.0 is an integer, here quantities are written without a point. DELETE cancels and keeps."""

KNOWN = """
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


@pytest.mark.parametrize("front", [FAST_LANE, PLAIN_UVICORN])
def test_no_made_up_request_finds_a_5xx_or_an_answer_that_is_not_described(front: str, tmp_path: Path) -> None:
    with running(front) as server:
        server.open_sale("g1", {"second": 1_000_000})
        made = server.call("POST", "/v1/sales/g1/reservations", {"item": "second"})
        (tmp_path / "schemathesis.toml").write_text(KNOWN.format(id=made.json()["id"]))
        ended = schemathesis(server, tmp_path)

        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "Tested: 16" in ended.stdout
        assert server.audit()["ok"] is True
        assert "Traceback" not in server.errors()


def schemathesis(server: Server, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("st")), "run", f"{server.url}/openapi.json"]
    command += ["--header", f"Authorization: Bearer {server.operator}", "--exclude-checks", NOT_PROMISED]
    command += ["--max-examples", str(EXAMPLES), "--seed", "1", "--warnings", "off", "--no-color"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


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

    assert public == {("get", "/healthz"), ("get", "/readyz"), ("get", "/v1/sales/{sale}")}
    assert keys == {
        ("post", "/v1/sales/{sale}/reservations"): False,
        ("post", "/v1/sales/{sale}/items/{item}/stock"): True,
    }
