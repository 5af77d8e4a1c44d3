"""Nginx before real nodes: what it says itself, what it asks another node, and TLS. Shares: `test_edge_shares.py`."""

from __future__ import annotations

import json
import os
import pwd
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.clusters import status_of
from tests.e2e.test_rush import eventually
from tests.front_doors import Door, address_of, call, entry_of, front_door
from tests.wire import ConnectionEnded, Wire, request
from ticketrush.cluster.plan import ClusterPlan
from ticketrush.cluster.ports import free_port
from ticketrush.cluster.up import cluster
from ticketrush.edge import nginx, render
from ticketrush.edge.cluster_file import ClusterFile, Front, NodeEntry, Tls
from ticketrush.edge.nginx_server import find_program

RESERVE: Final = "/v1/sales/demo/reservations"
TICKET: Final = b'{"item":"ticket","quantity":1}'


def test_it_runs_without_root() -> None:
    """As nobody, in a folder of nobody's, where all its files are."""
    nowhere = NodeEntry(name="n", address=IPv4Address("127.0.0.1"), port=free_port())
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="ticketrush-nobody-") as name:
        folder = Path(name)
        nobody = pwd.getpwnam("nobody")
        as_nobody: dict[str, Any] = {}
        rendered = nginx.files(ClusterFile(front=Front(port=port), nodes=(nowhere,)))
        render.write(folder, rendered)
        if os.geteuid() == 0:
            as_nobody = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        process = subprocess.Popen(
            [str(find_program()), "-p", name, "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off;"],
            stderr=subprocess.PIPE,
            text=True,
            **as_nobody,
        )
        try:
            eventually(lambda: process.poll() is not None or (folder / "nginx.pid").exists())
            assert status_of(f"http://127.0.0.1:{port}/healthz") == 200
            assert status_of(f"http://127.0.0.1:{port}/buy/ticket") == 503
        finally:
            process.send_signal(signal.SIGQUIT)
            _, said = process.communicate(timeout=20)
        said += (folder / "error.log").read_text()
        assert process.returncode == 0, said
        assert "Permission denied" not in said
        owners = {path.name: path.stat().st_uid for path in folder.iterdir() if path.name not in rendered}
        assert set(owners.values()) == {nobody.pw_uid if as_nobody else os.geteuid()}, owners


# --- what Nginx says itself ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """Two open nodes; Nginx answers two names, is impatient, and believes nobody."""
    with front_door(
        tmp_path_factory.mktemp("door"),
        names=("tickets.example", "127.0.0.1"),
        keep_host=False,
        slow_client_s=1,
    ) as made:
        yield made


def test_a_purchase_goes_through_and_its_answer_comes_back_whole(door: Door) -> None:
    answers = [call(door, "POST", RESERVE, TICKET, X_Buyer="ada", Idempotency_Key="k1") for _ in range(2)]
    assert [answer.status for answer in answers] == [201, 200]
    assert answers[1].header("idempotent-replayed") == "true"
    assert answers[0].json()["id"] == answers[1].json()["id"]
    refused = call(door, "POST", "/v1/sales/none/reservations", TICKET, X_Buyer="ada")
    assert (refused.status, refused.code) == (404, "unknown_sale")


@pytest.mark.parametrize("path", ["/metrics", "//metrics", "/metrics?x=1", "/%6detrics", "/x/../metrics", "/./metrics"])
def test_the_counters_are_not_for_the_public(door: Door, path: str) -> None:
    answer = call(door, "GET", path)
    assert (answer.status, answer.code) == (404, "not_found")
    assert door.lines("/metrics", 1)[-1]["node"] == ""


def test_other_names_are_answered_to_health_checks_only(door: Door) -> None:
    assert [call(door, "GET", path, Host="10.0.0.9").status for path in ("/healthz", "/readyz")] == [200, 200]
    for path in ("/buy/ticket", "/docs", "/metrics"):
        assert call(door, "GET", path, Host="evil.example").status == 421
    assert call(door, "GET", "/buy/ticket", Host="tickets.example").status == 200


def test_a_path_reaches_the_nodes_as_it_was_written(door: Door) -> None:
    """A node takes no id with an encoded character; it would take the decoded one."""
    for path in ("/v1/sales/dem%6F", "/v1/sales/demo", "/v1/sales/a%2Fb", "//v1/sales/demo"):
        direct = int(door.nodes[0].url.rpartition(":")[2])
        with Wire(direct) as wire:
            wire.send(request("GET", path, headers={"Connection": "close"}))
            assert wire.answer().status == call(door, "GET", path).status, path


def test_the_largest_body_goes_through_without_a_file_and_a_larger_one_does_not(door: Door) -> None:
    most = door.nginx.cluster.front.body_bytes
    body = TICKET + b" " * (most - len(TICKET))
    assert call(door, "POST", RESERVE, body, X_Buyer="bob").status == 201
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    assert call(door, "POST", RESERVE, chunks, X_Buyer="cyd", Transfer_Encoding="chunked").status == 201
    too_large = call(door, "POST", RESERVE, body + b" ", X_Buyer="bob")
    assert (too_large.status, too_large.code) == (413, "body_too_large")
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body) + 1, body + b" ")
    too_large = call(door, "POST", RESERVE, chunks, X_Buyer="cyd", Transfer_Encoding="chunked")
    assert (too_large.status, too_large.code) == (413, "body_too_large")
    assert "temporary file" not in door.complaints()


def test_too_large_headers_and_what_is_no_http_are_told_so(door: Door) -> None:
    line = "x" * 9_000
    large = call(door, "GET", "/buy/ticket", X_1=line, X_2=line, X_3=line, X_4=line)
    assert (large.status, large.code) == (431, "headers_too_large")
    long_line = call(door, "GET", "/" + "x" * 20_000)
    assert (long_line.status, long_line.code) == (431, "headers_too_large")
    for text in (b"GARBAGE\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"):
        with Wire(door.port) as wire:
            wire.send(text)
            answer = wire.answer()
            assert (answer.status, answer.code) == (400, "malformed")
    trace = call(door, "TRACE", "/buy/ticket")
    assert (trace.status, trace.code) == (405, "method_not_allowed")


@pytest.mark.parametrize("sent", [b"GET /buy/ticket HT", request("POST", RESERVE, headers={"Content-Length": "9"})])
def test_a_client_that_is_too_slow_is_cut(door: Door, sent: bytes) -> None:
    with Wire(door.port, timeout_s=5.0) as wire:
        began_s = time.monotonic()
        wire.send(sent)
        with pytest.raises(ConnectionEnded):
            wire.answer()
        assert 0.9 < time.monotonic() - began_s < 3.0


def test_nobody_says_for_whom_he_asks(door: Door) -> None:
    """Open nodes answer this machine only, which is why this can be seen."""
    assert call(door, "GET", "/v1/sales/demo", X_Forwarded_For="203.0.113.9").status == 200
    assert call(door, "GET", "/v1/sales/demo", Forwarded="for=203.0.113.9").status == 200


def test_the_log_is_json_and_has_no_secrets(door: Door) -> None:
    secret = "s3cr3t-token"
    call(door, "GET", f"/v1/sales/logged?token={secret}", Authorization=f"Bearer {secret}", User_Agent=secret)
    (line,) = door.lines("/v1/sales/logged", 1)
    assert line.keys() == {
        *("time", "msec", "client", "method", "path", "status", "bytes", "request_s"),
        *("node", "node_status", "node_s", "retries"),
    }
    assert (line["status"], line["method"], line["retries"]) == (404, "GET", 0)
    assert line["node"] in set(map(address_of, door.nodes))
    assert secret not in door.nginx.access_log.read_text() + door.complaints()


def test_a_trusted_proxy_says_for_whom_it_asks_and_cannot_be_led_around(tmp_path: Path) -> None:
    with front_door(tmp_path, keep_host=False, trusted_proxies=("127.0.0.0/8",)) as door:
        assert call(door, "GET", "/v1/sales/demo").status == 200
        for forwarded in ("203.0.113.9", "127.0.0.1, 203.0.113.9", "203.0.113.9, 127.0.0.2"):
            answer = call(door, "GET", "/v1/sales/demo", X_Forwarded_For=forwarded)
            assert (answer.status, answer.code) == (403, "not_local")
        assert {line["client"] for line in door.lines("/v1/sales/demo", 4)} == {"127.0.0.1", "203.0.113.9"}


# --- what is asked again -------------------------------------------------------------------------


def give_up_soon(door: Door) -> None:
    """Nginx waits a second for a node that hangs, and not five, which a cluster file must give it at least."""
    given = door.nginx.cluster
    front = given.front.model_copy(update={"answer_timeout_s": 1})
    door.nginx.reload(given.model_copy(update={"front": front}))


def test_what_was_not_sent_did_not_happen_and_what_was_is_unknown(tmp_path: Path) -> None:
    with front_door(tmp_path, (1,)) as door:
        give_up_soon(door)
        (node,) = door.nodes
        node.pause()
        late = call(door, "POST", RESERVE, TICKET, X_Buyer="ada")
        late_read = call(door, "GET", "/v1/sales/demo", X_Buyer="ada")
        late_ticket = call(door, "GET", "/buy/ticket")
        node.kill()
        gone = call(door, "POST", RESERVE, TICKET, X_Buyer="ada")
    assert [(answer.status, answer.code) for answer in (late, late_read, late_ticket, gone)] == [
        (503, "unknown"),
        (503, "unavailable"),
        (503, "unknown"),
        (503, "unavailable"),
    ]
    assert all(answer.header("retry-after") == "1" for answer in (late, late_read, late_ticket, gone))


def test_with_a_key_another_node_is_asked_and_without_one_nobody_is(tmp_path: Path) -> None:
    """A node hangs; each request goes to it first, because the other one is a reserve."""
    with front_door(tmp_path, sites="ab", fail_timeout_s=1, max_fails=100) as door:
        give_up_soon(door)
        hangs, reserve = map(address_of, door.nodes)
        door.nodes[0].pause()
        without = call(door, "POST", RESERVE, TICKET, X_Buyer="ada")
        keyed = call(door, "POST", RESERVE, TICKET, X_Buyer="ada", Idempotency_Key="k1")
        door.nodes[0].resume()
        again = call(door, "POST", RESERVE, TICKET, X_Buyer="ada", Idempotency_Key="k1")
        lines = door.lines(RESERVE, 3)
    assert (without.status, without.code) == (503, "unknown")
    assert (keyed.status, again.status) == (201, 200)
    assert keyed.json()["id"] == again.json()["id"], "asked twice, it happened once"
    asked = {line["status"]: (line["node"], line["retries"]) for line in lines}
    assert (asked[503], asked[201]) == ((hangs, 0), (f"{hangs}, {reserve}", 1))


@pytest.mark.parametrize(("key", "status"), [("", 503), ("k1", 201)])
def test_what_a_node_took_with_it_is_asked_again_only_with_a_key(tmp_path: Path, key: str, status: int) -> None:
    """The request is in the node, which dies of something else before it reads it; the other node is a reserve."""
    with front_door(tmp_path, sites="ab", max_fails=100) as door:
        dies = door.nodes[0]
        dies.pause()
        headers = {"X-Buyer": "ada", "Connection": "close"} | ({"Idempotency-Key": key} if key else {})
        with Wire(door.port) as wire:
            wire.send(request("POST", RESERVE, TICKET, headers))
            eventually(lambda: has_unread(int(dies.url.rpartition(":")[2])))
            dies.kill()
            answer = wire.answer()
        (line,) = door.lines(RESERVE, 1)
    assert answer.status == status
    assert key or answer.code == "unknown"
    assert line["node"].startswith(address_of(dies))
    assert (address_of(door.nodes[1]) in line["node"]) is bool(key)


def has_unread(port: int) -> bool:
    """Whether a connection to `port` of this machine has bytes that its server has not read (Linux)."""
    rows = [row.split() for row in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
    return any(
        row[1].endswith(f":{port:04X}") and row[3] == "01" and int(row[4].partition(":")[2], 16) > 0 for row in rows
    )


def test_a_post_that_was_never_sent_goes_to_another_node_without_a_key_too(tmp_path: Path) -> None:
    with front_door(tmp_path) as door:
        door.nodes[0].kill()
        answers = [call(door, "POST", RESERVE, TICKET, X_Buyer=f"buyer-{number}") for number in range(20)]
        assert [answer.status for answer in answers] == [201] * 20
        assert sum(line["retries"] for line in door.lines(RESERVE, 20)) >= 1


def test_nodes_that_are_back_are_asked_although_all_were_shut_out(tmp_path: Path) -> None:
    with front_door(tmp_path, keep_host=False, fail_timeout_s=60) as door:
        for node in door.nodes:
            node.kill()
        assert call(door, "GET", "/buy/ticket").code == "unavailable"
        assert call(door, "GET", "/buy/ticket").code == "unavailable"
        for node in door.nodes:
            node.restart()
        assert [call(door, "GET", "/buy/ticket").status for _ in range(10)] == [200] * 10


@pytest.mark.parametrize("policy", ["weighted", "round-robin", "ip-hash", "buyer-hash"])
def test_another_site_helps_when_no_node_of_the_own_answers(tmp_path: Path, policy: str) -> None:
    with front_door(tmp_path, (1, 1, 1), sites="aab", policy=policy) as door:
        own = {address_of(node) for node in door.nodes[:2]}
        for _ in range(20):
            call(door, "GET", "/v1/sales/before")
        assert {line["node"] for line in door.lines("/v1/sales/before", 20)} <= own
        for node in door.nodes[:2]:
            node.kill()
        answers = [call(door, "GET", "/v1/sales/after") for _ in range(20)]
        assert [answer.status for answer in answers] == [404] * 20, "the node in the other site does not know it either"


def test_it_is_ready_while_some_node_is(tmp_path: Path) -> None:
    with front_door(tmp_path) as door:
        door.nodes[0].kill()
        assert [call(door, "GET", "/readyz").status for _ in range(4)] == [200] * 4
        door.nodes[1].kill()
        answer = call(door, "GET", "/readyz")
        assert (answer.status, answer.code) == (503, "unavailable")
        assert call(door, "GET", "/healthz").status == 200


def test_a_node_that_is_there_and_not_ready_does_not_make_it_unready(tmp_path: Path) -> None:
    """Its ledger is another one, which dies."""
    (tmp_path / "other").mkdir()
    plan = ClusterPlan(nodes=1, folder=tmp_path / "other", durability="memory", flags=("--demo", "10"))
    with front_door(tmp_path, (1,)) as door, cluster(plan) as other:
        (unready,) = other.nodes
        nodes = (*door.nginx.cluster.nodes, entry_of(unready).model_copy(update={"name": "unready"}))
        door.nginx.reload(door.nginx.cluster.model_copy(update={"nodes": nodes}))
        other.valkeys[0].kill()
        eventually(lambda: status_of(f"{unready.url}/readyz") == 503)
        assert [call(door, "GET", "/readyz").status for _ in range(8)] == [200] * 8
        door.nodes[0].kill()
        answer = call(door, "GET", "/readyz")
        assert (answer.status, answer.code) == (503, "unavailable")


# --- TLS -----------------------------------------------------------------------------------------


def curl(*arguments: str, upload: str = "") -> list[str]:
    """What curl says: HTTP version and status of the last answer, and its body. `upload` is its standard input."""
    command = ["curl", "--silent", "--show-error", "--max-time", "10", "--write-out", "\n%{http_version} %{http_code}"]
    done = subprocess.run([*command, *arguments], capture_output=True, input=upload, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    body, _, said = done.stdout.rpartition("\n")
    return [*said.split(), body]


def test_tls_speaks_http_2_and_a_post_to_the_plain_port_loses_nothing_on_the_way(tmp_path: Path) -> None:
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-subj", "/CN=tickets.example", "-addext", "subjectAltName=DNS:tickets.example", "-days", "1"]
    subprocess.run([*made, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True, timeout=30)
    tls = Tls(certificate=str(certificate), key=str(key), port=free_port())
    with front_door(tmp_path, names=("tickets.example",), keep_host=False, tls=tls) as door:
        here = ["--cacert", str(certificate)]
        for port in (door.port, tls.port):
            here += ["--resolve", f"tickets.example:{port}:127.0.0.1"]
        secure, plain = f"https://tickets.example:{tls.port}", f"http://tickets.example:{door.port}"
        buyer = ["--header", "X-Buyer: ada", "--header", "Content-Type: application/json"]

        assert curl(*here, "--http2", f"{secure}/buy/ticket")[:2] == ["2", "200"]
        assert curl(*here, "--http1.1", f"{secure}/buy/ticket")[:2] == ["1.1", "200"]
        posted = curl(*here, "--location", *buyer, "--data", TICKET.decode(), f"{plain}{RESERVE}")
        assert posted[:2] == ["2", "201"]
        assert json.loads(posted[2])["quantity"] == 1
        assert call(door, "POST", RESERVE, TICKET, Host="tickets.example").status == 308
        assert call(door, "GET", "/readyz", Host="10.0.0.9").status == 200, "for health checks, which ask by address"
        assert call(door, "GET", "/readyz", Host="tickets.example").status == 200
        with_a_body = [*here, "--http2", "--request", "GET", "--upload-file", "-", f"{secure}/readyz"]
        assert curl(*with_a_body, upload="no length is said")[:2] == ["2", "413"]

        other = f"other.example:{tls.port}"
        misled = curl(*here, f"http://tickets.example:{tls.port}/buy/ticket")
        assert (misled[1], json.loads(misled[2])["code"]) == ("400", "malformed")

        refused = subprocess.run(
            ["curl", "--silent", "--insecure", "--resolve", f"{other}:127.0.0.1", f"https://{other}/buy/ticket"],
            timeout=20,
            check=False,
        )
        assert refused.returncode == 35, "there is no certificate for another name"
