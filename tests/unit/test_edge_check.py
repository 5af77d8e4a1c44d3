"""`ticketrush edge check`: the programs' own words, what is not installed, and the exit codes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.unit.edge_files import BALANCERS, NETWORKS, NODE, PROXIES, ROUTERS, TLS, front, not_well, verdicts
from ticketrush.cli import app
from ticketrush.edge import check, programs
from ticketrush.edge.check import Finding
from ticketrush.edge.cluster_file import parse

IN_TURN = front() + NODE + PROXIES + BALANCERS
ALL = IN_TURN + ROUTERS + NETWORKS


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A working directory and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for variable in list(os.environ):
        if variable.startswith("TICKETRUSH_"):
            monkeypatch.delenv(variable)


def run(text: str, *arguments: str) -> Result:
    Path("cluster.toml").write_text(text)
    return CliRunner().invoke(app, ["edge", "check", *arguments])


def test_the_programs_take_all_layers_together(tmp_path: Path) -> None:
    for number, text in enumerate((ALL, IN_TURN)):
        assert not_well(tmp_path / str(number), check.all_files(parse(text))) == []


@pytest.mark.parametrize(
    ("name", "right", "wrong", "words"),
    [
        ("nginx.conf", "server_tokens off", "server_tokenz off", 'unknown directive "server_tokenz"'),
        ("nginx-slow.sh", "say() {", "say() (", "nginx-slow.sh: "),
        ("lvs-1/keepalived.conf", "lb_algo wrr", "lb_algo best", "Invalid lvs_scheduler 'best'"),
        ("lvs-1/keepalived.conf", "nopreempt", "nopreemt", "Unknown keyword 'nopreemt'"),
        ("lvs-1/nftables.conf", "goto to_goto", "goto to_nowhere", "No such file or directory"),
        ("lvs-1/nftables.conf", "hook prerouting", "hook prouting", "unknown chain hook"),
        ("lvs-1/nftables-health.sh", "end() {", "end() (", "lvs-1/nftables-health.sh: "),
        ("lvs-1/sysctl.conf", "net.ipv4.ip_forward", "net.ipv4.ip_foward", "cannot stat /proc/sys/net/ipv4/ip_foward"),
        ("router-1/frr.conf", "maximum-paths 6", "maximum-paths 6000", "Unknown command"),
        ("lvs-2/frr.conf", "hello-interval", "helo-interval", "ip ospf helo-interval 1"),
    ],
)
def test_an_error_is_reported_in_the_words_of_the_program(
    name: str, right: str, wrong: str, words: str, tmp_path: Path
) -> None:
    files = check.all_files(parse(ALL if "frr" in name else IN_TURN))
    assert right in files[name]
    found = {finding.file: finding for finding in verdicts(tmp_path, files | {name: files[name].replace(right, wrong)})}
    assert found[name].verdict == "wrong"
    assert words in found[name].said
    assert str(tmp_path) not in found[name].said, "the name of the file is the one that was rendered"
    assert [finding.file for finding in found.values() if finding.verdict == "wrong"] == [name]


def test_what_is_not_installed_is_named_with_its_package(tmp_path: Path) -> None:
    files = check.all_files(parse(ALL))
    names = ["nginx.conf", "lvs-1/keepalived.conf", "lvs-1/nftables.conf", "lvs-1/sysctl.conf", "lvs-1/frr.conf"]
    few = tmp_path / "bin"
    few.mkdir()
    (few / "sh").symlink_to(shutil.which("sh") or "")
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(files[name])
    found = check.judge(tmp_path, [*names, "lvs-1/health.sh"], path=str(few))
    packages = ["nginx", "keepalived", "nftables", "procps", "frr"]
    assert [finding.said for finding in found[:-1]] == [f"install the package {package}" for package in packages]
    assert {finding.verdict for finding in found[:-1]} == {"not installed"}
    assert found[-1] == Finding("lvs-1/health.sh", "sh", "well")


def test_what_would_change_this_machine_is_not_tried_without_a_network_of_its_own(tmp_path: Path) -> None:
    few = tmp_path / "bin"
    few.mkdir()
    for program in ("sh", "readlink", "sysctl"):  # and no unshare
        (few / program).symlink_to(shutil.which(program, path=f"{os.defpath}:{programs.PLACES}") or "")
    (tmp_path / "lvs").mkdir()
    (tmp_path / "lvs" / "sysctl.conf").write_text("net.ipv4.no_such_setting = 1\n")
    (found,) = check.judge(tmp_path, ["lvs/sysctl.conf"], path=str(few))
    assert found.verdict == "not judged"
    assert "use sudo" in found.said


def test_a_certificate_that_is_elsewhere_is_stood_in_for_and_that_is_said(tmp_path: Path) -> None:
    files = check.all_files(parse(front(TLS) + NODE))
    found, script = verdicts(tmp_path, files)
    assert (found.file, found.verdict) == ("nginx.conf", "well")
    assert script == Finding("nginx-slow.sh", "sh", "well")
    assert found.said == (
        "judged with a certificate made for the purpose: "
        "/etc/ticketrush/tls.crt, /etc/ticketrush/tls.key cannot be read here"
    )
    assert (tmp_path / "nginx.conf").read_text() == files["nginx.conf"], "the file itself is as it was"
    assert {path.name for path in tmp_path.iterdir()} == set(files), "and nginx left nothing beside it"


def test_a_certificate_that_is_there_is_judged_itself(tmp_path: Path) -> None:
    rubbish = tmp_path / "tls.pem"
    rubbish.write_text("rubbish")
    result = run(front(f'tls = {{ certificate = "{rubbish}", key = "{rubbish}" }}\n') + NODE)
    assert result.exit_code == 1
    assert "wrong  nginx.conf  (nginx)\n" in result.output
    assert f'cannot load certificate "{rubbish}"' in result.output.replace("\n", "")


def test_all_well_is_exit_code_0_with_a_line_for_each_file() -> None:
    result = run(ALL, "--out", "kept")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    kept = sorted(str(path.relative_to("kept")) for path in Path("kept").rglob("*") if path.is_file())
    assert sorted(line.split()[1] for line in lines) == kept
    assert all(line.startswith("well  ") for line in lines)


def test_json_says_the_same_to_machines() -> None:
    result = run(front(TLS) + NODE, "--json")
    assert result.exit_code == 0
    said = json.loads(result.output)
    assert said["ok"] is True
    assert [(each["file"], each["program"], each["verdict"]) for each in said["findings"]] == [
        ("nginx.conf", "nginx", "well"),
        ("nginx-slow.sh", "sh", "well"),
    ]


def test_not_installed_alone_is_exit_code_2_for_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "PLACES", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    result = run(NODE)
    assert result.exit_code == 2
    assert result.output == (
        "not installed  nginx.conf  (nginx): install the package nginx\n"
        "not installed  nginx-slow.sh  (sh): install the package dash\n"
    )


def test_a_cluster_file_that_makes_no_sense_is_exit_code_2() -> None:
    result = run(NODE + ROUTERS)
    assert result.exit_code == 2
    assert "routers need ospf.networks" in result.output
    assert CliRunner().invoke(app, ["edge", "check", "--cluster", "nowhere.toml"]).exit_code == 2


def test_nothing_of_this_machine_is_changed_and_nothing_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    before = _machine()
    assert run(ALL).exit_code == 0
    assert _machine() == before
    assert list(temporary.iterdir()) == []


def _machine() -> list[str]:
    """What files of balancers would change: settings of the kernel, rules, addresses."""
    settings = ("ip_forward", "conf/all/rp_filter", "conf/all/arp_ignore", "ip_nonlocal_bind")
    values = [Path("/proc/sys/net/ipv4", name).read_text() for name in settings]
    addresses = subprocess.run(["ip", "-brief", "address"], capture_output=True, text=True, check=True).stdout
    return [*values, addresses]
