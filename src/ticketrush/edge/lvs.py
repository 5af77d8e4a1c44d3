"""LVS: connections to the virtual address are shared out."""

from __future__ import annotations

from ticketrush.edge.cluster_file import ClusterFile


def files(cluster: ClusterFile) -> dict[str, str]:
    """The files of the balancers, by name."""
    raise NotImplementedError(cluster)
