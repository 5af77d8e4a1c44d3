"""Whose webhooks are believed: of all messages that are not exactly what was signed, within five minutes, none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from ticketrush.credentials import check_webhook_secret, new_webhook_secret
from ticketrush.errors import SettingsError
from ticketrush.payments.signatures import TOLERANCE_S, Verifier, sign

NOW_S = 1_790_000_000
SECRET = new_webhook_secret()
OTHER = new_webhook_secret()
BODY = b'{"type":"payment.approved","data":{"order":"o1","amount_minor":700}}'

Message = tuple[bytes, bytes | None, bytes | None, bytes | None]


def message(*, body: bytes = BODY, at_s: int = NOW_S, secret: str = SECRET) -> Message:
    """A body, and its id, timestamp and signature."""
    headers = sign(secret, "msg_1", at_s, body)
    names = ("webhook-id", "webhook-timestamp", "webhook-signature")
    return (body, *(headers[name].encode() for name in names))  # type: ignore[return-value]


def accepts(told: Message, *secrets: str, now_s: float = NOW_S) -> bool:
    return Verifier(secrets or (SECRET,), now_s=lambda: now_s).accepts(*told)


def damaged(told: Message) -> Iterator[Message]:
    """The message with one bit flipped, one byte left out or doubled, anywhere in it; and with parts missing."""
    for part in range(4):
        text = told[part]
        assert text is not None
        for at in range(len(text)):
            for bit in range(8):
                yield _with(told, part, text[:at] + bytes((text[at] ^ 1 << bit,)) + text[at + 1 :])
            yield _with(told, part, text[:at] + text[at + 1 :])
            yield _with(told, part, text[:at] + text[at : at + 1] + text[at:])
        yield _with(told, part, b"")
        if part:
            yield _with(told, part, None)


def _with(told: Message, part: int, text: bytes | None) -> Message:
    return (*told[:part], text, *told[part + 1 :])  # type: ignore[return-value]


def test_what_was_signed_is_accepted() -> None:
    assert accepts(message())


def test_the_log_is_told_whether_time_or_signature_is_wrong() -> None:
    verifier = Verifier((SECRET,), now_s=lambda: NOW_S)
    assert verifier.flaw(*message()) == ""
    assert verifier.flaw(*message(secret=OTHER)) == "signature"
    assert verifier.flaw(*message(at_s=NOW_S - TOLERANCE_S - 1)) == "timestamp"
    assert verifier.flaw(BODY, b"msg_1", None, None) == "timestamp"
    assert verifier.flaw(BODY, None, str(NOW_S).encode(), None) == "signature"


def test_nothing_that_differs_in_a_bit_is_accepted() -> None:
    verifier = Verifier((SECRET,), now_s=lambda: NOW_S)
    tried = [told for told in damaged(message()) if told != message()]
    assert len(tried) > 1_000
    assert [told for told in tried if verifier.accepts(*told)] == []


def careless(told: Message) -> bool:
    """The library's own check, which reads several texts as one signature."""
    body, id, timestamp, signature = (part or b"" for part in told)
    headers = {"webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": signature}
    try:
        Webhook(SECRET).verify(body, {name: value.decode() for name, value in headers.items()}, json_parse=False)
    except (WebhookVerificationError, ValueError):
        return False
    return True


def test_a_careless_check_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    import datetime as dt  # noqa: PLC0415 - the real one, before it is replaced

    class Then(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> dt.datetime:  # type: ignore[override]
            return dt.datetime.fromtimestamp(NOW_S, tz)

    monkeypatch.setattr("standardwebhooks.webhooks.datetime", Then)
    assert careless(message())
    assert any(careless(told) for told in damaged(message()) if told != message())


@pytest.mark.parametrize(
    ("age_s", "believed"),
    [
        (0, True),
        (TOLERANCE_S, True),
        (TOLERANCE_S + 1, False),
        (-TOLERANCE_S, True),
        (-TOLERANCE_S - 1, False),
        (10**6, False),
    ],
)
def test_a_timestamp_may_be_five_minutes_away_either_way(age_s: int, believed: bool) -> None:
    assert accepts(message(at_s=NOW_S - age_s)) is believed


def test_what_was_overheard_cannot_be_sent_again_later() -> None:
    overheard = message()
    assert accepts(overheard, now_s=NOW_S + TOLERANCE_S)
    assert not accepts(overheard, now_s=NOW_S + TOLERANCE_S + 1)


@pytest.mark.parametrize("timestamp", [b"0", b"-1", b"1e9", b"1790000000.0", b" 1790000000", b"01790000000", b"9" * 30])
def test_a_timestamp_is_a_plain_number(timestamp: bytes) -> None:
    body, id, _, signature = message()
    assert not accepts((body, id, timestamp, signature))


def test_secrets_are_changed_without_a_gap() -> None:
    old, new = message(secret=SECRET), message(secret=OTHER)
    steps: list[Callable[[Message], bool]] = [
        lambda told: accepts(told, SECRET),
        lambda told: accepts(told, SECRET, OTHER),
        lambda told: accepts(told, OTHER),
    ]
    assert [(step(old), step(new)) for step in steps] == [(True, False), (True, True), (False, True)]


def test_a_sender_may_sign_with_both_secrets_at_once() -> None:
    body, id, timestamp, first = message(secret=OTHER)
    _, _, _, second = message(secret=SECRET)
    assert first is not None
    assert second is not None
    assert accepts((body, id, timestamp, first + b" " + second))
    assert accepts((body, id, timestamp, b"v1a,x " + second))
    assert not accepts((body, id, timestamp, b" ".join([b"v1,AAAA"] * 8 + [second]))), "signatures are bounded"
    assert not accepts((body, id, timestamp, second + b" " + b"x" * 2_000)), "so are their bytes"


def test_without_a_secret_nothing_is_accepted() -> None:
    assert not Verifier((), now_s=lambda: NOW_S).accepts(*message())


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_AAAA", "whsec_" + "A" * 100, "whsec_" + "ä" * 40, "A" * 44])
def test_a_secret_of_the_wrong_form_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(SettingsError, match="webhook-secret") as refused:
        Verifier((SECRET, secret))
    assert "secret 2" in str(refused.value)
    assert len(secret) < 12 or secret not in str(refused.value)


def test_three_secrets_are_refused() -> None:
    with pytest.raises(SettingsError, match="at most 2"):
        Verifier((SECRET, OTHER, SECRET))


def test_a_new_secret_is_good() -> None:
    check_webhook_secret(new_webhook_secret())
    assert new_webhook_secret() != new_webhook_secret()


def test_the_vector_in_the_documentation_is_right() -> None:
    page = (Path(__file__).parents[2] / "docs/payments.md").read_text(encoding="utf-8")
    example = page.split("```http\nPOST /v1/webhooks/payments HTTP/1.1\n")[1].split("\n```")[0]
    head, _, body = example.partition("\n\n")
    headers = dict(line.split(": ", 1) for line in head.splitlines())
    secret = page.split("signed with the secret `")[1].split("`")[0]
    assert (
        headers.items() >= sign(secret, headers["webhook-id"], int(headers["webhook-timestamp"]), body.encode()).items()
    )
