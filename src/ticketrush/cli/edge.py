"""`ticketrush edge …`: the front door."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from ticketrush.cli import output
from ticketrush.cli.app import Commands
from ticketrush.cli.edge_check import check
from ticketrush.cli.edge_demo import demo
from ticketrush.cli.edge_flags import CLUSTER, ClusterPath
from ticketrush.cli.edge_lab import lab
from ticketrush.cli.flags import flag
from ticketrush.edge import cluster_file, lvs, nginx, ospf, render
from ticketrush.edge.cluster_file import ClusterFile
from ticketrush.edge.errors import ClusterFileError

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="Render, check and try what stands in front of the nodes: OSPF, LVS and Nginx, from one cluster file.",
)

Out = Annotated[Path, flag("EDGE_OUT", "The folder for what is rendered; it is made.", "--out", metavar="DIR")]
Json = Annotated[bool, flag("EDGE_JSON", "Print the paths of the files as JSON.", "--json")]

_OUT = Path("edge")

app.command("check")(check)
app.command("demo")(demo)
app.command("lab")(lab)


@app.command("example")
def example() -> None:
    """Print a cluster file to begin with: `ticketrush edge example > cluster.toml`."""
    print(resources.files("ticketrush.edge").joinpath("example.toml").read_text("utf-8"), end="")


@app.command("nginx")
def render_nginx(cluster: ClusterPath = CLUSTER, out: Out = _OUT, as_json: Json = False) -> None:
    """Render nginx.conf for the proxies: shares, health, retries, limits, TLS, and "sold out" at the edge."""
    _render(nginx.files, cluster, out, as_json=as_json)


@app.command("lvs")
def render_lvs(cluster: ClusterPath = CLUSTER, out: Out = _OUT, as_json: Json = False) -> None:
    """Render keepalived.conf for each balancer: the virtual server, its weights and health checks, and VRRP."""
    _render(lvs.files, cluster, out, as_json=as_json)


@app.command("ospf")
def render_ospf(cluster: ClusterPath = CLUSTER, out: Out = _OUT, as_json: Json = False) -> None:
    """Render FRR's configuration for balancers and routers: the virtual address over equal-cost paths."""
    _render(ospf.files, cluster, out, as_json=as_json)


def _render(files: Callable[[ClusterFile], dict[str, str]], cluster: Path, out: Path, *, as_json: bool) -> None:
    texts = files(cluster_file.read(cluster))
    if not texts:
        raise ClusterFileError(
            f"{cluster} has no such layer; there is nothing to render: add [[balancers]], for OSPF ospf.networks too "
            "(`ticketrush edge example` shows them)"
        )
    written = [str(path) for path in render.write(out, texts)]
    if as_json:
        output.as_json({"files": written})
        return
    for path in written:
        print(path)
    output.say(f"`ticketrush edge check --cluster {cluster}` lets the programs themselves judge it.", aside=True)
