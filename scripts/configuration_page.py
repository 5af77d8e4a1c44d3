"""Write docs/configuration.md from the settings: python scripts/configuration_page.py FILE.

A test compares the page with what this makes, so a setting cannot be forgotten in it.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pydantic.fields import FieldInfo

from ticketrush.settings import Settings, unit_of, variable_of

_HEAD = """\
# Configuration

<!-- Written by `make docs` from src/ticketrush/settings.py; change the descriptions there. -->

A setting comes from four places; a later one overrules an earlier one:

1. its default,
2. a TOML file: the one named by `--config` or `TICKETRUSH_CONFIG`, else `ticketrush.toml` in the
   working directory if it is there,
3. its environment variable,
4. its flag, where the command has one.

`ticketrush config show` prints every value and where it came from. A wrong value, or a name in the
TOML file that is no setting, stops the command with a message that names it (exit code 2). An
empty environment variable counts as not set. Secrets are counted, never printed.

A TOML file has the names below, without tables:

```toml
host = "0.0.0.0"
port = 8000
ledger = "sqlite:////var/lib/ticketrush/tickets.db"
log_format = "json"
```

Secrets belong in the environment, where `ticketrush token secret` puts a good one:

```sh
export TICKETRUSH_TOKEN_SECRETS=$(ticketrush token secret)
```

To change them without an outage, put a new secret before the old one, separated by a comma, and
drop the old one when its last token has expired.

A server starts only if it can tell who its buyers are: with at least one secret, or with `open`
(or `demo`), which is refused unless `host` is a loopback address.

## Settings

"""

_TAIL = """
## Variables of flags that are no settings

Every flag of every command has a variable, which its `--help` names: `TICKETRUSH_URL` and
`TICKETRUSH_TOKEN` for all commands that talk to a server, `TICKETRUSH_CONFIG` for the TOML file, and
`TICKETRUSH_<COMMAND>_<FLAG>` for the rest, as in `TICKETRUSH_RUSH_BUYERS`.
"""


def page() -> str:
    """The whole page."""
    return _HEAD + "\n".join(_entry(name, field) for name, field in Settings.model_fields.items()) + _TAIL


def _entry(name: str, field: FieldInfo) -> str:
    bounds = _bounds(field)
    facts = [f"Default: {_default(field)}", f"unit: {unit_of(name)}", *([bounds] if bounds else [])]
    return f"### `{name}`\n\n{field.description}\n\n{'; '.join(facts)}. Variable: `{variable_of(name)}`.\n"


def _default(field: FieldInfo) -> str:
    value = field.get_default()
    if value is None or value == ():
        return "none"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


def _bounds(field: FieldInfo) -> str:
    limits = {
        name: getattr(each, name) for each in field.metadata for name in ("gt", "ge", "le") if hasattr(each, name)
    }
    words = {"gt": "more than", "ge": "at least", "le": "at most"}
    return ", ".join(f"{words[name]} {limit:,}" for name, limit in limits.items())


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
