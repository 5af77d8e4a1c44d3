"""OSPF: the virtual address is announced by every balancer that is well."""

from __future__ import annotations

from ticketrush.edge.cluster_file import ClusterFile


def files(cluster: ClusterFile) -> dict[str, str]:
    """The files of balancers and routers, by name."""
    raise NotImplementedError(cluster)
