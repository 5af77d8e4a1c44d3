"""Signatures are those of HS256, for a secret of any length."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest

from ticketrush.admission.tokens import Tokens


@pytest.mark.parametrize("length", [32, 63, 64, 65, 200])
def test_a_token_is_signed_as_the_standard_library_signs(length: int) -> None:
    secret = bytes(range(length))
    token = Tokens([secret], "tickets").mint("ada", ttl_s=60).encode()

    signed, _, signature = token.rpartition(b".")
    digest = hmac.new(secret, signed, hashlib.sha256).digest()
    assert base64.urlsafe_b64encode(digest).rstrip(b"=") == signature
    assert Tokens([bytes(32), secret], "tickets").verify(b"Bearer " + token).sub == "ada"
