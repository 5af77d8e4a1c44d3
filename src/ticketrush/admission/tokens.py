"""Who the buyer is: bearer JWTs (RFC 7519) signed with HS256 (RFC 7515, RFC 7518).

Two secrets may be valid at once, so that one can be replaced without a moment's outage: put the
new one first, wait until the old tokens have expired, drop the old one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections.abc import Sequence
from typing import Final

import msgspec

from ticketrush.errors import SettingsError, Unauthorized

SECRET_BYTES_MIN: Final = 32
"""RFC 7518, 3.2: a key at least as long as the hash."""

TOKEN_BYTES_MAX: Final = 4_096

Keyed = tuple["hashlib._Hash", "hashlib._Hash"]
"""The inner and the outer hash of an HMAC, the key in both."""

OPERATOR: Final = "operator"
"""The scope that lets its bearer run sales."""


class Claims(msgspec.Struct, frozen=True, gc=False):
    """What a token says: the buyer (`sub`), until when (`exp`, seconds), for whom (`aud`), `scope`."""

    sub: str
    exp: float
    aud: str | list[str] = ""
    nbf: float = 0
    scope: str = ""

    @property
    def is_operator(self) -> bool:
        """Whether the bearer may run sales."""
        return OPERATOR in self.scope.split()


class _Header(msgspec.Struct, frozen=True, gc=False):
    alg: str
    crit: list[str] | None = None


_claims_of = msgspec.json.Decoder(Claims).decode
_header_of = msgspec.json.Decoder(_Header).decode
_OUR_HEADER: Final = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"JWT"}').rstrip(b"=")


def new_secret() -> str:
    """A fresh random secret, as text."""
    return secrets.token_urlsafe(48)


def is_visible(text: str) -> bool:
    """Whether `text` is 1 to 128 visible ASCII characters, as buyers' ids and keys must be."""
    return 0 < len(text) <= 128 and text.isascii() and text.isprintable() and " " not in text


class Tokens:
    """Mints and verifies tokens for one audience."""

    def __init__(self, secrets: Sequence[bytes], audience: str) -> None:
        """`secrets` are one or two; the first mints, all verify.

        Raises:
            SettingsError: none, more than two, or one shorter than 32 bytes.
        """
        if not 1 <= len(secrets) <= 2:
            raise SettingsError(f"one or two token secrets are needed, not {len(secrets)}")
        for number, secret in enumerate(secrets, 1):
            if len(secret) < SECRET_BYTES_MIN:
                raise SettingsError(
                    f"token secret {number} has {len(secret)} bytes, at least {SECRET_BYTES_MIN} are needed; "
                    "`ticketrush token secret` prints a good one"
                )
        self._keyed = tuple(_keyed(secret) for secret in secrets)
        self._audience = audience
        self._headers = {_OUR_HEADER}

    def mint(self, sub: str, *, ttl_s: float, scope: str = "") -> str:
        """A token for `sub` that is valid for `ttl_s` seconds."""
        claims: dict[str, object] = {"sub": sub, "exp": int(time.time() + ttl_s), "aud": self._audience}
        if scope:
            claims["scope"] = scope
        signed = _OUR_HEADER + b"." + base64.urlsafe_b64encode(msgspec.json.encode(claims)).rstrip(b"=")
        return (signed + b"." + _padded_signature(self._keyed[0], signed)[:-1]).decode("ascii")

    def verify(self, authorization: bytes | None) -> Claims:
        """The claims of the token in an ``Authorization`` header.

        Raises:
            Unauthorized: there is none, or it proves nothing; says which, never what it should be.
        """
        if authorization is None:
            raise Unauthorized("no Authorization header; send `Authorization: Bearer <token>`")
        if not authorization.startswith(b"Bearer ") and authorization[:7].lower() != b"bearer ":
            raise Unauthorized("the Authorization header is not of the form `Bearer <token>`")
        token = authorization[7:].strip()
        if len(token) > TOKEN_BYTES_MAX:
            raise Unauthorized(f"the token is longer than {TOKEN_BYTES_MAX} bytes")
        signed, _, given = token.rpartition(b".")
        padded = given + b"="
        for keyed in self._keyed:
            if hmac.compare_digest(_padded_signature(keyed, signed), padded):
                break
        else:
            raise Unauthorized("the token's signature is not ours")
        header, _, payload = signed.partition(b".")
        if header not in self._headers:
            self._check_header(header)
        try:
            claims = _claims_of(binascii.a2b_base64(payload.translate(_STANDARD) + b"=="))
        except (msgspec.MsgspecError, binascii.Error, ValueError, RecursionError) as error:
            raise Unauthorized(f"the token's claims cannot be read: {error}") from error
        now_s = time.time()
        if claims.exp <= now_s or claims.nbf > now_s or claims.aud != self._audience or not is_visible(claims.sub):
            self._check_claims(claims)
        return claims

    def _check_header(self, header: bytes) -> None:
        try:
            fields = _header_of(base64.urlsafe_b64decode(header + b"=="))
        except (msgspec.MsgspecError, binascii.Error, ValueError, RecursionError) as error:
            raise Unauthorized("the token's header cannot be read") from error
        if fields.alg != "HS256" or fields.crit is not None:
            raise Unauthorized("the token is not signed with HS256, or asks for an unknown extension")
        if len(self._headers) < 16:  # the few ways in which libraries write the same header
            self._headers.add(header)

    def _check_claims(self, claims: Claims) -> None:
        now_s = time.time()
        if claims.exp <= now_s:
            raise Unauthorized("the token has expired; get a new one")
        if claims.nbf > now_s:
            raise Unauthorized("the token is not valid yet")
        if claims.aud != self._audience and (isinstance(claims.aud, str) or self._audience not in claims.aud):
            raise Unauthorized("the token is for another audience")
        if not is_visible(claims.sub):
            raise Unauthorized("the token's `sub` is not 1 to 128 visible ASCII characters")


def _keyed(secret: bytes) -> Keyed:
    """HMAC-SHA-256 (RFC 2104) under `secret`, as far as it does not depend on the message.

    Two copies of a hash cost half of one copy of an `hmac.HMAC`, which keeps three.
    """
    if len(secret) > _BLOCK_BYTES:
        secret = hashlib.sha256(secret).digest()
    secret = secret.ljust(_BLOCK_BYTES, b"\0")
    return hashlib.sha256(secret.translate(_INNER)), hashlib.sha256(secret.translate(_OUTER))


def _padded_signature(keyed: Keyed, signed: bytes) -> bytes:
    """The signature of `signed` in URL-safe Base64 with its one "="."""
    inner, outer = keyed[0].copy(), keyed[1].copy()
    inner.update(signed)
    outer.update(inner.digest())
    return binascii.b2a_base64(outer.digest(), newline=False).translate(_URLSAFE)


_BLOCK_BYTES: Final = 64
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))
_STANDARD: Final = bytes.maketrans(b"-_", b"+/")
_URLSAFE: Final = bytes.maketrans(b"+/", b"-_")
