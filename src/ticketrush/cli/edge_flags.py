"""The flags that several commands of `ticketrush edge` share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from ticketrush.cli.flags import flag

ClusterPath = Annotated[
    Path,
    flag(
        "EDGE_CLUSTER",
        "The cluster file, TOML; `ticketrush edge example` prints one.",
        "--cluster",
        metavar="FILE",
    ),
]

CLUSTER: Final = Path("cluster.toml")
"""The cluster file if none is named."""
