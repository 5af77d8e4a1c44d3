"""`ticketrush config`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from ticketrush.cli import output
from ticketrush.cli.app import Commands
from ticketrush.cli.flags import Config, flag, settings_of

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Look at the settings.")


@app.command(epilog="Example: `TICKETRUSH_PORT=9000 ticketrush config show`")
def show(
    ctx: typer.Context,
    config: Config = None,
    as_json: Annotated[bool, flag("CONFIG_SHOW_JSON", "Print them as JSON.", "--json")] = False,
) -> None:
    """Show every setting: its value, its unit, and where the value came from.

    Defaults are overruled by the TOML file, that by the environment, that by flags. Secrets are
    counted, never shown.
    """
    described = settings_of(ctx).describe()
    if as_json:
        output.as_json(
            {
                each.name: {
                    "value": each.value,
                    "from": each.origin,
                    "variable": each.variable,
                    "unit": each.unit,
                    "description": each.description,
                }
                for each in described
            }
        )
        return
    table = Table(box=None, pad_edge=False)
    for column in ("setting", "value", "unit", "from"):
        table.add_column(column, overflow="fold")
    for each in described:
        style = "dim" if each.origin == "default" else ""
        table.add_row(each.name, each.value, each.unit, each.origin, style=style)
    output.console().print(table)
