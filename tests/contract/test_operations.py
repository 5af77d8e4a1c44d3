"""What operations look at: the audit, the journal, health, metrics, documentation."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.contract.conftest import Farm, NewSale
from tests.servers import Server

INVARIANTS = [f"I{number}" for number in range(1, 9)]


@pytest.fixture(scope="module")
def farm() -> Iterator[Farm]:
    """Servers for these tests alone: they look at the whole of one, and holds that others leave behind expire."""
    with contextlib.ExitStack() as servers:
        yield Farm(servers)


def busy_sale(server: Server, new_sale: NewSale) -> str:
    """A sale with reservations in several states."""
    sale = new_sale(10, limit=3)
    ids = [server.reserve(sale, buyer=buyer, key="k").json()["id"] for buyer in ("ada", "bob", "eve")]
    server.call("POST", f"/v1/orders/{ids[0]}/payment", {"card": "approve"}, buyer="ada")
    server.call("POST", f"/v1/reservations/{ids[0]}/refund")
    server.call("DELETE", f"/v1/reservations/{ids[1]}", buyer="bob")
    server.call("POST", f"/v1/orders/{ids[2]}/payment", {"card": "approve"}, buyer="eve")
    return sale


def test_the_audit_finds_all_eight_invariants_kept(server: Server, new_sale: NewSale) -> None:
    busy_sale(server, new_sale)

    report = server.audit()

    assert report["ok"] is True
    assert report["checks"] == dict.fromkeys(INVARIANTS, True)
    assert re.fullmatch(r"\d{4}-.*Z", report["as_of"])
    assert report["report"]["violations"] == []


def test_the_journal_is_read_in_pages_without_a_gap(server: Server, new_sale: NewSale) -> None:
    sale = busy_sale(server, new_sale)

    whole = server.journal()

    assert [event["seq"] for event in whole] == list(range(1, len(whole) + 1))
    assert server.journal(97) == whole
    created = next(event for event in whole if event["type"] == "sale_created" and event["sale"]["id"] == sale)
    types = [event["type"] for event in whole[created["seq"] - 1 :]]
    assert types == ["sale_created", "sale_scheduled", "held", "held", "held", "paid", "refunded", "cancelled", "paid"]


def test_the_journal_after_its_end_is_empty(server: Server) -> None:
    end = server.call("GET", "/v1/audit/state").json()["seq"]

    page = server.call("GET", f"/v1/audit/events?after={end}").json()

    assert page == {"events": [], "next": None}


@pytest.mark.parametrize("query", ["after=-1", "limit=0", "limit=10001", "after=x", "limit=1.5", f"after={2**63}"])
def test_a_page_that_cannot_be_is_refused(server: Server, query: str) -> None:
    answer = server.call("GET", f"/v1/audit/events?{query}")

    assert (answer.status, answer.code) == (422, "invalid_request")
    assert query.partition("=")[0] in answer.json()["detail"]


def test_the_ledgers_state_agrees_with_the_public_levels(server: Server, new_sale: NewSale) -> None:
    sale = busy_sale(server, new_sale)

    state = server.call("GET", "/v1/audit/state").json()

    level = server.level(sale)
    assert state["levels"][sale]["second"] == {
        name: level[name] for name in ("capacity", "available", "leased", "held", "sold")
    }
    assert re.fullmatch(r"[0-9a-f]{32,}", state["digest"])
    assert server.call("GET", "/v1/audit/state").json() == state


def test_health_and_readiness_need_no_token(server: Server) -> None:
    health, ready = (server.call("GET", path, headers={}) for path in ("/healthz", "/readyz"))

    assert (health.status, health.json()) == (200, {"status": "ok"})
    assert (ready.status, ready.json()) == (200, {"status": "ready"})


def metrics(server: Server) -> dict[str, float]:
    answer = server.call("GET", "/metrics", headers={})
    assert answer.status == 200
    assert (answer.header("content-type") or "").startswith("text/plain; version=0.0.4")
    families = text_string_to_metric_families(answer.body.decode())
    return {
        "/".join([sample.name, *(value for _, value in sorted(sample.labels.items()))]): sample.value
        for family in families
        for sample in family.samples
    }


def test_metrics_can_be_parsed_and_count(server: Server, new_sale: NewSale) -> None:
    before = metrics(server)
    sale = new_sale(2)
    server.reserve(sale, quantity=2, buyer="ada")
    server.reserve(sale, buyer="bob")
    after = metrics(server)

    assert after["process_cpu_seconds_total"] > 0
    assert after["process_resident_memory_bytes"] > 1e6
    assert after["ticketrush_commands_total"] - before["ticketrush_commands_total"] == 3
    assert after["ticketrush_gate_refusals_total"] - before["ticketrush_gate_refusals_total"] == 1
    assert after[f"ticketrush_units/second/{sale}/held"] == 2
    assert after["ticketrush_waiting"] == 0


def test_the_documentation_loads(server: Server) -> None:
    page, schema = (server.call("GET", path, headers={}) for path in ("/docs", "/openapi.json"))

    assert page.status == 200
    assert (page.header("content-type") or "").startswith("text/html")
    assert b"/openapi.json" in page.body
    calls = {(method, path) for path, methods in schema.json()["paths"].items() for method in methods}
    assert calls == {
        ("post", "/v1/sales/{sale}/reservations"),
        ("get", "/v1/reservations/{id}"),
        ("delete", "/v1/reservations/{id}"),
        ("get", "/v1/orders"),
        ("get", "/v1/orders/{id}"),
        ("post", "/v1/orders/{id}/payment"),
        ("get", "/v1/sales/{sale}"),
        ("put", "/v1/sales/{sale}"),
        ("post", "/v1/sales/{sale}/open"),
        ("post", "/v1/sales/{sale}/close"),
        ("post", "/v1/sales/{sale}/items/{item}/stock"),
        ("post", "/v1/reservations/{id}/refund"),
        ("get", "/v1/audit"),
        ("get", "/v1/audit/events"),
        ("get", "/v1/audit/state"),
        ("post", "/v1/webhooks/payments"),
        ("get", "/healthz"),
        ("get", "/readyz"),
    }


def test_an_unknown_address_and_method_get_a_problem_document(server: Server) -> None:
    nowhere = server.call("GET", "/v2/anything")
    patch = server.call("PATCH", "/healthz")

    assert (nowhere.status, nowhere.code) == (404, "not_found")
    assert (patch.status, patch.code) == (405, "method_not_allowed")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/healthz", {"GET"}),
        ("/v1/sales/g1", {"GET", "PUT"}),
        ("/v1/reservations/0", {"DELETE", "GET"}),
        ("/v1/sales/g1/reservations", {"POST"}),
    ],
)
def test_a_wrong_method_is_told_all_right_ones(server: Server, path: str, allowed: set[str]) -> None:
    answer = server.call("PATCH", path)

    assert (answer.status, answer.code) == (405, "method_not_allowed")
    assert set((answer.header("allow") or "").replace(" ", "").split(",")) == allowed


def test_an_ordinary_http_client_gets_along(server: Server, new_sale: NewSale) -> None:
    sale = new_sale(3)
    with httpx.Client(base_url=server.url, headers=server.head("ada"), verify=False, trust_env=False) as client:
        path = f"/v1/sales/{sale}/reservations"
        statuses = [client.post(path, json={"item": "second"}).status_code for _ in range(4)]
        look = client.get(f"/v1/sales/{sale}")

    assert statuses == [201, 201, 201, 409]
    assert look.json()["items"][0]["held"] == 3
