"""nginx.conf from the cluster file: Nginx takes whatever is rendered, and no value gets out of its place."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner

from ticketrush.cli import app
from ticketrush.cluster.errors import PlanError
from ticketrush.edge import nginx
from ticketrush.edge.cluster_file import CONNECTIONS_MAX, FILES_MAX, ClusterFile, parse
from ticketrush.edge.demo import DemoPlan, take
from ticketrush.edge.errors import ClusterFileError
from ticketrush.edge.nginx_server import judge
from ticketrush.edge.render import write
from ticketrush.http.problems import KINDS

NODES: Final = """
[[nodes]]
name = "node-1"
address = "127.0.0.1"
port = 18001
weight = 1
[[nodes]]
name = "node-2"
address = "127.0.0.1"
port = 18002
weight = 2
"""
THIRD_ELSEWHERE: Final = """
[[nodes]]
name = "node-3"
address = "127.0.0.1"
port = 18003
site = "b"
"""
POLICIES: Final = ("weighted", "round-robin", "ip-hash", "buyer-hash")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "tls.crt", folder / "tls.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-subj", "/CN=tickets.example", "-days", "1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return certificate, key


def front(policy: str, *lines: str) -> str:
    return "\n".join(["[front]", "port = 18080", f'policy = "{policy}"', *lines, ""])


def complaint(folder: Path, cluster: ClusterFile) -> str:
    """What Nginx says of what is rendered."""
    rendered = nginx.files(cluster)
    write(folder, rendered)
    return "\n".join(filter(None, (judge(folder, name) for name in rendered if name != nginx.SLOW_NAME)))


@pytest.mark.parametrize("nodes", [NODES, NODES + THIRD_ELSEWHERE], ids=["one site", "two sites"])
@pytest.mark.parametrize("policy", POLICIES)
def test_nginx_takes_every_combination(policy: str, nodes: str, tmp_path: Path, certificate: tuple[Path, Path]) -> None:
    options = (
        f'tls = {{ certificate = "{certificate[0]}", key = "{certificate[1]}", port = 18443 }}',
        'names = ["tickets.example", "*.tickets.example", "under_score.example"]',
        'trusted_proxies = ["10.0.0.0/8", "192.0.2.1/32"]',
        "rate = { per_second = 1, burst = 0 }",
    )
    for chosen in itertools.product((False, True), repeat=len(options)):
        lines = [line for line, wanted in zip(options, chosen, strict=True) if wanted]
        assert complaint(tmp_path, parse(front(policy, *lines) + nodes)) == "", lines


@pytest.mark.parametrize(
    "line",
    [
        "sold_out_at_edge = false",
        "keep_host = false",
        'address = "127.0.0.1"',
        "body_bytes = 1024",
        "body_bytes = 1048576",
        "header_bytes = 1024",
        "header_bytes = 65536",
        "rate = { per_second = 1000000, burst = 1000000 }",
        "slow_client_s = 1",
        "worker_connections = 64",
        f"worker_connections = {CONNECTIONS_MAX}",
        "worker_connections = 64\nworker_files = 320",
        f"worker_files = {FILES_MAX}",
        "max_fails = 100",
        "fail_timeout_s = 60",
        f'names = ["{".".join(["a" * 62] * 4)}"]',
        f"names = {json.dumps([f'host-{number}.example' for number in range(1_000)])}",
    ],
    ids=lambda line: line[:40],
)
def test_nginx_takes_the_ends_of_every_range(line: str, tmp_path: Path) -> None:
    assert complaint(tmp_path, parse(front("weighted", line) + NODES)) == ""


def test_nginx_takes_as_many_nodes_as_there_may_be(tmp_path: Path) -> None:
    nodes = "\n".join(
        f'[[nodes]]\nname = "n{number}"\naddress = "10.0.{number}.1"\nweight = 1000' for number in range(256)
    )
    for policy in POLICIES:
        assert complaint(tmp_path, parse(front(policy) + nodes)) == ""


def test_a_wrong_file_would_be_found(tmp_path: Path) -> None:
    write(tmp_path, {nginx.NAME: nginx.files(parse(NODES))[nginx.NAME].replace("max_fails=1", "max_fails=one")})
    assert 'invalid parameter "max_fails=one"' in judge(tmp_path)


# --- values stay in their places ---------------------------------------------------------------


NASTY: Final = (
    "a; return 200",
    "a;",
    "a}",
    "a{",
    "a b",
    "a\nreturn 200;",
    "a\n",
    "a\r",
    "a\t",
    "$host",
    "${host}",
    "a$",
    "'a'",
    'a"',
    "a\\",
    "#a",
    "a#",
    "~.*",
    "a*b",
    "..",
    "a..b",
    "*",
    "a\0",
    "{{ 7 * 7 }}",
    "ä",
)
PLACES: Final = {
    "names": 'names = ["VALUE"]',
    "certificate": 'tls = { certificate = "VALUE", key = "/k" }',
    "key": 'tls = { certificate = "/c", key = "VALUE" }',
    "certificate path": 'tls = { certificate = "/c/VALUE", key = "/k" }',
    "policy": 'policy = "VALUE"',
    "trusted": 'trusted_proxies = ["VALUE"]',
    "address": 'address = "VALUE"',
}


TLS: Final = 'tls = { certificate = "/c", key = "/k" }'

PATHS: Final = ("..", "a..b")
"""Break out of nothing but a host name."""


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("value", NASTY, ids=ascii)
def test_what_could_break_out_is_refused(place: str, value: str) -> None:
    line = PLACES[place].replace("VALUE", json.dumps(value)[1:-1])
    text = f"[front]\n{line}\n{NODES}"
    if place == "certificate path" and value in PATHS:
        assert parse(text).front.tls is not None
        return
    with pytest.raises(ClusterFileError):
        parse(text)


@pytest.mark.parametrize("place", ["name", "site", "address"])
@pytest.mark.parametrize("value", [value for value in NASTY if value not in PATHS], ids=ascii)
def test_what_could_break_out_of_a_node_is_refused(place: str, value: str) -> None:
    entry = {"name": "n", "address": "10.0.0.1", "site": "a"} | {place: value}
    lines = "\n".join(f"{key} = {json.dumps(text)}" for key, text in entry.items())
    with pytest.raises(ClusterFileError):
        parse(f"[[nodes]]\n{lines}\n")


def test_every_text_of_the_cluster_file_is_bounded_by_a_pattern_or_a_choice() -> None:
    """A field that somebody adds is one of those that no value breaks out of."""
    texts = list(_texts("", ClusterFile.model_json_schema()))
    assert len(texts) > 10
    assert [place for place, schema in texts if not schema.keys() & {"pattern", "enum", "const", "format"}] == []


def _texts(place: str, schema: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(schema, dict):
        if schema.get("type") == "string":
            yield place, schema
        for name, below in schema.items():
            yield from _texts(f"{place}.{name}", below)
    elif isinstance(schema, list):
        for below in schema:
            yield from _texts(place, below)


# --- what is rendered --------------------------------------------------------------------------


def test_what_nginx_says_itself_are_problems_that_nodes_say_too() -> None:
    for problem in nginx.PROBLEMS:
        document = json.loads(problem.body)
        assert KINDS[problem.code].title == document["title"]
        assert document["type"] == f"urn:ticketrush:problem:{problem.code}"
        assert document["status"] == problem.status
        assert not set(problem.body) & set("'\\$"), "it stands between quotes, where $ means a variable"
        if problem.name not in {"misdirected", "too_many"}:
            assert KINDS[problem.code].status == problem.status


@pytest.mark.parametrize("line", ["", TLS, 'names = ["tickets.example"]', "sold_out_at_edge = false"])
def test_every_way_to_a_node_has_the_limits_by_address(line: str) -> None:
    text = nginx.files(parse(front("weighted", line) + NODES))["nginx.conf"]
    assert len(_ways(text)) >= 5
    assert _without_limits(text) == []
    for limit in LIMITS:
        for number in range(text.count(limit)):
            before, after = text.split(limit)[: number + 1], text.split(limit)[number + 1 :]
            planted = limit.join(before) + "# " + limit.join(after)
            assert len(_without_limits(planted)) == 1, f"{limit} number {number} is not there, and nobody sees it"


TO_A_NODE: Final = "proxy_pass http://ticketrush_nodes;"
LIMITS: Final = ("limit_req zone=ticketrush_rate", "limit_conn ticketrush_at_once")


def _ways(text: str) -> dict[str, str]:
    """The locations that lead to a node, and what stands in them."""
    locations = re.findall(r"^    location (.+?) \{\n(.*?)^    \}$", text, re.MULTILINE | re.DOTALL)
    ways = {name: body for name, body in locations if TO_A_NODE in body}
    assert len(ways) == text.count(TO_A_NODE), "each of them is in one of its own"
    return ways


def _without_limits(text: str) -> list[str]:
    return [
        name for name, body in _ways(text).items() if not all(f"\n      {limit}" in f"\n{body}" for limit in LIMITS)
    ]


def test_each_site_has_a_file_in_which_the_others_are_a_reserve() -> None:
    cluster = parse(NODES + THIRD_ELSEWHERE)

    rendered = nginx.files(cluster)

    assert sorted(rendered) == ["nginx-a.conf", "nginx-b.conf", nginx.SLOW_NAME]
    reserve = {name: _reserve(text) for name, text in rendered.items() if name != nginx.SLOW_NAME}
    assert reserve == {"nginx-a.conf": {"18003"}, "nginx-b.conf": {"18001", "18002"}}


def test_proxies_in_one_site_have_one_file() -> None:
    proxy = '[[proxies]]\nname = "nginx-1"\naddress = "10.0.2.1"\nsite = "a"\n'
    rendered = nginx.files(parse(NODES + THIRD_ELSEWHERE + proxy))
    assert list(rendered) == ["nginx.conf", nginx.SLOW_NAME]
    assert _reserve(rendered["nginx.conf"]) == {"18003"}


def _reserve(text: str) -> set[str]:
    """Ports of the nodes that get requests only when no other one does."""
    upstream = text.partition("upstream ticketrush_nodes {")[2].partition("}")[0]
    servers = [line.split() for line in upstream.splitlines() if line.strip().startswith("server ")]
    return {words[1].partition(":")[2] for words in servers if "backup;" in words}


def test_round_robin_heeds_no_weights() -> None:
    assert "weight=" in nginx.files(parse(front("weighted") + NODES))["nginx.conf"]
    assert "weight=" not in nginx.files(parse(front("round-robin") + NODES))["nginx.conf"]


@pytest.mark.parametrize(
    ("line", "connections", "files"),
    [
        ("", 8_192, 16_640),
        ("worker_connections = 100", 100, 456),
        ("worker_connections = 100\nworker_files = 356", 100, 356),
    ],
)
def test_a_worker_may_have_more_files_than_connections(line: str, connections: int, files: int) -> None:
    text = nginx.files(parse(front("weighted", line) + NODES))["nginx.conf"]
    assert f"  worker_connections {connections};\n" in text
    assert f"\nworker_rlimit_nofile {files};\n" in text


NR_OPEN: Final = 1_048_576
"""fs.nr_open of Linux, if nobody has changed it."""


@pytest.mark.parametrize("line", [f"worker_connections = {CONNECTIONS_MAX}", f"worker_files = {FILES_MAX}"])
def test_a_worker_never_asks_for_more_files_than_linux_gives(line: str) -> None:
    text = nginx.files(parse(front("weighted", line) + NODES))["nginx.conf"]
    files = int(text.partition("\nworker_rlimit_nofile ")[2].partition(";")[0])
    assert files == NR_OPEN
    with pytest.raises(ClusterFileError, match=r"front\.worker_\w+: write \d+ at most"):
        parse(front("weighted", f"{line[:-1]}{int(line[-1]) + 1}") + NODES)


def test_fewer_files_than_connections_are_refused() -> None:
    with pytest.raises(ClusterFileError, match=r"front\.worker_files is 355, for 100 .* 356 at least, or leave it out"):
        parse(front("weighted", "worker_connections = 100\nworker_files = 355") + NODES)


def test_one_port_for_two_things_is_refused() -> None:
    with pytest.raises(ClusterFileError, match="give TLS its own"):
        parse(f'[front]\nport = 443\ntls = {{ certificate = "/c", key = "/k" }}\n{NODES}')


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"weights": (0, 1)}, "weights is 0,1; give each node one from 1 to 1000, like 1,2,3,4"),
        ({"weights": (1, 1_001)}, "weights is 1,1001; give each node one from 1 to 1000, like 1,2,3,4"),
        ({"weights": ()}, "weights is empty; give each node one from 1 to 1000"),
        ({"weights": (1,) * 65}, "weights is for 65 nodes; there may be 64"),
        ({"requests": 0}, "requests is 0; it must be between 1 and 1000000"),
        ({"concurrency": 1_001}, "concurrency is 1001; it must be between 1 and 1000"),
        ({"port": 65_536}, "port is 65536; it must be between 0 and 65535"),
    ],
)
def test_a_demonstration_that_makes_no_sense_is_refused_before_anything_starts(
    values: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=said):
        DemoPlan(folder=tmp_path, front=tmp_path, **values)


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("1,1001", "weights is 1,1001; give each node one from 1 to 1000, like 1,2,3,4"),
        ("-1", "weights is -1; give each node one from 1 to 1000"),
        ("", "weights is empty; give each node one from 1 to 1000"),
        ("1,2,", "weights is '1,2,'; write whole numbers with commas between, like 1,2,3,4"),
    ],
)
def test_weights_that_make_no_sense_are_told_once_and_with_what_to_write(weights: str, said: str) -> None:
    result = CliRunner().invoke(app, ["edge", "demo", f"--weights={weights}"])
    assert result.exit_code == 2
    assert said in result.output
    assert result.output.count("weights is") == 1


def test_no_more_are_at_once_than_there_are(tmp_path: Path) -> None:
    assert DemoPlan(folder=tmp_path, front=tmp_path, requests=7, concurrency=100).at_once == 7
    assert DemoPlan(folder=tmp_path, front=tmp_path, requests=100, concurrency=7).at_once == 7


def test_a_demonstration_replaces_its_own_logs(tmp_path: Path) -> None:
    take(tmp_path)
    write(tmp_path, nginx.files(parse(NODES)))
    for name in ("access.log", "error.log", "more.log"):
        (tmp_path / name).touch()
    before = {path.name for path in tmp_path.iterdir()}
    take(tmp_path)
    assert before - {path.name for path in tmp_path.iterdir()} == {"access.log", "error.log"}


@pytest.mark.parametrize("name", ["nginx.conf", "access.log", "error.log"])
def test_a_demonstration_touches_nobody_elses_files(name: str, tmp_path: Path) -> None:
    """Not those of a front door either whose nginx.conf is rendered from a cluster file."""
    (tmp_path / name).write_text(nginx.files(parse(NODES))["nginx.conf"])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(PlanError, match=rf"{name}, and no demonstration has made it.*Name an empty folder, or make"):
        take(tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
