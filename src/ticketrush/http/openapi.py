"""The OpenAPI description, made from the same structs that read and write the JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from ticketrush._version import __version__
from ticketrush.http.problems import KINDS, Problem

_REF = "#/components/schemas/{name}"
_types: set[type] = {Problem}

DESCRIPTION = """Sells a scarce stock to a crowd. Errors are RFC 9457 problem documents with a stable `code`;
times are UTC in ISO 8601. Who repeats a request with the same `Idempotency-Key` gets the first answer."""


def describe(
    body: type | None,
    answers: Mapping[int, type | None],
    codes: Iterable[str],
    *,
    key: Literal["none", "optional", "required"] = "none",
) -> dict[str, Any]:
    """What `openapi_extra` of a route takes: its body, its answers, and the problems it may answer."""
    _types.update(kind for kind in (body, *answers.values()) if kind is not None)
    responses: dict[str, Any] = {}
    for status, kind in answers.items():
        content = {"application/json": {"schema": {"$ref": _REF.format(name=kind.__name__)}}} if kind else {}
        responses[str(status)] = {"description": "Done", "content": content}
    by_status: dict[int, list[str]] = {}
    for code in sorted({*codes, "unavailable", "unknown", "headers_too_large", "timeout", "malformed"}):
        by_status.setdefault(KINDS[code].status, []).append(code)
    for status, names in by_status.items():
        responses[str(status)] = {
            "description": " · ".join(f"`{name}`: {KINDS[name].detail}" for name in names),
            "content": {"application/problem+json": {"schema": {"$ref": _REF.format(name="Problem")}}},
        }
    extra: dict[str, Any] = {"responses": responses}
    if "unauthorized" in codes:
        extra["security"] = [{"bearer": []}]
    if body is not None:
        extra["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": _REF.format(name=body.__name__)}}},
        }
    if key != "none":
        extra["parameters"] = [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": key == "required",
                "description": "Makes repeating the request safe.",
                "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
            }
        ]
    return extra


def schema(app: FastAPI) -> dict[str, Any]:
    """The whole description; what FastAPI guesses of validation errors is left out."""
    described = get_openapi(title="ticketrush", version=__version__, description=DESCRIPTION, routes=app.routes)
    for path in described["paths"].values():
        for operation in path.values():
            unprocessable = operation["responses"].get("422")
            if unprocessable is not None:
                unprocessable["content"].pop("application/json", None)
                if not unprocessable["content"]:
                    del operation["responses"]["422"]
    _, components = msgspec.json.schema_components(sorted(_types, key=lambda kind: kind.__name__), ref_template=_REF)
    described["components"] = {
        "schemas": components,
        "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
    }
    return described
