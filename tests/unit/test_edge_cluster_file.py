"""What makes no sense in a cluster file is refused, with the way out, and without telling secrets."""

from __future__ import annotations

import pytest

from tests.unit.edge_files import BALANCERS, NETWORKS, NODE, PROXIES, ROUTERS, front
from ticketrush.edge.cluster_file import parse
from ticketrush.edge.errors import ClusterFileError

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
        ("[front]\nrate = 50", "front.rate: write a table, like { name = value }"),
    ],
)
def test_a_mistake_is_told_with_what_to_write(text: str, said: str) -> None:
    whole = text if "[[nodes]]" in text else text + '\n[[nodes]]\nname = "n"\naddress = "10.0.0.1"'
    with pytest.raises(ClusterFileError) as caught:
        parse(whole)
    assert said in str(caught.value)
