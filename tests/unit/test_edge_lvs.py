"""The balancers' files: keepalived, nft and the shell take whatever is rendered, and it says what the file says."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from tests.unit.edge_files import BALANCERS, NETWORKS, NODE, PROXIES, TLS, front, not_well
from ticketrush.edge import lvs
from ticketrush.edge.cluster_file import parse
from ticketrush.edge.errors import ClusterFileError


def rendered(text: str) -> dict[str, str]:
    return lvs.files(parse(text))


def lvs_table(*lines: str) -> str:
    return "\n".join(["[lvs]", *lines, ""])


SORRY = 'sorry_server = "10.0.1.99"'


@pytest.mark.parametrize("forwarding", ["DR", "NAT", "TUN"])
def test_the_programs_take_every_combination(forwarding: str, tmp_path: Path) -> None:
    seen = set()
    for number, (tls, sorry, networks, proxies) in enumerate(
        itertools.product(("", TLS), ("", SORRY), ("", NETWORKS), (PROXIES, ""))
    ):
        text = front(tls) + NODE + proxies + BALANCERS + networks + lvs_table(f'forwarding = "{forwarding}"', sorry)
        files = rendered(text)
        assert not_well(tmp_path / str(number), files) == [], text
        seen.add(files["lvs-1/keepalived.conf"])
    assert len(seen) == 16 - 4, "each says something else, but for TLS before nodes, who speak none"


@pytest.mark.parametrize("scheduler", ["wrr", "rr", "wlc", "sh", "mh"])
def test_keepalived_takes_every_scheduler(scheduler: str, tmp_path: Path) -> None:
    files = rendered(front() + NODE + PROXIES + BALANCERS + lvs_table(f'scheduler = "{scheduler}"'))
    assert not_well(tmp_path, files) == []
    assert f"lb_algo {scheduler}\n" in files["lvs-2/keepalived.conf"]
    begins = "startup_script \"/bin/sh -c 'modprobe -q ip_vs; sysctl -q -w net.ipv4.vs.sloppy_tcp=1'\"\n"
    assert (begins in files["lvs-1/keepalived.conf"]) == (scheduler in {"sh", "mh"})


def test_behind_nat_no_balancer_goes_on_with_connections_of_another() -> None:
    table = lvs_table('scheduler = "sh"', 'forwarding = "NAT"')
    assert "sloppy_tcp" not in rendered(front() + NODE + PROXIES + BALANCERS + table)["lvs-1/keepalived.conf"]


def test_the_programs_take_as_many_as_a_file_may_have(tmp_path: Path) -> None:
    many = "".join(f'[[proxies]]\nname = "p{n}"\naddress = "210.210.210.{n}"\nweight = {n + 1}\n' for n in range(256))
    files = rendered(front("port = 65000\n") + NODE + many + BALANCERS + lvs_table('sorry_server = "210.210.212.255"'))
    some = {name: text for name, text in files.items() if name.startswith(("lvs-1/", "p255/"))}
    assert len(some) == 5
    assert not_well(tmp_path, some) == []
    assert max(len(line) for line in files["lvs-1/keepalived.conf"].splitlines()) < 1_023


def test_the_first_balancer_of_the_file_is_preferred_and_so_on() -> None:
    crowd = "".join(f'[[balancers]]\nname = "b{n}"\naddress = "210.210.211.{n}"\n' for n in range(64))
    files = rendered(front() + NODE + crowd)
    found = [re.search(r"^ +priority (\d+)$", files[f"b{n}/keepalived.conf"], re.MULTILINE) for n in range(64)]
    priorities = [int(match[1]) for match in found if match]
    assert priorities == sorted(priorities, reverse=True)
    assert len(set(priorities)) == 64


def test_without_ospf_the_address_is_had_in_turn_and_never_taken_back() -> None:
    first, second = (rendered(front() + NODE + PROXIES + BALANCERS)[f"lvs-{n}/keepalived.conf"] for n in (1, 2))
    for text, own, other in ((first, "10.0.1.11", "10.0.1.12"), (second, "10.0.1.12", "10.0.1.11")):
        assert "state BACKUP\n  nopreempt\n" in text
        assert f"unicast_src_ip {own}\n  unicast_peer {{\n    {other}\n  }}" in text
        assert "state MASTER" not in text
    assert "192.0.2.10/32 dev ens1" in first
    assert "192.0.2.10/32 dev ens2" in second


def test_with_ospf_all_have_the_address_and_none_speaks_vrrp() -> None:
    text = rendered(front() + NODE + PROXIES + BALANCERS + NETWORKS)["lvs-1/keepalived.conf"]
    assert "vrrp_instance" not in text
    assert "No VRRP: OSPF announces the virtual address" in text
    assert "virtual_server 192.0.2.10 80 {" in text


def test_shares_are_as_small_as_the_ratios_of_the_weights_allow() -> None:
    text = rendered(front(TLS) + NODE + PROXIES + BALANCERS)["lvs-1/nftables.conf"]
    shares = "numgen inc mod 6 vmap { 0 : goto to_nginx-1, 1-2 : goto to_2.nginx, 3-5 : goto to_goto }"
    assert f"tcp dport 80 {shares}\n" in text
    assert f"tcp dport 443 {shares}\n" in text
    assert "tcp dport 443 counter dnat to 10.0.1.40:443\n" in text


def test_how_soon_an_unanswered_syn_is_forgotten_is_in_the_name_that_is_not_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """nft flushes rules when the file is loaded again; what has a name stays, and a new value of it would be lost."""
    named = {}
    for seconds in (1, 3):
        monkeypatch.setattr(lvs, "HASTY_S", seconds)
        text = rendered(front() + NODE + PROXIES + BALANCERS)["lvs-1/nftables.conf"]
        (name, value), *more = re.findall(r"ct timeout (\w+) \{\s+protocol tcp\s+policy = \{ syn_sent : (\d+) \}", text)
        assert (int(value), more) == (seconds, [])
        assert re.findall(r'ct timeout set "(\w+)"', text) == [name]
        named[name] = seconds
    assert sorted(named.values()) == [1, 3]


def test_nodes_without_proxies_are_reached_at_their_own_port() -> None:
    node = NODE.replace("port = 80", "port = 8000")
    files = rendered(front(TLS) + node + BALANCERS + lvs_table('forwarding = "NAT"'))
    assert "tcp dport 80 counter dnat to 10.0.3.11:8000\n" in files["lvs-1/nftables.conf"]
    assert "443" not in files["lvs-1/nftables.conf"]
    assert "real_server 10.0.3.11 8000 {" in files["lvs-1/keepalived.conf"]
    assert not any(name.endswith("real-server.sh") for name in files)


def test_keepalived_asks_proxies_whether_they_live_and_nodes_whether_they_are_ready() -> None:
    before_proxies = rendered(front() + NODE + PROXIES + BALANCERS)["lvs-1/keepalived.conf"]
    before_nodes = rendered(front() + NODE + BALANCERS)["lvs-1/keepalived.conf"]
    assert set(re.findall(r"path (\S+)", before_proxies)) == {"/healthz"}
    assert set(re.findall(r"path (\S+)", before_nodes)) == {"/readyz"}
    for text in (before_proxies, before_nodes):
        (script,) = re.findall(r'script "(.*)"', text)
        assert "/healthz" in script, "whoever answers is enough to keep the address"
        assert "/readyz" not in script


def test_what_cannot_work_is_refused_with_the_way_out() -> None:
    node = NODE.replace("port = 80", "port = 8000")
    with pytest.raises(ClusterFileError, match="node-1 listens at 8000 and buyers come to 80: give it port 80, set "):
        rendered(front() + node + BALANCERS)
    with pytest.raises(
        ClusterFileError, match=r"lvs\.sorry_server is 10\.0\.1\.40, as 2\.nginx is, who gets connections"
    ):
        rendered(front() + NODE + PROXIES + BALANCERS + lvs_table('sorry_server = "10.0.1.40"'))
    elsewhere = BALANCERS + 'site = "b"\n'
    with pytest.raises(ClusterFileError, match=r"in sites a and b, and VRRP works within one network: name ospf\.netw"):
        rendered(front() + NODE + PROXIES + elsewhere)
    assert rendered(front() + NODE + PROXIES + elsewhere + NETWORKS)
    assert rendered(front() + NODE + PROXIES) == {}


def test_a_proxy_on_the_host_of_a_balancer_gets_no_second_owner_of_the_address() -> None:
    shared = PROXIES.replace("10.0.1.30", "10.0.1.11")
    files = rendered(front() + NODE + shared + BALANCERS + NETWORKS)
    assert {name for name in files if "real-server" in name} == {"2.nginx/real-server.sh", "goto/real-server.sh"}
    assert "# nginx-1 is a balancer too: with DR" in files["lvs-1/keepalived.conf"]
