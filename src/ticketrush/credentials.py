"""What secrets must look like, and new ones. No message ever shows one."""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Callable, Iterable
from typing import Final

TOKEN_SECRET_BYTES_MIN: Final = 32
"""The shortest secret for HS256: as long as its hash (RFC 7518, section 3.2)."""

WEBHOOK_PREFIX: Final = "whsec_"
WEBHOOK_SECRET_BYTES: Final = range(24, 65)
"""How long a webhook secret may be (Standard Webhooks)."""


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


def check_each(secrets: Iterable[str], check: Callable[[str], None]) -> None:
    """Raises ValueError with the number of the first of `secrets` that `check` does not let pass."""
    for number, secret in enumerate(secrets, start=1):
        try:
            check(secret)
        except ValueError as error:
            raise ValueError(f"secret {number} {error}") from None
