"""`ticketrush edge check`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from ticketrush.cli import output
from ticketrush.cli.app import Exit
from ticketrush.cli.edge_flags import CLUSTER, ClusterPath
from ticketrush.cli.flags import flag
from ticketrush.edge import check as checks
from ticketrush.edge import cluster_file, render
from ticketrush.edge.check import Finding, Verdict

_STYLES: Final[dict[Verdict, str]] = {
    "well": "green",
    "wrong": "red",
    "not installed": "yellow",
    "not judged": "yellow",
}


def check(
    cluster: ClusterPath = CLUSTER,
    out: Annotated[
        Path | None,
        flag("EDGE_CHECK_OUT", "Render into this folder, and keep it; else it is not kept.", "--out", metavar="DIR"),
    ] = None,
    as_json: Annotated[bool, flag("EDGE_CHECK_JSON", "Print what was found as JSON.", "--json")] = False,
) -> None:
    """Render all layers, and let the programs themselves judge: a line for each file.

    Nothing is installed, started or changed on this machine, and it need not be root. A certificate that is not
    here is stood in for, and that is said.

    Exit code 0 if all is well, 1 if something is wrong, 2 if nothing is wrong but not all could be judged: a program
    is not installed, or needs root.
    """
    given = cluster_file.read(cluster)
    files = checks.all_files(given)
    with checks.place(out) as folder:
        render.write(folder, files)
        findings = checks.judge(folder, files)
    code = _code(findings)
    if as_json:
        output.as_json({"ok": code == Exit.OK, "findings": findings})
    else:
        _print(findings)
    raise typer.Exit(code)


def _code(findings: Sequence[Finding]) -> Exit:
    verdicts = {finding.verdict for finding in findings}
    if "wrong" in verdicts:
        return Exit.NOT_WELL
    return Exit.OK if verdicts <= {"well"} else Exit.USAGE


def _print(findings: Sequence[Finding]) -> None:
    widest = max(len(finding.verdict) for finding in findings)
    for finding in findings:
        line = f"{finding.verdict:{widest}}  {finding.file}  ({finding.program})"
        first, *more = finding.said.splitlines() or [""]
        output.say(f"{line}: {first}" if first and not more else line, _STYLES[finding.verdict])
        for words in (first, *more) if more else ():
            output.say(f"{'':{widest}}  {words}")
