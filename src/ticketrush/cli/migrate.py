"""`ticketrush migrate`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from ticketrush.cli import output
from ticketrush.cli.app import Exit
from ticketrush.cli.flags import Config, flag, setting, settings_of
from ticketrush.cli.orders import store_in
from ticketrush.orders.protocol import OrderStore
from ticketrush.settings import without_password

EPILOG = """Examples: `ticketrush migrate --orders sqlite:///orders.db` · `ticketrush migrate --check` exits 1 if
something is to be applied. · `TICKETRUSH_ORDERS=postgresql://shop:PASSWORD@db/shop ticketrush migrate` keeps the
password out of `ps`. · Exit codes: 0 all is applied · 1 --check: something is not · 2 wrong usage or settings, or
tables of something else or of a newer program · 4 the store does not answer."""


def migrate(
    ctx: typer.Context,
    orders: Annotated[str | None, setting("orders", "--orders", metavar="URL")] = None,
    check: Annotated[
        bool,
        flag("MIGRATE_CHECK", "Change nothing: list what would be applied, and exit 1 if there is any.", "--check"),
    ] = False,
    config: Config = None,
    as_json: Annotated[bool, flag("MIGRATE_JSON", "Print the migrations as JSON.", "--json")] = False,
) -> None:
    """Make the tables of the order store, or bring them to this version of the program.

    Run it before the new version's workers and servers start; those that run may go on, unless the notes
    of the release say otherwise. Several at a time wait for one another, each migration is applied whole or
    not at all, and running it again is harmless.
    """
    url = settings_of(ctx).orders
    names = asyncio.run(_run(store_in(url), check=check))
    where = without_password(url)
    if as_json:
        output.as_json({"orders": where, "pending" if check else "applied": names})
    elif not names:
        output.say(f"{where} is up to date")
    for name in names if not as_json else ():
        output.say(f"{name} is to be applied to {where}" if check else f"{name} was applied to {where}")
    if check and names:
        raise typer.Exit(Exit.NOT_WELL)


async def _run(store: OrderStore, *, check: bool) -> list[str]:
    try:
        return await (store.pending() if check else store.migrate())
    finally:
        await store.close()
