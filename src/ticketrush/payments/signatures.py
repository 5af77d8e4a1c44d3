"""Who sent a webhook: Standard Webhooks (standardwebhooks.com), version v1, HMAC-SHA-256.

The library of the specification makes the signatures. What is accepted is decided here, since its own
`verify` takes one secret, takes several texts for one signature (Base64 with flipped spare bits or stray
letters), and raises different errors for headers that are wrong in different ways.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from standardwebhooks import Webhook

from ticketrush.credentials import check_each, check_webhook_secret
from ticketrush.errors import SettingsError
from ticketrush.payments.protocol import Flaw

SECRETS_MAX: Final = 2
TOLERANCE_S: Final = 300
"""How far a timestamp may be from now, either way: what was overheard cannot be sent again later."""

SIGNATURES_MAX: Final = 8
"""Signatures in one header that are looked at; a sender who changes its secret sends two."""

_ID: Final = re.compile(r"[!-~]{1,256}", re.ASCII)
_TIMESTAMP: Final = re.compile(r"[1-9][0-9]{0,11}", re.ASCII)
_SIGNATURES_BYTES_MAX: Final = 1_024


def sign(secret: str, id: str, at_s: int, body: bytes) -> dict[str, str]:
    """The three headers for `body`, sent at `at_s` (seconds since 1970) as the message `id`."""
    signature = Webhook(secret).sign(id, datetime.fromtimestamp(at_s, UTC), body.decode())
    return {"webhook-id": id, "webhook-timestamp": str(at_s), "webhook-signature": signature}


class Verifier:
    """Knows the webhooks that were signed with one of its secrets within the last five minutes."""

    def __init__(self, secrets: Sequence[str], *, now_s: Callable[[], float] = time.time) -> None:
        """With `secrets`, at most two; without any, nothing is accepted.

        Two are there for the time in which one replaces the other.

        Raises:
            SettingsError: more than two, or one of the wrong form.
        """
        if len(secrets) > SECRETS_MAX:
            raise SettingsError(f"at most {SECRETS_MAX} webhook secrets can be used, not {len(secrets)}")
        try:
            check_each(secrets, check_webhook_secret)
        except ValueError as error:
            raise SettingsError(f"webhook {error}") from None
        self._webhooks = [Webhook(secret) for secret in secrets]
        self._now_s = now_s

    def accepts(self, body: bytes, id: bytes | None, timestamp: bytes | None, signatures: bytes | None) -> bool:
        """Whether the headers show that `body`, byte for byte as it came, is from who has the secret.

        All secrets and signatures are compared, each in constant time.
        """
        return not self.flaw(body, id, timestamp, signatures)

    def flaw(self, body: bytes, id: bytes | None, timestamp: bytes | None, signatures: bytes | None) -> Flaw:
        """Why they do not show that, for the log and not for the sender; "" if they do.

        "timestamp" is a missing or malformed one, or one that is not now; all else is "signature".
        """
        at = (timestamp or b"").decode("ascii", "replace")
        if not _TIMESTAMP.fullmatch(at) or abs(int(at) - self._now_s()) > TOLERANCE_S:
            return "timestamp"
        return "" if self._is_signed(body, id, int(at), signatures) else "signature"

    def _is_signed(self, body: bytes, id: bytes | None, at_s: int, signatures: bytes | None) -> bool:
        if not (id and signatures) or len(signatures) > _SIGNATURES_BYTES_MAX:
            return False
        try:
            name, text = id.decode("ascii"), body.decode("utf-8")
        except UnicodeDecodeError:
            return False
        if not _ID.fullmatch(name):
            return False
        when = datetime.fromtimestamp(at_s, UTC)
        given = signatures.split(b" ")[:SIGNATURES_MAX]
        found = False
        for webhook in self._webhooks:
            expected = webhook.sign(name, when, text).encode("ascii")
            for one in given:
                found |= hmac.compare_digest(one, expected)
        return found
