"""FRR's files: vtysh takes whatever is rendered, and the address is announced only while the health script says so."""

from __future__ import annotations

import stat
import string
from pathlib import Path

import pytest

from tests.unit.edge_files import BALANCERS, NETWORKS, NODE, PROXIES, ROUTERS, front, not_well
from ticketrush.edge import cluster_file, ospf, render
from ticketrush.edge.cluster_file import PATHS_MAX, ClusterFile, parse
from ticketrush.edge.errors import ClusterFileError

ALL = front() + NODE + PROXIES + BALANCERS + ROUTERS + NETWORKS
PRINTABLE = "".join(char for char in string.printable if "!" <= char <= "~")


def rendered(text: str) -> dict[str, str]:
    return ospf.files(parse(text))


def with_ospf(**values: object) -> ClusterFile:
    """The whole cluster, with other values in [ospf] that its own checks accept."""
    made = parse(ALL)
    table = cluster_file.Ospf.model_validate(made.ospf.model_dump() | values)
    return made.model_copy(update={"ospf": table})


def test_frr_takes_all_that_is_rendered(tmp_path: Path) -> None:
    areas, times = ("0.0.0.0", "255.255.255.255"), ((1, 2), (1, 3), (10, 40))
    for max_paths in range(1, PATHS_MAX + 1):
        area, (hello_s, dead_s) = areas[max_paths % len(areas)], times[max_paths % len(times)]
        made = with_ospf(area=area, hello_s=hello_s, dead_s=dead_s, max_paths=max_paths)
        files = {name: text for name, text in ospf.files(made).items() if name.endswith("frr.conf")}
        assert not_well(tmp_path / str(max_paths), files) == []
        assert f" maximum-paths {max_paths}\n" in files["router-1/frr.conf"]


def test_the_kernel_and_the_shell_take_all_that_is_rendered(tmp_path: Path) -> None:
    files = rendered(ALL)
    assert set(files) == {
        f"{host}/{name}"
        for host, names in (
            ("router-1", ("frr.conf", "sysctl.conf")),
            *((f"lvs-{n}", ("frr.conf", "sysctl.conf", "health.sh")) for n in (1, 2)),
        )
        for name in names
    }
    assert not_well(tmp_path, files) == []


@pytest.mark.parametrize("key", [PRINTABLE[at : at + 16] for at in range(0, len(PRINTABLE), 16)] + list("!#?|\"'\\"))
def test_a_key_of_any_characters_stays_in_its_place(key: str, tmp_path: Path) -> None:
    files = ospf.files(with_ospf(key=key))
    text = files["lvs-1/frr.conf"]
    assert f" ip ospf authentication message-digest\n ip ospf message-digest-key 1 md5 {key}\n" in text
    assert not_well(tmp_path, {"lvs-1/frr.conf": text}) == []


@pytest.mark.parametrize("key", ["two words", "a\nlog file /tmp/x", "ä", "x" * 17])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="key"):
        with_ospf(key=key)


def test_frr_never_puts_the_address_there_itself() -> None:
    text = rendered(ALL)["lvs-1/frr.conf"]
    assert " ip address " not in text
    assert " network 192.0.2.10/32 area 0.0.0.0\n" in text
    assert "192.0.2.10" not in rendered(ALL)["router-1/frr.conf"]


def test_routers_alone_speak_for_a_network_on_each_of_their_interfaces() -> None:
    files = rendered(ALL)
    router = files["router-1/frr.conf"]
    assert [line for line in router.splitlines() if line.startswith("interface")] == [
        "interface ens3",
        "interface ens4",
        "interface br-lan.7",
    ]
    assert router.count(" ip ospf priority 100\n") == 3
    assert files["lvs-1/frr.conf"].count(" ip ospf priority 0\n") == 1


def test_a_balancer_asks_its_own_proxy_and_others_or_all_that_it_hands_on_to() -> None:
    everybody = 'targets="http://10.0.1.30:80 http://10.0.1.40:80 http://10.0.1.50:80"\n'
    assert everybody in rendered(ALL)["lvs-1/health.sh"]
    shared = rendered(ALL.replace("10.0.1.30", "10.0.1.11").replace("10.0.1.40", "10.0.1.12"))
    for name, own, other in (("lvs-1", "10.0.1.11", "10.0.1.12"), ("lvs-2", "10.0.1.12", "10.0.1.11")):
        assert f'own="http://{own}:80"\nothers="http://{other}:80"' in shared[f"{name}/health.sh"]
    without = rendered(ALL.replace(PROXIES, ""))
    assert 'targets="http://10.0.3.11:80"\n' in without["lvs-1/health.sh"]
    sorry = rendered(ALL + '[lvs]\nsorry_server = "10.0.1.99"\n')["lvs-1/health.sh"]
    assert everybody in sorry
    assert 'ask "http://10.0.1.99:80/" &' in sorry


def test_without_networks_there_is_no_ospf() -> None:
    assert rendered(front() + NODE + PROXIES + BALANCERS) == {}
    with pytest.raises(ClusterFileError, match=r"routers need ospf\.networks: the networks between them and the bal"):
        parse(front() + NODE + PROXIES + BALANCERS + ROUTERS)


def test_a_router_and_a_balancer_of_one_name_would_share_a_file_and_are_refused() -> None:
    with pytest.raises(ClusterFileError, match="balancers and routers has the name 'lvs-1' twice"):
        parse(ALL.replace("router-1", "lvs-1"))


def test_the_password_can_be_read_by_the_owner_and_the_group_alone(tmp_path: Path) -> None:
    for path in render.write(tmp_path, rendered(ALL)):
        assert stat.S_IMODE(path.stat().st_mode) == {"frr.conf": 0o640, "health.sh": 0o755}.get(path.name, 0o644)
