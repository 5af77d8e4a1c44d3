"""What makes no sense in a cluster file is refused, with the way out, and without telling secrets."""

from __future__ import annotations

import math
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.unit.edge_files import BALANCERS, NETWORKS, NODE, PROXIES, ROUTERS, front
from ticketrush.edge.cluster_file import SHAPES, ClusterFile, parse
from ticketrush.edge.errors import ClusterFileError
from ticketrush.settings import Settings

ROOT: Final = Path(__file__).parents[2]
ALL = front() + NODE + PROXIES + BALANCERS + ROUTERS + NETWORKS


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("10.0.1.40", "10.0.1.30", "proxies has the address 10.0.1.30 twice; give each host its own"),
        ("10.0.1.12", "10.0.1.11", "balancers and routers has the address 10.0.1.11 twice; give each host its own"),
        (
            'address = "10.0.1.1"',
            'address = "10.0.1.11"',
            "balancers and routers has the address 10.0.1.11 twice; give each host its own",
        ),
        *(
            (
                f'address = "{address}"',
                'address = "192.0.2.10"',
                f"front.virtual_address is 192.0.2.10, as {name} is; it must be the address of no host",
            )
            for name, address in (
                ("node-1", "10.0.3.11"),
                ("2.nginx", "10.0.1.40"),
                ("lvs-2", "10.0.1.12"),
                ("router-1", "10.0.1.1"),
            )
        ),
        (
            '["10.0.1.0/24", "10.0.2.0/24"]',
            '["10.0.1.0/29", "10.0.2.0/24"]',
            "ospf.networks has no network with lvs-1, 10.0.1.11, so no router would hear of it",
        ),
    ],
)
def test_addresses_that_cannot_be_are_refused(right: str, wrong: str, said: str) -> None:
    parse(ALL)
    assert ALL.count(right) == 1
    with pytest.raises(ClusterFileError) as refused:
        parse(ALL.replace(right, wrong))
    assert said in str(refused.value)


def test_a_proxy_may_be_on_the_host_of_a_balancer() -> None:
    parse(ALL.replace("10.0.1.40", "10.0.1.12"))


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ('key = "tell nobody"', "ospf.key"),
        ('key = "tell-nobody-of-this"', "ospf.key"),
        ('kye = "tell nobody"', "ospf.kye"),
    ],
)
def test_a_password_that_is_wrong_is_not_told(line: str, place: str) -> None:
    with pytest.raises(ClusterFileError) as refused:
        parse(f"{ALL}{line}\n")
    assert f"the cluster file: {place}: " in str(refused.value)
    assert "nobody" not in str(refused.value)


def test_another_value_that_is_wrong_is_told() -> None:
    with pytest.raises(ClusterFileError, match=r"ospf\.hello_s: .* \(it is 11\)"):
        parse(f"{ALL}hello_s = 11\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[nodes]]\nname = "n"\naddress = "10.0.0.1"\nwieght = 1', "nodes[1].wieght: is not known here; did you mean"),
        ('[[proxy]]\nname = "p"\naddress = "10.0.0.2"', "proxy: is not known here; did you mean proxies?"),
        ('[routers]\nname = "r"', "routers: write each of them as a table of its own: [[routers]]"),
        ('[front]\nnames = "x"', 'front.names: write a list, like ["…"]'),
        ("[front]\nrate = 50", "front.rate: write { per_second = 50, burst = 100 }, or false for no limit (it is 50)"),
        ("[front]\ntls = true", 'front.tls: write { certificate = "/etc/ticketrush/tls.crt", key = "'),
        ('[front]\nport = "8000"', "front.port: write a whole number, without quotes (it is '8000')"),
        ('[front.rate]\nburst = "2"', "front.rate.burst: write a whole number, without quotes (it is '2')"),
        ("[front]\nworkers = 2.0", "front.workers: write a whole number (it is 2.0)"),
        ("[front]\nworkers = true", "front.workers: write a whole number (it is True)"),
        ('[front]\nkeep_host = "false"', "front.keep_host: write true or false, without quotes (it is 'false')"),
        ("[front]\nkeep_host = 0", "front.keep_host: write true or false (it is 0)"),
    ],
)
def test_a_mistake_is_told_with_what_to_write(text: str, said: str) -> None:
    whole = text if "[[nodes]]" in text else text + '\n[[nodes]]\nname = "n"\naddress = "10.0.0.1"'
    with pytest.raises(ClusterFileError) as caught:
        parse(whole)
    assert said in str(caught.value)


# --- every setting, in words ---------------------------------------------------------------------

SCHEMA: Final = ClusterFile.model_json_schema()
MINIMAL: Final = {
    "nodes": 'name = "n"\naddress = "10.0.0.1"\n',
    "proxies": 'name = "p"\naddress = "10.0.0.2"\n',
    "balancers": 'name = "b"\naddress = "10.0.0.3"\n',
    "routers": 'name = "r"\naddress = "10.0.0.4"\n',
    "front.tls": 'certificate = "/c"\nkey = "/k"\n',
}
"""What such a table must have."""


def fields(place: str, table: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """The table and the name of each setting, as in a TOML file."""
    for name, field in table["properties"].items():
        choices = (field, field.get("items", {}), *field.get("anyOf", ()))
        below = next((choice["$ref"].rpartition("/")[2] for choice in choices if "$ref" in choice), None)
        if place:
            yield place, name
        if below is not None:
            yield from fields(f"{place}.{name}".lstrip("."), SCHEMA["$defs"][below])


FIELDS: Final = list(fields("", SCHEMA))
WRONG: Final = (
    '"no such thing!\\n"', '""', "-1", "99999999999", "10000000000000000000000000", "1.5", "nan", "inf", "true",
    "[]", '["%"]', "[-1]", "{}", "{ a = 1 }", "2026-01-01", f'"{"a." * 200}a"',
)  # fmt: skip


def refusal(place: str, name: str, value: str) -> str:
    """What is said of a value; "" if it is accepted."""
    table = f"[[{place}]]" if place in {"nodes", "proxies", "balancers", "routers"} else f"[{place}]"
    others = re.sub(rf"^{name} = .*\n", "", MINIMAL.get(place, ""), flags=re.MULTILINE)
    more = "" if place == "nodes" else f"[[nodes]]\n{MINIMAL['nodes']}"
    try:
        parse(f"{table}\n{others}{name} = {value}\n{more}")
    except ClusterFileError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("place", "name"), FIELDS, ids=map(".".join, FIELDS))
def test_whatever_is_wrong_is_told_with_what_to_write(place: str, name: str) -> None:
    said = [refusal(place, name, value) for value in WRONG]
    assert any(said)
    for text in filter(None, said):
        assert not re.search(r"\b(should|Input|Field|pattern|validation|valid)\b|\^", text), "a library's own words"
        assert re.search(r"\b(write|is not known here|need|needs|give|must be)\b", text), text


def test_nginx_waits_longer_than_a_node_lets_anybody_wait() -> None:
    longest_s = math.floor(2 * Settings.model_fields["patience_s"].default)
    assert parse(f"[front]\nanswer_timeout_s = {longest_s + 1}\n{NODE}").front.answer_timeout_s == longest_s + 1
    with pytest.raises(ClusterFileError, match=r"front\.answer_timeout_s: write 5 at least \(it is 4\)"):
        parse(f"[front]\nanswer_timeout_s = {longest_s}\n{NODE}")


def test_the_limit_by_address_can_be_left_to_somebody_else() -> None:
    assert parse(f"[front]\nrate = false\n{NODE}").front.rate is None
    with pytest.raises(
        ClusterFileError, match=r"front\.rate: write { per_second = .*, or false for no limit \(it is True\)"
    ):
        parse(f"[front]\nrate = true\n{NODE}")


@pytest.mark.parametrize("text", ["", "[front]\n", "nodes = []\n"])
def test_without_nodes_it_says_how_nodes_are_written(text: str) -> None:
    with pytest.raises(ClusterFileError) as refused:
        parse(text)
    assert str(refused.value) == "the cluster file: nodes is missing: name one node at least, as [[nodes]]"


@pytest.mark.parametrize("text", ['nodes = "n"\n', '[nodes]\nname = "n"\n'])
def test_nodes_that_are_no_tables_are_told_how_they_are_written(text: str) -> None:
    with pytest.raises(ClusterFileError, match=r"nodes: write each of them as a table of its own: \[\[nodes\]\]"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[node]]\nname = "n"\naddress = "10.0.0.1"', "node: is not known here; did you mean nodes?"),
        ('[[nodes]]\nnmae = "n"\naddress = "10.0.0.1"', "nodes[1].nmae: is not known here; did you mean name?"),
    ],
)
def test_what_was_written_wrong_is_not_missing_too(text: str, said: str) -> None:
    with pytest.raises(ClusterFileError) as refused:
        parse(text)
    assert str(refused.value) == f"the cluster file: {said}"


def test_what_is_missing_elsewhere_is_told_beside_a_name_that_is_wrong() -> None:
    with pytest.raises(ClusterFileError) as refused:
        parse('[[nodes]]\nnmae = "n"\naddress = "10.0.0.1"\n[[nodes]]\naddress = "10.0.0.2"\n[[proxy]]\n')
    assert str(refused.value).splitlines()[1:] == [
        "  nodes[1].nmae: is not known here; did you mean name?",
        "  nodes[2].name: is missing; write it too",
        "  proxy: is not known here; did you mean proxies?",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "policy = weighted", "address = 10.0.3.11", "names = [tickets.example]", "names = [*.example]",
        "trusted_proxies = [10.0.0.0/8]", "tls = { certificate = /etc/tls.crt }", "tls={ port = 10.0.0.1 }",
        "interface = eth0  # the first", "names = [\n  10.0.0.1\n]",
    ],
)  # fmt: skip
def test_a_text_without_quotes_is_told_so(line: str) -> None:
    with pytest.raises(
        ClusterFileError, match=r'is not TOML: .* \(at line \d, column \d+\); text needs quotes, like "…"$'
    ):
        parse(f"[front]\r\n{line}\n{NODE}")


@pytest.mark.parametrize(
    "line",
    [
        "port = 080",
        "port = ",
        "port = ]",
        'names = "a" b',
        "two words = 1",
        "port = 1\nport = 2",
        'name = "x',
        "a = [1",
    ],
)
def test_other_mistakes_have_nothing_to_do_with_quotes(line: str) -> None:
    with pytest.raises(ClusterFileError, match=r"is not TOML: [^;]* \(at [^;]*\)$"):
        parse(f"[front]\n{line}\n{NODE}")


def test_true_in_capitals_is_told_what_to_write() -> None:
    with pytest.raises(ClusterFileError, match=r"is not TOML: .*; write true or false$"):
        parse(f"[front]\nkeep_host = True\n{NODE}")


def test_a_table_without_a_name_is_told_so() -> None:
    with pytest.raises(ClusterFileError, match=r"nodes\[1\]\.name: is missing; write it too"):
        parse('[[nodes]]\naddress = "10.0.0.1"\n')


@pytest.mark.parametrize("shape", SHAPES)
def test_a_text_is_refused_in_the_words_of_its_shape(shape: str) -> None:
    said = [refusal(place, name, value) for place, name in FIELDS for value in ('"% %"', '["% %"]')]
    assert any(f"write {SHAPES[shape]}" in text for text in said)


def test_every_setting_is_in_the_tables_of_the_documentation() -> None:
    page = (ROOT / "docs" / "front-door.md").read_text("utf-8")
    script = runpy.run_path(str(ROOT / "scripts" / "cluster_file_tables.py"))
    assert page == script["with_tables"](page), "docs/front-door.md is stale: run `make docs`"
    told = re.findall(r"^\| `\[+([a-z.]+)\]+` \|.*\n\|-.*\n((?:\| `.*\n)+)", page, re.MULTILINE)
    named = [(place, name) for place, rows in told for name in re.findall(r"^\| `(\w+)`", rows, re.MULTILINE)]
    assert sorted(named) == sorted(FIELDS)
