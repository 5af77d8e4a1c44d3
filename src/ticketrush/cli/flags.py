"""Flags and their twins in the environment.

A flag that is a setting has the setting's variable, ``TICKETRUSH_PORT``; ``--url`` and ``--token``
are shared by all that talk to a server; every other flag's variable names its command too,
``TICKETRUSH_RUSH_BUYERS``, so that a variable meant for one command does not reach another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ticketrush.settings import Settings, load, variable_of


def setting(name: str, *declarations: str, **more: Any) -> Any:
    """The flag of the setting `name`: help, variable and default are the setting's own."""
    field = Settings.model_fields[name]
    default = field.get_default()
    shown = False if default in {None, ""} or isinstance(default, bool) else str(default)
    return typer.Option(*declarations, envvar=variable_of(name), help=field.description, show_default=shown, **more)


def flag(variable: str, help_: str, *declarations: str, **more: Any) -> Any:
    """A flag with its variable: TICKETRUSH_`variable`."""
    return typer.Option(*declarations, envvar=f"TICKETRUSH_{variable}", help=help_, **more)


Config = Annotated[
    Path | None,
    flag("CONFIG", "Read settings from this TOML file.", "--config", show_default="ticketrush.toml if it is there"),
]
Url = Annotated[str, flag("URL", "The server.", "--url", metavar="URL")]
Token = Annotated[
    str | None,
    flag("TOKEN", "The bearer token to show; sales want an operator's.", "--token", metavar="JWT"),
]

URL_DEFAULT = "http://127.0.0.1:8000"


def settings_of(ctx: typer.Context) -> Settings:
    """The settings, with the flags that were really written on the command line of `ctx`.

    Variables are left to the settings themselves, which know better where a value came from.
    """
    written = {
        name: value for name, value in ctx.params.items() if name in Settings.model_fields and _is_written(ctx, name)
    }
    return load(ctx.params.get("config"), written)


def _is_written(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
