"""How `--help` looks: each flag with its values in one column, what is said of it in another, and nothing cut off.

typer's own panel has a column each for a flag, its short form, its negation and its values. On a terminal of 80
columns 20 are left for the words, and what is longer, such as the name of a variable, ends in an ellipsis.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import typer
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from typer import rich_utils

FLAG_STYLE: Final = "bold cyan"
VALUE_STYLE: Final = "bold yellow"

FLAGS_WIDTH_MAX: Final = 30
"""Characters of the column of flags; longer ones are folded."""


_EXAMPLES: Final = re.compile(r"(Examples?[^:`]*:) (.*?)(?:(?:\. | · |\s)(Exit codes: .*))?", re.DOTALL)


def install(app: typer.Typer) -> None:
    """Let typer print flags and arguments in this way, and the examples of all commands of `app` one a line."""
    rich_utils._print_options_panel = _ours_or(rich_utils._print_options_panel)
    _list_examples(app)


def _list_examples(app: typer.Typer) -> None:
    for command in app.registered_commands:
        command.epilog = one_a_line(command.epilog or "")
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _list_examples(group.typer_instance)


def one_a_line(epilog: str) -> str:
    """The end of a help with its examples, which have " · " between them, as a list; exit codes stand by themselves."""
    found = _EXAMPLES.fullmatch(" ".join(epilog.split()))
    if found is None:
        return epilog
    head, examples, more = found.groups()
    return "\n".join((head, "", *(f"- {each}" for each in examples.split(" · ")), "", more or "")).strip()


def _ours_or(typers: Callable[..., None]) -> Callable[..., None]:
    """Our panel; typer's own if this typer has moved the inner parts that ours is made of."""

    def print_panel(**about: Any) -> None:
        try:
            _print_panel(**about)
        except (AttributeError, TypeError):
            typers(**about)

    return print_panel


def _print_panel(*, name: str, params: Sequence[Any], ctx: Any, markup_mode: Any, console: Console) -> None:
    """In the place of typer's function, which takes these."""
    if not params:
        return
    table = Table(box=None, show_header=False, expand=True, pad_edge=False, padding=(0, 1))
    table.add_column(overflow="fold", max_width=FLAGS_WIDTH_MAX)
    table.add_column(overflow="fold", ratio=1)
    for param in params:
        words = rich_utils._get_parameter_help(param=param, ctx=ctx, markup_mode=markup_mode).renderables
        table.add_row(_flag_of(param, ctx), _joined(words))
    console.print(Panel(table, border_style="dim", title=name, title_align="left"))


def _flag_of(param: Any, ctx: Any) -> Text:
    """A flag, or the name of an argument, and what may be written behind it."""
    is_flag = any(name.startswith("-") for name in param.opts)
    names = sorted(param.opts, key=len) if is_flag else [param.metavar or param.name.upper()]
    text = Text()
    negated = {name.removeprefix("--no-") for name in param.secondary_opts}
    for place, name in enumerate(names):
        text.append(", " if place else "")
        bare = name.removeprefix("--")
        text.append(f"--[no-]{bare}" if bare in negated else name, FLAG_STYLE)
    if is_flag and not getattr(param, "is_flag", False):
        text.append(f" {_values_of(param, ctx)}", VALUE_STYLE)
    return text


def _values_of(param: Any, ctx: Any) -> str:
    """What is to be written behind a flag: typer has two ways to say it, by its version."""
    if not hasattr(param, "display_type_rich"):
        return str(param.make_metavar(ctx))
    bounds = param._get_number_range_help_str()
    kind = param.display_type_rich(ctx=ctx) or ""
    return f"{kind.replace(' range', '')} {bounds}" if bounds else kind


def _joined(words: Sequence[RenderableType]) -> Group:
    """The description, and below it in one paragraph its variable, its default, and whether it must be there."""
    notes = Text(" ").join([each for each in words if isinstance(each, Text)])
    return Group(*(each for each in words if not isinstance(each, Text)), *([notes] if notes else []))
