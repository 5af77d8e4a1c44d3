"""Which gateway a URL names, and what needs more than the core does.

The core sells without an HTTP client and without signatures of webhooks; both come with the extra `payments`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ticketrush.errors import SettingsError
from ticketrush.payments.protocol import Flaw, Gateway, Verifies
from ticketrush.payments.service.habits import Habits
from ticketrush.payments.test_gateway import TestGateway


def gateway_of(url: str) -> Gateway:
    """The payment gateway at `url`, or without one a test gateway in this process.

    Raises:
        SettingsError: what speaks to a gateway is not installed.
    """
    if not url:
        return TestGateway()
    try:
        from ticketrush.payments.http_gateway import HttpGateway  # noqa: PLC0415 - an extra, not always installed
    except ModuleNotFoundError as error:
        raise _without_extra(error) from error
    return HttpGateway(url)


def verifier_of(secrets: Sequence[str]) -> Verifies:
    """What accepts webhooks that are signed with one of `secrets`; without any, it accepts none.

    Raises:
        SettingsError: a secret is of the wrong form, or what verifies is not installed.
    """
    if not secrets:
        return _Nobody()
    try:
        from ticketrush.payments.signatures import Verifier  # noqa: PLC0415 - an extra, not always installed
    except ModuleNotFoundError as error:
        raise _without_extra(error) from error
    return Verifier(secrets)


class _Nobody:
    """Accepts no webhook."""

    def flaw(self, body: bytes, id: bytes | None, timestamp: bytes | None, signatures: bytes | None) -> Flaw:
        return "signature"


def sign_webhook(secret: str, id: str, at_s: int, body: bytes) -> dict[str, str]:
    """The headers of a webhook; see `ticketrush.payments.signatures.sign`.

    Raises:
        SettingsError: what signs is not installed.
    """
    try:
        from ticketrush.payments.signatures import sign  # noqa: PLC0415 - an extra, not always installed
    except ModuleNotFoundError as error:
        raise _without_extra(error) from error
    return sign(secret, id, at_s, body)


def serve_test_gateway(
    port: int, urls: Sequence[str], secret: str, *, habits: Habits, file: str, announce: Callable[[str], None]
) -> None:
    """Serve the test gateway; see `ticketrush.payments.service.app.serve`.

    Raises:
        SettingsError: the port, the file or the secret cannot be used, or what it needs is not installed.
    """
    try:
        from ticketrush.payments.service.app import serve  # noqa: PLC0415 - an extra, not always installed
    except ModuleNotFoundError as error:
        raise _without_extra(error) from error
    serve(port, urls, secret, habits, file=file, announce=announce)


def _without_extra(error: ModuleNotFoundError) -> Exception:
    if error.name is None or not error.name.startswith(("aiohttp", "standardwebhooks")):
        return error
    return SettingsError("a payment gateway over HTTP needs more: pip install 'ticketrush[payments]'")
