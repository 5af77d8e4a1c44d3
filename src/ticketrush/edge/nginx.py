"""Nginx: the layer that speaks HTTP."""

from __future__ import annotations

from ticketrush.edge.cluster_file import ClusterFile


def files(cluster: ClusterFile) -> dict[str, str]:
    """The files of the proxies, by name."""
    raise NotImplementedError(cluster)
