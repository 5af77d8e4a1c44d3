"""`ticketrush test-gateway`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Final

from ticketrush import logs
from ticketrush.cli import output
from ticketrush.cli.app import UsageError
from ticketrush.cli.flags import flag
from ticketrush.payments.cards import LATE_MS
from ticketrush.payments.service.habits import Habits
from ticketrush.payments.wiring import serve_test_gateway

EPILOG = """Example, all in one shell: `export TICKETRUSH_WEBHOOK_SECRETS=$(ticketrush token webhook-secret)` ·
`ticketrush test-gateway --port 9000 --webhook-url http://127.0.0.1:8000/v1/webhooks/payments &` ·
`TICKETRUSH_PAYMENT_GATEWAY=http://127.0.0.1:9000 ticketrush serve --open` ·
`--delay-ms 3000 --repeat 3 --reorder` makes it as unpleasant as the real ones are."""

URLS_MAX: Final = 16
REPEAT_MAX: Final = 20


def serve(
    webhook_url: Annotated[
        list[str],
        flag(
            "TEST_GATEWAY_WEBHOOK_URL",
            "Where webhooks go: /v1/webhooks/payments of a node. Give it several times for several nodes; each "
            "try goes to the next one.",
            "--webhook-url",
            metavar="URL",
        ),
    ],
    webhook_secrets: Annotated[
        str,
        flag(
            "WEBHOOK_SECRETS",
            "What signs the webhooks, and must be given: whsec_ and Base64. Of two secrets separated by a comma, as "
            "nodes take them, the first.",
            "--secret",
            metavar="SECRET",
        ),
    ] = "",
    at_port: Annotated[
        int,
        flag("TEST_GATEWAY_PORT", "Port to listen on, on 127.0.0.1; 0 takes a free one.", "--port", min=0, max=65_535),
    ] = 9000,
    delay_ms: Annotated[
        int,
        flag(
            "TEST_GATEWAY_DELAY_MS",
            "Decide every charge so many milliseconds later; it is pending until then.",
            "--delay-ms",
            min=0,
            max=3_600_000,
        ),
    ] = 0,
    repeat: Annotated[
        int,
        flag("TEST_GATEWAY_REPEAT", "Send each webhook so many times.", "--repeat", min=1, max=REPEAT_MAX),
    ] = 1,
    reorder: Annotated[
        bool,
        flag("TEST_GATEWAY_REORDER", "Send each webhook at a random moment of the next 300 ms.", "--reorder"),
    ] = False,
    decline_share: Annotated[
        float,
        flag(
            "TEST_GATEWAY_DECLINE_SHARE", "Decline this share of the charges, 0 to 1.", "--decline-share", min=0, max=1
        ),
    ] = 0.0,
    seed: Annotated[
        int | None,
        flag("TEST_GATEWAY_SEED", "Draw the same lots again.", "--seed", show_default="other ones each time"),
    ] = None,
    file: Annotated[
        Path | None,
        flag(
            "TEST_GATEWAY_FILE",
            "Keep charges and undelivered webhooks in this SQLite file, so that a restart goes on.",
            "--file",
            show_default="in memory, forgotten at the end",
        ),
    ] = None,
    as_json: Annotated[
        bool, flag("TEST_GATEWAY_JSON", "Announce the address as a line of JSON, once it serves.", "--json")
    ] = False,
) -> None:
    """Serve a payment gateway for trying things out, on this machine only. No money moves.

    It takes charges over HTTP and tells of each decision by a signed webhook (Standard Webhooks), again
    and again until that is answered 2xx: 40 times within about five minutes, then it gives up.

    The cards: approve is approved, decline is declined, both at once unless there is a delay; late is
    approved after two seconds, or after the delay that the payment asks for.

    The calls: POST /charges with order, amount_minor, currency, card, delay_ms · POST /charges/ID/refund ·
    GET /charges/ID · GET /charges?order=ID · GET /charges?after=ID · GET /healthz. An order with a charge that is
    pending or approved gets that one again, so that nobody is charged twice; an Idempotency-Key gets the
    same charge whatever became of it.
    """
    if not webhook_secrets:
        raise UsageError(
            "--secret is missing, so no node could believe the webhooks: make one with `ticketrush token "
            "webhook-secret`, and set it as TICKETRUSH_WEBHOOK_SECRETS here and at the nodes"
        )
    if len(webhook_url) > URLS_MAX:
        raise UsageError(f"{len(webhook_url)} webhook URLs are more than {URLS_MAX}")
    for url in webhook_url:
        if not url.startswith(("http://", "https://")):
            raise UsageError(f"--webhook-url {url!r}: write it like http://127.0.0.1:8000/v1/webhooks/payments")
    logs.configure("info", "console")
    serve_test_gateway(
        at_port,
        webhook_url,
        webhook_secrets.partition(",")[0].strip(),
        habits=Habits(delay_ms, repeat, reorder, decline_share, seed),
        file=str(file) if file else ":memory:",
        announce=lambda url: _announce(url, webhook_url, as_json=as_json),
    )


def _announce(url: str, webhook_urls: list[str], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"event": "serving", "url": url, "pid": os.getpid()}), flush=True)
        return
    output.say(f"a test gateway serves at {url} (pid {os.getpid()}); no money moves", "bold")
    for each in webhook_urls:
        output.say(f"  webhooks    {each}")
    output.say(f"  cards       approve, decline, late (after {LATE_MS / 1_000:g} s)")
    output.say(f"  read        {url}/charges    stop with Ctrl-C")
