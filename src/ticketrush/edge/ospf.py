"""OSPF: the virtual address is announced by every balancer that is well.

The address is on `lo` of each balancer for as long as its health script finds it well, and FRR announces what is
there. Routers share connections out over the balancers at equal cost.
"""

from __future__ import annotations

from typing import Final

from ticketrush.edge.cluster_file import BalancerEntry, ClusterFile, NodeEntry, RouterEntry
from ticketrush.edge.render import render

ROUTER_PRIORITY: Final = 100
BALANCER_PRIORITY: Final = 0
"""A balancer never speaks for its network (designated router): losing one changes nothing but its own route."""

DRAIN_S: Final = 2
"""For how long a balancer that is stopped answers what routers still send it; they leave it within a second."""

CONNECT_SHARE: Final = 0.5
"""Of the time between two questions, what a connection may take: a host that is gone is known sooner."""

ANSWER_SHARE: Final = 0.75
"""Of the same time, what the answer may take with its connection: questions keep their rhythm, whoever is silent."""


def files(cluster: ClusterFile) -> dict[str, str]:
    """The files of balancers and routers, by name; none if the file names no network of OSPF.

    For each, NAME/frr.conf and NAME/sysctl.conf; for a balancer its health script too, NAME/health.sh.
    """
    if not cluster.ospf.networks:
        return {}
    made = {}
    for router in cluster.routers:
        interfaces = (router.interface, *router.more_interfaces)
        made[f"{router.name}/frr.conf"] = _frr(cluster, router, interfaces)
        made[f"{router.name}/sysctl.conf"] = sysctl(router)
    for balancer in cluster.balancers:
        made[f"{balancer.name}/frr.conf"] = _frr(cluster, balancer, (balancer.interface,))
        made[f"{balancer.name}/sysctl.conf"] = sysctl(balancer)
        made[f"{balancer.name}/health.sh"] = _health(cluster, balancer)
    return made


def sysctl(host: BalancerEntry | RouterEntry) -> str:
    """What the kernel of a balancer or router is told."""
    return render("sysctl.conf.j2", name=host.name, role=_role(host))


def own_proxies(cluster: ClusterFile, balancer: BalancerEntry) -> tuple[NodeEntry, ...]:
    """Those that the balancer hands on to and that are the same host."""
    proxies = cluster.targets if cluster.proxies else ()
    return tuple(proxy for proxy in proxies if proxy.name == balancer.name or proxy.address == balancer.address)


def connect_s(cluster: ClusterFile) -> str:
    """How long a health check waits for its connection, in seconds."""
    return f"{cluster.lvs.health_s * CONNECT_SHARE:g}"


def answer_s(cluster: ClusterFile) -> str:
    """How long a health check takes at most, in seconds."""
    return f"{cluster.lvs.health_s * ANSWER_SHARE:g}"


def _health(cluster: ClusterFile, balancer: BalancerEntry) -> str:
    """The script that puts the virtual address on lo, and takes it away."""
    own, sorry = own_proxies(cluster, balancer), cluster.lvs.sorry_server
    if sorry is not None:
        asked, why = cluster.targets, "one that it hands connections on to, or the sorry server,"
    else:
        asked, why = own or cluster.targets, "its own proxy" if own else "one that it hands connections on to"
    return render(
        "health.sh.j2",
        name=balancer.name,
        virtual_address=cluster.front.virtual_address,
        urls=[f"http://{target.address}:{target.port}/readyz" for target in asked],
        sorry=f"http://{sorry}:{cluster.front.port}/" if sorry else "",
        why=why,
        lvs=cluster.lvs,
        drain_s=DRAIN_S,
        connect_s=connect_s(cluster),
        answer_s=answer_s(cluster),
    )


def _frr(cluster: ClusterFile, host: BalancerEntry | RouterEntry, interfaces: tuple[str, ...]) -> str:
    is_balancer = isinstance(host, BalancerEntry)
    return render(
        "frr.conf.j2",
        name=host.name,
        address=host.address,
        role=_role(host),
        interfaces=interfaces,
        priority=BALANCER_PRIORITY if is_balancer else ROUTER_PRIORITY,
        virtual_address=cluster.front.virtual_address if is_balancer else None,
        ospf=cluster.ospf,
    )


def _role(host: BalancerEntry | RouterEntry) -> str:
    return "balancer" if isinstance(host, BalancerEntry) else "router"
