"""`ticketrush token`: secrets and bearer tokens, without a server."""

from __future__ import annotations

import datetime as dt
import sys
from typing import Annotated

import typer

from ticketrush.admission.tokens import OPERATOR, Tokens, is_visible, new_secret
from ticketrush.cli import output
from ticketrush.cli.app import Commands, UsageError
from ticketrush.cli.flags import Config, flag, settings_of
from ticketrush.credentials import new_webhook_secret
from ticketrush.errors import SettingsError

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Make secrets, mint tokens, check tokens.")

TTL_S_MAX = 10 * 365 * 24 * 3600


@app.command(epilog="Example: `export TICKETRUSH_TOKEN_SECRETS=$(ticketrush token secret)`")
def secret() -> None:
    """Print a new random secret for TICKETRUSH_TOKEN_SECRETS.

    To change secrets without an outage, put the new one before the old one, separated by a comma,
    and drop the old one when its last token has expired.
    """
    print(new_secret())


@app.command(epilog="Example: `export TICKETRUSH_WEBHOOK_SECRETS=$(ticketrush token webhook-secret)`")
def webhook_secret() -> None:
    """Print a new random secret for TICKETRUSH_WEBHOOK_SECRETS, which the payment gateway gets too.

    To change secrets without an outage, add the new one behind a comma, let the gateway sign with it,
    and drop the old one.
    """
    print(new_webhook_secret())


@app.command(
    epilog="Examples: `ticketrush token mint --buyer alice` · "
    "`export TICKETRUSH_TOKEN=$(ticketrush token mint --operator --ttl 28800)`"
)
def mint(
    ctx: typer.Context,
    buyer: Annotated[
        str | None, flag("TOKEN_MINT_BUYER", "Whom the token names.", "--buyer", show_default="operator, if it is one")
    ] = None,
    operator: Annotated[
        bool, flag("TOKEN_MINT_OPERATOR", "May create, open and close sales, refund, audit.", "--operator")
    ] = False,
    ttl_s: Annotated[
        int,
        flag("TOKEN_MINT_TTL", "How long it is valid, in seconds.", "--ttl", metavar="SECONDS", min=1, max=TTL_S_MAX),
    ] = 3_600,
    config: Config = None,
) -> None:
    """Print a token signed with the first of TICKETRUSH_TOKEN_SECRETS."""
    name = buyer or ("operator" if operator else None)
    if name is None:
        raise UsageError("whose token? Name the buyer with --buyer, or ask for an --operator token")
    if not is_visible(name):
        raise UsageError(f"buyer {name!r} is not 1 to 128 visible ASCII characters")
    print(_tokens(ctx).mint(name, ttl_s=ttl_s, scope=OPERATOR if operator else ""))


@app.command(epilog="Example: `ticketrush token mint --buyer alice | ticketrush token check -`")
def check(
    ctx: typer.Context,
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="The token; - reads it from standard input.")],
    config: Config = None,
    as_json: Annotated[bool, flag("TOKEN_CHECK_JSON", "Print the claims as JSON.", "--json")] = False,
) -> None:
    """Say whom a token names and until when, or why it proves nothing (exit code 1)."""
    text = sys.stdin.read().strip() if token == output.STDIN else token
    claims = _tokens(ctx).verify(b"Bearer " + text.encode())
    expires_at = dt.datetime.fromtimestamp(claims.exp, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if as_json:
        output.as_json({"buyer": claims.sub, "operator": claims.is_operator, "expires_at": expires_at})
    else:
        who = "operator" if claims.is_operator else "buyer"
        print(f"valid: {who} {claims.sub}, until {expires_at}")


def _tokens(ctx: typer.Context) -> Tokens:
    settings = settings_of(ctx)
    if not settings.token_secrets:
        raise SettingsError(
            "token_secrets is empty. Make a secret with `ticketrush token secret` and set it as "
            "TICKETRUSH_TOKEN_SECRETS; the server needs the same one."
        )
    return Tokens(settings.token_keys, settings.token_audience)
