"""`ticketrush sale`: what an operator does, over HTTP."""

from __future__ import annotations

import re
import secrets
from datetime import datetime
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.table import Table

from ticketrush.cli import output
from ticketrush.cli.app import Commands, UsageError
from ticketrush.cli.client import Client
from ticketrush.cli.flags import URL_DEFAULT, Token, Url, flag
from ticketrush.model import HOLD_WINDOW_MS_MAX

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    help="Create, show, open and close sales on a running server, and add stock.",
    epilog="The server is --url or TICKETRUSH_URL; the operator's token --token or TICKETRUSH_TOKEN.",
)

TIME_EXAMPLE: Final = "2030-01-20T08:00:00Z"

_NAME: Final = re.compile(r"[A-Za-z0-9._~-]{1,64}")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")

Name = Annotated[str, typer.Argument(metavar="SALE", help="The sale's id.")]


def _json(command: str) -> Any:
    return flag(f"SALE_{command}_JSON", "Print the server's answer as JSON.", "--json")


@app.command(
    epilog="Examples: `ticketrush sale create g1 --item second=10000 --open` · "
    "`ticketrush sale create g2 --item second=900,limit=2,price=55300 --item first=90,price=93300 "
    "--opens-at 2030-01-20T08:00:00Z`"
)
def create(
    sale: Name,
    item: Annotated[
        list[str],
        flag(
            "SALE_CREATE_ITEM",
            "What is sold: ID=UNITS, then if wanted ,limit=UNITS (for one buyer) ,price=MINOR (in cents or fen) "
            ",currency=CODE. May be repeated.",
            "--item",
            metavar="ID=UNITS[,...]",
        ),
    ],
    opens_at: Annotated[
        str | None, flag("SALE_CREATE_OPENS_AT", "When it opens, ISO 8601 UTC.", "--opens-at", metavar="TIME")
    ] = None,
    closes_at: Annotated[
        str | None, flag("SALE_CREATE_CLOSES_AT", "When it closes, ISO 8601 UTC.", "--closes-at", metavar="TIME")
    ] = None,
    hold_window_s: Annotated[
        float,
        flag(
            "SALE_CREATE_HOLD",
            "How long a buyer may take to pay, in seconds.",
            "--hold",
            metavar="SECONDS",
            min=0.001,
            max=HOLD_WINDOW_MS_MAX / 1_000,
        ),
    ] = 300,
    open_now: Annotated[bool, flag("SALE_CREATE_OPEN", "Open it at once.", "--open")] = False,
    url: Url = URL_DEFAULT,
    token: Token = None,
    as_json: Annotated[bool, _json("CREATE")] = False,
) -> None:
    """Put a sale on the server. The same sale again is harmless; another one of that id is refused."""
    path = _path(sale)
    _check_time("--opens-at", opens_at)
    _check_time("--closes-at", closes_at)
    whole = int(hold_window_s) if hold_window_s == int(hold_window_s) else hold_window_s
    body: dict[str, Any] = {"items": [_item(each) for each in item], "hold_window_s": whole}
    if opens_at is not None:
        body["opens_at"] = opens_at
    if closes_at is not None:
        body["closes_at"] = closes_at
    client = Client(url, token)
    answer = client.call("PUT", path, body)
    if open_now:
        answer = client.call("POST", f"{path}/open")
    _print(answer, as_json=as_json)


@app.command()
def show(
    sale: Name,
    url: Url = URL_DEFAULT,
    token: Token = None,
    as_json: Annotated[bool, _json("SHOW")] = False,
) -> None:
    """Show a sale and its levels: available, held, sold."""
    _print(Client(url, token).call("GET", _path(sale)), as_json=as_json)


@app.command("hash")
def ticket_hash(
    sale: Name,
    url: Url = URL_DEFAULT,
    token: Token = None,
    as_json: Annotated[bool, flag("SALE_HASH_JSON", "Print the hashes as JSON.", "--json")] = False,
) -> None:
    """Show a sale as the hash of the well-known Redis program: ticket_total_nums and ticket_sold_nums.

    ticket_total_nums is the capacity, ticket_sold_nums what is held and sold: that program counts a
    ticket when it is taken, not when it is paid. ticket_hash_key is the whole sale, then each item.
    The ledger may be of any kind; none keeps such a hash (docs/operating.md says what Redis has instead).
    """
    items = Client(url, token).call("GET", _path(sale)).get("items", [])
    hashes = {f"ticket_hash_key:{item['id']}": _numbers(item) for item in items}
    fields = ("ticket_total_nums", "ticket_sold_nums")
    hashes = {"ticket_hash_key": {field: sum(each[field] for each in hashes.values()) for field in fields}} | hashes
    if as_json:
        output.as_json(hashes)
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("key")
    for field in fields:
        table.add_column(field, justify="right")
    for key, numbers in hashes.items():
        table.add_row(key, *(str(numbers[field]) for field in fields))
    output.console().print(table)


def _numbers(item: dict[str, Any]) -> dict[str, int]:
    return {"ticket_total_nums": item["capacity"], "ticket_sold_nums": item["held"] + item["sold"]}


@app.command("open")
def open_sale(
    sale: Name,
    url: Url = URL_DEFAULT,
    token: Token = None,
    as_json: Annotated[bool, _json("OPEN")] = False,
) -> None:
    """Open a sale now."""
    _print(Client(url, token).call("POST", f"{_path(sale)}/open"), as_json=as_json)


@app.command()
def close(
    sale: Name,
    url: Url = URL_DEFAULT,
    token: Token = None,
    as_json: Annotated[bool, _json("CLOSE")] = False,
) -> None:
    """Close a sale now. Holds stay valid and may be paid until they expire."""
    _print(Client(url, token).call("POST", f"{_path(sale)}/close"), as_json=as_json)


@app.command(
    "add-stock",
    epilog="Example: `ticketrush sale add-stock g1 second 100 --key extra-carriage`",
    context_settings={"ignore_unknown_options": True},  # or -5 is an option that there is not, instead of a number
)
def add_stock(
    sale: Name,
    item: Annotated[str, typer.Argument(metavar="ITEM", help="The item's id.")],
    units: Annotated[str, typer.Argument(metavar="UNITS", help="How many more.")],
    key: Annotated[
        str | None,
        flag(
            "SALE_ADD_STOCK_KEY",
            "Idempotency key: with the same key the units are added once, however often this is run.",
            "--key",
            show_default="a new one",
        ),
    ] = None,
    url: Url = URL_DEFAULT,
    token: Token = None,
    as_json: Annotated[bool, _json("ADD_STOCK")] = False,
) -> None:
    """Add units to an item, once for each key."""
    if not units.isdecimal() or not int(units):
        raise UsageError(f"UNITS is {units!r}: write how many units more, 1 at least; stock cannot be taken away")
    _check_name("item", item)
    path = f"{_path(sale)}/items/{item}/stock"
    used = key or f"cli-{secrets.token_hex(8)}"
    if key is None:
        # Printed before the call: after a lost answer, only the same key makes a repetition harmless.
        output.say(f"key {used} (repeat with --key {used} if the answer gets lost)", aside=True)
    _print(Client(url, token).call("POST", path, {"units": int(units)}, key=used), as_json=as_json)


def _item(text: str) -> dict[str, Any]:
    """The item that --item describes.

    Raises:
        UsageError: it is not ID=UNITS[,limit=UNITS][,price=MINOR][,currency=CODE].
    """
    (name, _, units), *more = (part.partition("=") for part in text.split(","))
    _check_name("item", name.strip())
    item: dict[str, Any] = {"id": name.strip(), "capacity": _whole(units, text)}
    for word, _, value in more:
        match word.strip():
            case "limit":
                item["purchase_limit"] = _whole(value, text, least=1)
            case "price":
                item["price_minor"] = _whole(value, text)
            case "currency" if not _CURRENCY.fullmatch(value.strip()):
                raise UsageError(f"--item {text}: {value!r} is no currency; write three letters, like CNY")
            case "currency":
                item["currency"] = value.strip()
            case other:
                raise UsageError(f"--item {text}: {other!r} is none of limit, price, currency")
    return item


def _whole(value: str, text: str, *, least: int = 0) -> int:
    try:
        number = int(value)
    except ValueError:
        raise UsageError(
            f"--item {text}: {value!r} is not a whole number; write it like second=10000,limit=2,price=55300"
        ) from None
    if number < least:
        raise UsageError(f"--item {text}: {number} is too few; write {least} or more")
    return number


def _path(sale: str) -> str:
    """The path of a sale on the server. Raises UsageError for what names none."""
    _check_name("sale", sale)
    return f"/v1/sales/{sale}"


def _check_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot name the {what}: a name is 1 to 64 of A-Z a-z 0-9 . _ ~ -")


def _check_time(flag: str, text: str | None) -> None:
    try:
        msgspec.convert(text, Annotated[datetime, msgspec.Meta(tz=True)] | None)
    except msgspec.ValidationError:
        raise UsageError(f"{flag} {text}: write it like {TIME_EXAMPLE}") from None


def _print(answer: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        output.as_json(answer)
        return
    output.say(_headline(answer), "bold")
    table = Table(box=None, pad_edge=False)
    table.add_column("item")
    columns = ("capacity", "available", "leased", "held", "sold", "purchase_limit")
    for column in (*columns, "price_minor"):
        table.add_column(column.replace("_", " "), justify="right")
    for item in answer.get("items", ()):
        numbers = [item.get(column) for column in columns]
        price = f"{item['price_minor']:,} {item.get('currency', '')}".strip() if item.get("price_minor") else ""
        table.add_row(str(item.get("id")), *("" if cell is None else f"{cell:,}" for cell in numbers), price)
    output.console().print(table)


def _headline(sale: dict[str, Any]) -> str:
    """A sale in a sentence: its state, since or until when, and how long holds last."""
    state, opens_at, closes_at = sale.get("state"), sale.get("opens_at"), sale.get("closes_at")
    match state:
        case "open":
            words = "is open" + (f" since {opens_at}" if opens_at else "")
        case "closed":
            words, closes_at = "is closed" + (f" since {closes_at}" if closes_at else ""), None
        case "not_open":
            words = "is not open yet; " + (f"it opens {opens_at}" if opens_at else "nobody has said when it opens")
        case other:
            words = f"is {other or '?'}"
    parts = [f"{sale.get('id', '?')} {words}"]
    if closes_at:
        parts.append(f"it closes {closes_at}")
    if (hold_s := sale.get("hold_window_s")) is not None:
        parts.append(f"holds last {hold_s:g} s")
    return "; ".join(parts)
