"""`ticketrush orders`: what is in the order store, and its dead letters."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, TypeVar

import typer

from ticketrush.cli import output
from ticketrush.cli.app import Commands, Exit, RefusedError, UsageError
from ticketrush.cli.flags import Config, flag, setting, settings_of
from ticketrush.clock import SystemClock, iso, iso_or_none
from ticketrush.errors import SettingsError
from ticketrush.orders.letters import give_up, replay
from ticketrush.orders.model import DeadLetter, Order
from ticketrush.orders.protocol import OrderStore
from ticketrush.wiring import store_of

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="Look at orders, and deal with messages that could not become part of one.",
    epilog="The store is --orders or TICKETRUSH_ORDERS, which keeps a password out of `ps`. "
    "Exit codes: 0 done · 1 not found, or still refused · 2 wrong usage or settings, or tables that want "
    "`ticketrush migrate` · 4 the store does not answer.",
)

AT_ONCE: Final = 500
"""Dead letters that are read at a time."""

_FIGURES: Final = frozenset({"number", "quantity", "amount minor", "orders", "units"})

NUMBER_MAX: Final = 2**63 - 1

NUMBER_DIGITS: Final = 20
"""What has fewer digits, and nothing else, is no id but a number."""

SHOWN_MAX: Final = 60
"""Characters of a payload that a table shows."""

Store = Annotated[str | None, setting("orders", "--orders", metavar="URL")]

_R = TypeVar("_R")


def _json(command: str) -> Any:
    return flag(f"ORDERS_{command}_JSON", "Print it as JSON.", "--json")


def _limit(command: str, what: str) -> Any:
    return flag(f"ORDERS_{command}_LIMIT", f"Most {what} to print.", "--limit", min=1, max=10_000)


def store_in(url: str) -> OrderStore:
    """The store that the settings name. Raises SettingsError if they name none."""
    if not url:
        raise SettingsError(
            "orders is empty: name the store with --orders sqlite:///orders.db or --orders "
            "postgresql://user@host/database, or in TICKETRUSH_ORDERS"
        )
    return store_of(url)


def ask(ctx: typer.Context, question: Callable[[OrderStore], Awaitable[_R]]) -> _R:
    """What `question` returns of the open store."""
    store = store_in(settings_of(ctx).orders)

    async def asked() -> _R:
        try:
            await store.open()
            return await question(store)
        finally:
            await store.close()

    return asyncio.run(asked())


# --- orders ---------------------------------------------------------------------------------


@app.command("list", epilog="Example: `ticketrush orders list --buyer ann --orders sqlite:///orders.db`")
def list_(
    ctx: typer.Context,
    buyer: Annotated[str, flag("ORDERS_LIST_BUYER", "Whose orders.", "--buyer", metavar="BUYER")],
    before: Annotated[
        int | None,
        flag(
            "ORDERS_LIST_BEFORE",
            "Only orders with a lower number: the next page.",
            "--before",
            metavar="NUMBER",
            min=1,
            max=NUMBER_MAX,
        ),
    ] = None,
    limit: Annotated[int, _limit("LIST", "orders")] = 100,
    orders: Store = None,
    config: Config = None,
    as_json: Annotated[bool, _json("LIST")] = False,
) -> None:
    """List the orders of a buyer, newest first."""
    _check_text("--buyer", buyer)
    found = ask(ctx, lambda store: store.orders_of(buyer, before=before, limit=limit))
    if as_json:
        output.as_json([facts(each) for each in found])
        return
    columns = ("number", "id", "state", "sale", "item", "quantity", "amount minor", "currency", "held at")
    output.table(
        columns,
        ([_cell(facts(each), column) for column in columns] for each in found),
        right=_FIGURES,
        spare=("held at", "currency", "amount minor", "quantity", "item", "sale"),
    )
    if len(found) == limit:
        output.say(f"there may be more: --before {found[-1].number}", aside=True)


@app.command(epilog="Example: `ticketrush orders show 01a229452dbf740282518664d375c7b7 --json`")
def show(
    ctx: typer.Context,
    id: Annotated[str, typer.Argument(metavar="ID", help="The order's id, which is the reservation's.")],
    orders: Store = None,
    config: Config = None,
    as_json: Annotated[bool, _json("SHOW")] = False,
) -> None:
    """Show one order with all its times. Incomplete: something that was before is not known yet."""
    _check_text("ID", id)
    order = ask(ctx, lambda store: store.order(id))
    if order is None and id.isdecimal() and len(id) < NUMBER_DIGITS:
        raise RefusedError(f"{id} looks like a number: give the order's id, which `ticketrush orders list` shows too")
    if order is None:
        raise RefusedError(f"the store has not heard of an order {id!r}; is the order worker running?")
    if as_json:
        output.as_json(facts(order))
        return
    output.table(
        ("", ""),
        ([name.replace("_", " "), str(value)] for name, value in facts(order).items() if value is not None),
        header=False,
    )


@app.command(epilog="Example: `ticketrush orders totals --json`")
def totals(
    ctx: typer.Context,
    orders: Store = None,
    config: Config = None,
    as_json: Annotated[bool, _json("TOTALS")] = False,
) -> None:
    """Count orders and units by sale, item and state. Looks at every order, which takes a while for millions."""
    found = ask(ctx, lambda store: store.totals())
    if as_json:
        output.as_json([each._asdict() for each in found])
        return
    output.table(
        ("sale", "item", "state", "orders", "units"),
        ([each.sale, each.item, each.state.value, f"{each.orders:,}", f"{each.units:,}"] for each in found),
        right=_FIGURES,
    )


@app.command(epilog="Example: `ticketrush orders repairs --limit 20`")
def repairs(
    ctx: typer.Context,
    limit: Annotated[int, _limit("REPAIRS", "repairs")] = 100,
    orders: Store = None,
    config: Config = None,
    as_json: Annotated[bool, _json("REPAIRS")] = False,
) -> None:
    """List the latest differences between ledger and store that were put right, newest first."""
    found = ask(ctx, lambda store: store.repairs(limit=limit))
    rows = [
        {
            "order": each.order,
            "before": each.before,
            "after": each.after,
            "reason": each.reason,
            "at": iso(each.at_ms),
        }
        for each in found
    ]
    if as_json:
        output.as_json(rows)
        return
    output.table(
        ("order", "before", "after", "reason", "at"),
        (list(row.values()) for row in rows),
        prose=("reason",),
        spare=("at",),
    )


# --- dead letters ---------------------------------------------------------------------------


@app.command("dead-letters", epilog="Example: `ticketrush orders dead-letters --json | jq -r '.[].error'`")
def dead_letters(
    ctx: typer.Context,
    after: Annotated[
        int,
        flag(
            "ORDERS_DEAD_LETTERS_AFTER", "Only those with a higher number: the next page.", "--after", metavar="NUMBER"
        ),
    ] = 0,
    limit: Annotated[int, _limit("DEAD_LETTERS", "dead letters")] = 100,
    orders: Store = None,
    config: Config = None,
    as_json: Annotated[bool, _json("DEAD_LETTERS")] = False,
) -> None:
    """List messages that could not become part of an order and that nobody has dealt with yet, oldest first.

    Find out why, and then `replay` or `discard` them. None of them is ever lost or dropped by age.
    """
    found = ask(ctx, lambda store: store.dead_letters(after=after, limit=limit))
    rows = [
        {
            "number": each.number,
            "where": each.where,
            "at": iso(each.at_ms),
            "error": each.error,
            "payload": _readable(each.payload),
        }
        for each in found
    ]
    if as_json:
        output.as_json(rows)
        return
    output.table(
        ("number", "where", "at", "error", "payload"),
        ([*(str(value) for value in list(row.values())[:-1]), _short(str(row["payload"]))] for row in rows),
        right=_FIGURES,
        prose=("error", "payload"),
        spare=("at", "payload"),
    )
    if len(found) == limit:
        output.say(f"there may be more: --after {found[-1].number}", aside=True)


@app.command("replay", epilog="Examples: `ticketrush orders replay 17` · `ticketrush orders replay --all`")
def replay_(
    ctx: typer.Context,
    number: Annotated[
        str | None, typer.Argument(metavar="[NUMBER]", help="The dead letter's number.", show_default=False)
    ] = None,
    every: Annotated[bool, flag("ORDERS_REPLAY_ALL", "Replay all that nobody has dealt with.", "--all")] = False,
    orders: Store = None,
    config: Config = None,
    as_json: Annotated[bool, _json("REPLAY")] = False,
) -> None:
    """Read dead letters once more, now that their cause is mended; one that goes through is settled.

    One that still fails stays, and why is said; exit code 1 then. Replaying twice is harmless.
    """
    if (number is None) != every:
        raise UsageError("write either the number of a dead letter, or --all")
    one = None if number is None else _number(number)
    results = ask(ctx, _replay_all if one is None else lambda store: _replay_one(store, one))
    rows = [{"number": letter.number, "where": letter.where, "error": why} for letter, why in results]
    if as_json:
        output.as_json(rows)
    else:
        output.table(
            ("number", "where", "result"),
            ([str(letter.number), letter.where, why or "replayed"] for letter, why in results),
            right=_FIGURES,
            prose=("result",),
        )
    if any(why for _, why in results):
        raise typer.Exit(Exit.NOT_WELL)


async def _replay_one(store: OrderStore, number: int) -> list[tuple[DeadLetter, str]]:
    found = await store.dead_letters(after=number - 1, limit=1)
    if not found or found[0].number != number:
        raise _no_letter(number)
    return [(found[0], await replay(store, found[0], SystemClock().now_ms()))]


async def _replay_all(store: OrderStore) -> list[tuple[DeadLetter, str]]:
    clock = SystemClock()
    results: list[tuple[DeadLetter, str]] = []
    after = 0
    while letters := await store.dead_letters(after=after, limit=AT_ONCE):
        results += [(letter, await replay(store, letter, clock.now_ms())) for letter in letters]
        after = letters[-1].number
    return results


@app.command(epilog="Example: `ticketrush orders discard 17 --reason 'a test message of 3 May'`")
def discard(
    ctx: typer.Context,
    number: Annotated[str, typer.Argument(metavar="NUMBER", help="The dead letter's number.")],
    reason: Annotated[
        str, flag("ORDERS_DISCARD_REASON", "Why it may be given up; kept with it.", "--reason", metavar="TEXT")
    ],
    orders: Store = None,
    config: Config = None,
) -> None:
    """Give a dead letter up: it will never be part of an order. It stays in the store, with the reason."""
    _check_text("--reason", reason)
    if not reason.strip():
        raise UsageError("--reason is empty; somebody will want to know")
    one = _number(number)
    if not ask(ctx, lambda store: give_up(store, one, reason.strip(), SystemClock().now_ms())):
        raise _no_letter(one)
    output.say(f"dead letter {one} is given up")


def _check_text(what: str, text: str) -> None:
    """Raises UsageError for bytes that are no text, which a shell passes on and no store takes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{what} is {text!r}, which is not UTF-8") from None


def _number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= NUMBER_MAX:
        raise UsageError(f"{text!r} is no dead letter's number; `ticketrush orders dead-letters` lists them")
    return int(text)


def _no_letter(number: int) -> RefusedError:
    return RefusedError(f"there is no dead letter {number} that waits; see `ticketrush orders dead-letters`")


# --- how it looks ---------------------------------------------------------------------------


def facts(order: Order) -> dict[str, Any]:
    """An order as JSON and tables have it: times in ISO 8601, None for what has not happened."""
    claim = order.claim
    known = {} if claim is None else {
        "sale": claim.sale,
        "item": claim.item,
        "buyer": claim.buyer,
        "quantity": claim.quantity,
        "amount_minor": claim.amount_minor,
        "currency": claim.currency,
        "expires_at": iso(claim.expires_at_ms),
    }  # fmt: skip
    return {
        "number": order.number,
        "id": order.id,
        "state": order.state.value,
        **known,
        "payment": order.payment or None,
        "held_at": iso_or_none(order.held_at_ms),
        "paid_at": iso_or_none(order.paid_at_ms),
        "cancelled_at": iso_or_none(order.cancelled_at_ms),
        "expired_at": iso_or_none(order.expired_at_ms),
        "refunded_at": iso_or_none(order.refunded_at_ms),
    }


def _cell(known: dict[str, Any], column: str) -> str:
    return str(known.get(column.replace(" ", "_"), ""))


def _readable(payload: bytes) -> str:
    """A message as text that cannot play tricks on a terminal."""
    text = payload.decode("utf-8", "backslashreplace")
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_MAX else text[: SHOWN_MAX - 1] + "…"
