"""The one hot call, ``POST /v1/sales/{sale}/reservations``: from bytes to a command, from an outcome to bytes.

The fast lane and the ASGI application both go through here, so they cannot differ.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from ticketrush import model as m
from ticketrush.admission.tokens import Tokens, is_visible
from ticketrush.engine import Engine
from ticketrush.errors import InvalidRequest, Unauthorized
from ticketrush.http import problems
from ticketrush.http.answers import JSON, Answer, ReservationView, encode
from ticketrush.model import Refused, Reserve

REPLAYED: Final = (b"idempotent-replayed", b"true")


class PurchaseBody(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """What a buyer asks for."""

    item: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    quantity: Annotated[int, msgspec.Meta(ge=1, le=m.QUANTITY_MAX)] = 1


_body_of = msgspec.json.Decoder(PurchaseBody).decode


_A_TIME: Final = "Expected a time like 2030-01-20T08:00:00Z"
_OURS: Final = {
    "Invalid RFC3339 encoded datetime": _A_TIME,
    "Expected `datetime` with a timezone component": _A_TIME,
    "Expected `str` matching regex '^[A-Za-z0-9._~-]{1,64}$'": "Expected 1 to 64 of A-Z a-z 0-9 . _ ~ -",
    "Expected `str` matching regex '^[A-Z]{3}$'": "Expected three letters A-Z",
    "Expected `str` matching regex '^[!-~]{1,128}$'": "Expected 1 to 128 visible ASCII characters",
}
"""What the parser says -> what people understand."""


def decode_error(error: Exception) -> InvalidRequest:
    """What was wrong with a JSON body, as 400 (not JSON) or 422 (JSON, but not what is wanted)."""
    if isinstance(error, msgspec.ValidationError):
        words = str(error)
        for parser, ours in _OURS.items():
            words = words.replace(parser, ours)
        return InvalidRequest(f"The body is not what this call takes: {words}")
    return InvalidRequest(f"The body is not valid JSON: {error}", code="malformed", status=400)


class Purchases:
    """Understands purchases and words their answers, for one engine."""

    def __init__(self, engine: Engine, tokens: Tokens | None) -> None:
        """Without `tokens` everybody is who they say they are in ``X-Buyer`` (open mode)."""
        self.engine = engine
        self.tokens = tokens

    def buyer_of(self, authorization: bytes | None, x_buyer: bytes | None) -> str:
        """Who asks. Raises Unauthorized."""
        if self.tokens is not None:
            return self.tokens.verify(authorization).sub
        buyer = (x_buyer or b"").rstrip(b" \t").decode("latin-1")
        if not is_visible(buyer):
            raise Unauthorized(
                "this server is open: say who you are in the header X-Buyer, 1 to 128 visible characters"
            )
        return buyer

    def ask(
        self, sale: str, body: bytes, key: bytes | None, authorization: bytes | None, x_buyer: bytes | None
    ) -> Reserve | Refused:
        """The command that a request asks for, or the refusal of a closed gate.

        Raises:
            InvalidRequest: it cannot be understood, or does not say who asks.
        """
        try:
            asked = _body_of(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise decode_error(error) from error
        text = "" if key is None else key.rstrip(b" \t").decode("latin-1")
        refused = self.engine.refusal(sale, asked.item, text)
        if refused is not None:
            return refused
        if key is not None and not is_visible(text):
            raise InvalidRequest("The Idempotency-Key is not 1 to 128 visible ASCII characters.")
        buyer = self.buyer_of(authorization, x_buyer)
        return Reserve(self.engine.new_id(sale, buyer), sale, asked.item, buyer, asked.quantity, text)

    def turn_away(self, refused: Refused) -> Answer:
        """The answer of a closed gate."""
        return problems.turned_away(refused, self.engine.now_ms())

    def answer(self, outcome: m.Outcome) -> Answer:
        """The answer for the outcome of a purchase."""
        if type(outcome) is m.Reserved:
            reservation = outcome.reservation
            body = encode(ReservationView.of(reservation))
            location = (b"location", b"/v1/reservations/" + reservation.id.encode())
            if outcome.replayed:
                return Answer(200, (JSON, location, REPLAYED), body)
            return Answer(201, (JSON, location), body)
        if isinstance(outcome, Refused):
            return problems.refusal(outcome, self.engine.now_ms())
        raise TypeError(f"{type(outcome).__name__} is not the outcome of a purchase")
