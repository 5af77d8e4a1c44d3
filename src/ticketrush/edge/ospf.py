"""OSPF: the virtual address is announced by every balancer that is well.

The address is on `lo` of each balancer for as long as its health script finds it well, and FRR announces what is
there. Routers share connections out over the balancers at equal cost.
"""

from __future__ import annotations

from typing import Final

from ticketrush.edge.cluster_file import BalancerEntry, ClusterFile, RouterEntry
from ticketrush.edge.health import answer_s, connect_s, own_proxies, places
from ticketrush.edge.render import render

ROUTER_PRIORITY: Final = 100
BALANCER_PRIORITY: Final = 0
"""A balancer never speaks for its network (designated router): losing one changes nothing but its own route."""

DRAIN_S: Final = 2
"""For how long a balancer that is stopped answers what routers still send it; they leave it within a second."""


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


def _health(cluster: ClusterFile, balancer: BalancerEntry) -> str:
    """The script that puts the virtual address on lo, and takes it away.

    With a sorry server, a balancer has something to hand on to without a proxy of its own.
    """
    sorry = cluster.lvs.sorry_server
    own = own_proxies(cluster, balancer) if sorry is None else ()
    others = [proxy for other in cluster.balancers for proxy in own_proxies(cluster, other) if proxy not in own]
    return render(
        "health.sh.j2",
        name=balancer.name,
        virtual_address=cluster.front.virtual_address,
        own=places(own),
        others=places(others),
        targets=places(cluster.targets),
        sorry=f"http://{sorry}:{cluster.front.port}/" if sorry else "",
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
