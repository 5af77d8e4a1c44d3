"""`ticketrush edge …`: the front door."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from ticketrush.cli import output
from ticketrush.cli.app import Commands
from ticketrush.cli.edge_check import check
from ticketrush.cli.edge_demo import demo
from ticketrush.cli.edge_flags import CLUSTER, ClusterPath
from ticketrush.cli.edge_lab import lab
from ticketrush.cli.flags import flag
from ticketrush.edge import cluster_file, lvs, nginx, ospf, render
from ticketrush.edge.errors import ClusterFileError

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="Render, check and try what stands in front of the nodes: OSPF, LVS and Nginx, from one cluster file.",
)

Out = Annotated[Path, flag("EDGE_OUT", "The folder for what is rendered; it is made.", "--out", metavar="DIR")]
Json = Annotated[bool, flag("EDGE_JSON", "Print the paths of the files as JSON.", "--json")]
Layer = Literal["nginx", "lvs", "ospf"]

_OUT = Path("edge")
_FILES: Final = {"nginx": nginx.files, "lvs": lvs.files, "ospf": ospf.files}


@app.command("example")
def example() -> None:
    """Print a cluster file to begin with: `ticketrush edge example > cluster.toml`."""
    print(resources.files("ticketrush.edge").joinpath("example.toml").read_text("utf-8"), end="")


@app.command("nginx")
def render_nginx(cluster: ClusterPath = CLUSTER, out: Out = _OUT, as_json: Json = False) -> None:
    """Render nginx.conf for the proxies: shares, health, retries, limits, TLS, and "sold out" at the edge.

    Exit code 0 if it is written, 2 if not: the cluster file makes no sense, or the folder takes no files.
    """
    _render("nginx", cluster, out, as_json=as_json)


@app.command("lvs")
def render_lvs(cluster: ClusterPath = CLUSTER, out: Out = _OUT, as_json: Json = False) -> None:
    """Render keepalived.conf for each balancer: the virtual server, its weights and health checks, and VRRP.

    Exit code 0 if it is written, 2 if not: the cluster file makes no sense or has no such layer (it has no
    balancers), or the folder takes no files.
    """
    _render("lvs", cluster, out, as_json=as_json)


@app.command("ospf")
def render_ospf(cluster: ClusterPath = CLUSTER, out: Out = _OUT, as_json: Json = False) -> None:
    """Render FRR's configuration for balancers and routers: the virtual address over equal-cost paths.

    Exit code 0 if it is written, 2 if not: the cluster file makes no sense or has no such layer (it names no
    network of OSPF), or the folder takes no files.
    """
    _render("ospf", cluster, out, as_json=as_json)


app.command("check")(check)
app.command("demo")(demo)
app.command("lab")(lab)


def _render(layer: Layer, cluster: Path, out: Path, *, as_json: bool) -> None:
    given = cluster_file.read(cluster)
    texts = _FILES[layer](given)
    hosts = {host.name for host in (*given.balancers, *given.routers)}
    for old in render.left_behind(out, texts, layer, hosts):
        said = "is of an earlier rendering, and this one has no such file: remove it, also from where it is used"
        output.say(f"{old} {said}", "yellow", aside=True)
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
