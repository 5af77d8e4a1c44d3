"""The files in deploy/ can be read, and name only settings, files and users that there are."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.edge_files import BALANCERS, NODE, PROXIES, front
from ticketrush.addresses import REDIS_SCHEMES
from ticketrush.cluster.program import STOP_S
from ticketrush.edge import cluster_file, lvs, nginx, nginx_server
from ticketrush.edge.render import write
from ticketrush.settings import Settings, variable_of

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
SETTINGS = {variable_of(name) for name in Settings.model_fields} | {"TICKETRUSH_TOKEN", "TICKETRUSH_URL"}
"""Those of a server, and those of the commands that ask one."""


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return found


def unit(file: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(file.read_text("utf-8").replace("\\\n", " "))
    return parser


def words_like_settings(text: str) -> set[str]:
    return set(re.findall(r"\bTICKETRUSH_[A-Z_]+\b", text))


@pytest.mark.parametrize("file", [path for path in sorted(DEPLOY.rglob("*")) if path.is_file()], ids=lambda f: f.name)
def test_only_settings_that_exist_are_named(file: Path) -> None:
    assert words_like_settings(file.read_text("utf-8")) <= SETTINGS


def test_a_misspelt_setting_would_be_found() -> None:
    assert not words_like_settings("TICKETRUSH_DURABILTY=fsync") <= SETTINGS


def test_the_nodes_of_compose_differ_in_name_port_and_address_alone() -> None:
    services = compose()["services"]
    nodes = {name: service for name, service in services.items() if name.startswith("node-")}
    assert len(nodes) == 4
    for name, service in nodes.items():
        assert service["environment"]["TICKETRUSH_NODE"] == name
    assert len({service["ports"][0] for service in nodes.values()}) == 4
    shared = [
        {key: value for key, value in service.items() if key not in {"environment", "ports", "networks"}}
        for service in nodes.values()
    ]
    assert all(each == shared[0] for each in shared)


def test_nginx_is_rendered_from_the_cluster_file_which_has_the_addresses_of_compose(tmp_path: Path) -> None:
    described = cluster_file.read(DEPLOY / "cluster.toml")
    for name, text in nginx.files(described).items():
        assert text == (DEPLOY / name).read_text("utf-8"), "render it again"
    services = compose()["services"]
    addresses = {
        name: service["networks"]["default"]["ipv4_address"]
        for name, service in services.items()
        if name.startswith("node-")
    }
    assert {node.name: str(node.address) for node in described.nodes} == addresses
    assert {node.port for node in described.nodes} == {int(services["node-1"]["environment"]["TICKETRUSH_PORT"])}
    (subnet,) = compose()["networks"]["default"]["ipam"]["config"]
    assert all(ip_address(address) in ip_network(subnet["subnet"]) for address in addresses.values())
    write(tmp_path, nginx.files(described))
    assert nginx_server.judge(tmp_path) == ""


def test_what_compose_mounts_and_builds_from_is_there() -> None:
    made = compose()
    assert (DEPLOY / "Dockerfile").is_file()
    for service in made["services"].values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert (DEPLOY / source).is_file() if source.startswith(".") else source in made["volumes"]
        assert set(service.get("secrets", ())) <= set(made["secrets"])
        assert set(service.get("depends_on", ())) <= set(made["services"])


def test_the_settings_of_compose_and_of_the_examples_make_sense() -> None:
    services = compose()["services"]
    examples = [example(f"{name}.env.example") for name in ("node", "orders")]
    for variables in (services["node-1"]["environment"], services["worker-1"]["environment"], *examples):
        given: dict[str, Any] = {name.removeprefix("TICKETRUSH_").lower(): value for name, value in variables.items()}
        Settings(**given)
    for each in examples:
        assert each["TICKETRUSH_LEDGER"].startswith(REDIS_SCHEMES)
        assert each["TICKETRUSH_ORDERS"].startswith("postgresql://")


def example(name: str) -> dict[str, str]:
    lines = (DEPLOY / "systemd" / name).read_text("utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.mark.parametrize("name", ["node-1", "relay", "worker-1", "worker-2"])
def test_nobody_kills_a_container_before_it_had_time_to_stop(name: str) -> None:
    assert int(compose()["services"][name]["stop_grace_period"].removesuffix("s")) >= STOP_S


@pytest.mark.parametrize("name", ["ticketrush@", "ticketrush-relay", "ticketrush-worker@"])
def test_nobody_kills_a_unit_before_it_had_time_to_stop(name: str) -> None:
    assert int(unit(DEPLOY / "systemd" / f"{name}.service")["Service"]["TimeoutStopSec"]) >= STOP_S


def test_tables_are_made_before_a_worker_begins() -> None:
    services = compose()["services"]
    workers = {name: service for name, service in services.items() if name.startswith("worker-")}
    assert len(workers) == 2
    for name, service in workers.items():
        assert service["command"] == ["work", "--json", "--name", name]
        assert service["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert (services["migrate"]["command"], services["migrate"]["restart"]) == (["migrate"], "no")
    assert services["migrate"]["depends_on"] == {"postgres": {"condition": "service_healthy"}}
    before = unit(DEPLOY / "systemd" / "ticketrush-worker@.service")["Service"]["ExecStartPre"]
    assert before == "/opt/ticketrush/bin/ticketrush migrate"


def test_what_a_container_is_given_is_what_it_needs_and_no_more() -> None:
    secrets = {name: set(service.get("secrets", ())) for name, service in compose()["services"].items()}
    assert secrets["relay"] == {"valkey_orders_password"}
    assert secrets["worker-1"] == {"valkey_orders_password", "postgres_password"}
    assert secrets["node-1"] == {"token_secrets", "valkey_password", "postgres_password"}
    told = (DEPLOY / "entrypoint.sh").read_text("utf-8")
    assert set().union(*secrets.values()) == set(re.findall(r"\$secrets/(\w+)", told))


def test_the_users_of_valkey_are_those_of_the_documentation() -> None:
    page = (DEPLOY.parent / "docs" / "operating.md").read_text("utf-8")
    told = re.findall(r"^user \w+ on >PASSWORD.*$", page, re.MULTILINE)
    text = (DEPLOY / "valkey-start.sh").read_text("utf-8").replace("\\\n", "").replace("%%", "%")
    made = re.findall(r"'(user \w+ on >%s .*?) %s\\n' \S+ +'(.*?)'", text)
    assert [f"{who.replace('%s', 'PASSWORD')} {what}" for who, what in made] == told
    assert len(told) == 2


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_units_have_their_sections_and_harden_the_process(file: Path) -> None:
    parsed = unit(file)
    assert set(parsed.sections()) == {"Unit", "Service", "Install"}
    assert parsed["Service"]["NoNewPrivileges"] == "yes"
    if parsed["Service"]["Type"] == "oneshot":
        assert parsed["Service"]["RemainAfterExit"] == "yes", "else it is stopped as soon as it has started"
    else:
        assert parsed["Service"]["Restart"] == "always"


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.name)
def test_each_unit_has_a_row_that_says_where_it_goes(file: Path) -> None:
    page = (DEPLOY / "README.md").read_text("utf-8")
    (row,) = re.findall(rf"^\| `{re.escape(file.name)}` \|.*$", page, re.MULTILINE)
    assert "`/etc/systemd/system/`" in row


def test_nginx_does_not_run_without_what_ends_slow_clients() -> None:
    assert "ticketrush-slow.service" in unit(DEPLOY / "systemd" / "ticketrush-nginx.service")["Unit"]["Wants"].split()


def test_the_unit_of_a_real_server_says_to_the_script_what_it_knows() -> None:
    service = unit(DEPLOY / "systemd" / "ticketrush-real-server.service")["Service"]
    cluster = cluster_file.parse(front() + NODE + PROXIES + BALANCERS)
    script = lvs.files(cluster)["nginx-1/real-server.sh"]
    for line in (service["ExecStart"], service["ExecStop"]):
        program, word = line.split()
        assert Path(program).name == "real-server.sh"
        assert f"\n  {word})\n" in script


@pytest.mark.parametrize("where", ["valkey-start.sh", "systemd/ticketrush-valkey.service"])
def test_valkey_is_started_as_durability_fsync_wants_it(where: str) -> None:
    text = (DEPLOY / where).read_text("utf-8")
    for flag in ("--appendonly yes", "--appendfsync always", "--maxmemory-policy noeviction"):
        assert flag in text


def test_the_scripts_are_shell() -> None:
    shell = shutil.which("sh")
    assert shell is not None
    for file in DEPLOY.glob("*.sh"):
        subprocess.run([shell, "-n", str(file)], check=True)
