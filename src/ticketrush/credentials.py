"""What secrets must look like, and new ones. No message ever shows one."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Callable, Iterable
from typing import Final

from ticketrush.addresses import without_password

TOKEN_SECRET_BYTES_MIN: Final = 32
"""The shortest secret for HS256: as long as its hash (RFC 7518, section 3.2)."""

WEBHOOK_PREFIX: Final = "whsec_"
WEBHOOK_SECRET_BYTES: Final = range(24, 65)
"""How long a webhook secret may be (Standard Webhooks)."""

_WITH_PASSWORD: Final = frozenset(("ledger", "orders", "payment_gateway"))
"""Settings that are URLs and may have a password in them."""

_PROPERTY: Final = re.compile(r"[a-z]+(?:[._][a-z0-9]+)*")

_WHERE_TO: Final = (
    "bootstrap.servers",
    "metadata.broker.list",
    "acks",
    "request.required.acks",
    "enable.idempotence",
    "transactional.id",
)
_FROM_WHERE: Final = (
    "group.id",
    "group.instance.id",
    "auto.offset.reset",
    "enable.auto.commit",
    "auto.commit.enable",
    "enable.auto.offset.store",
    "enable.partition.eof",
)
_OURS: Final = frozenset(_WHERE_TO + _FROM_WHERE)
"""Properties of the clients of Kafka that cannot be changed: what is promised depends on them."""


def new_webhook_secret() -> str:
    """A fresh random secret for webhooks, as text."""
    return WEBHOOK_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode("ascii")


def check_token_secret(secret: str) -> None:
    """Raises ValueError if `secret` is too short to sign tokens."""
    length = len(secret.encode())
    if length < TOKEN_SECRET_BYTES_MIN:
        raise ValueError(
            f"has {length} bytes and needs {TOKEN_SECRET_BYTES_MIN}; make one with: ticketrush token secret"
        )


def check_webhook_secret(secret: str) -> None:
    """Raises ValueError unless `secret` is whsec_ and the Base64 of 24 to 64 bytes."""
    text = secret.removeprefix(WEBHOOK_PREFIX)
    try:
        length = len(base64.b64decode(text + "=" * (-len(text) % 4), validate=True))
    except (binascii.Error, ValueError):
        length = -1
    if text == secret or length not in WEBHOOK_SECRET_BYTES:
        raise ValueError(
            f"is not {WEBHOOK_PREFIX} and the Base64 of 24 to 64 bytes; make one with: ticketrush token webhook-secret"
        )


def check_kafka_option(option: str) -> None:
    """Raises ValueError unless `option` is name=value, and no property that is ours to set."""
    name, mark, value = option.partition("=")
    if not mark or not value or not _PROPERTY.fullmatch(name.strip()):  # which may be a piece of a password
        raise ValueError("is not name=value; write a value that has a comma in it into the TOML file, in a list")
    if name.strip() in _OURS or name.strip().endswith("_cb"):
        raise ValueError(f"sets {name.strip()}, which cannot be changed: leave it out")


def check_each(secrets: Iterable[str], check: Callable[[str], None], what: str = "secret") -> None:
    """Raises ValueError with the number of the first of `secrets` (`what` they are) that `check` does not let pass."""
    for number, secret in enumerate(secrets, start=1):
        try:
            check(secret)
        except ValueError as error:
            raise ValueError(f"{what} {number} {error}") from None


SECRET_SETTINGS: Final = {
    "token_secrets": ("secret", check_token_secret),
    "webhook_secrets": ("secret", check_webhook_secret),
    "kafka_options": ("part", check_kafka_option),
}
"""Settings that are tuples of secrets: what one of them is called, and what it must look like."""


def check_setting(name: str, values: Iterable[str]) -> None:
    """Raises ValueError with the number of the first of the values of one of `SECRET_SETTINGS` that is not good."""
    what, check = SECRET_SETTINGS[name]
    check_each(values, check, what)


def shown(name: str, value: object) -> str:
    """The value of the setting `name` as text, without what nobody is to see."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"{len(value)} (hidden)" if value else "none"
    if value is None:
        return "none"
    return without_password(str(value)) if name in _WITH_PASSWORD else str(value)


def shown_as_given(name: str, value: object) -> str:
    """The same of a value that was given and may be wrong: where a secret may be in it, nothing is shown."""
    is_hidden = name in SECRET_SETTINGS or (name in _WITH_PASSWORD and "@" in str(value))
    return "(hidden)" if is_hidden else shown(name, value)
