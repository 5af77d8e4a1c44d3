"""What is wrong with a JSON body is said in words that a person understands, at the place where it is."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from ticketrush.http.buyers import PaymentBody
from ticketrush.http.operators import SaleBody
from ticketrush.http.purchase import decode_error

SALE: dict[str, Any] = {"items": [{"id": "second", "capacity": 1}]}


@pytest.mark.parametrize(
    ("kind", "body", "words"),
    [
        (SaleBody, SALE | {"opens_at": "2030-01-20"}, "a time like 2030-01-20T08:00:00Z - at `$.opens_at`"),
        (SaleBody, SALE | {"opens_at": "2030-01-20T08:00:00"}, "a time like 2030-01-20T08:00:00Z - at `$.opens_at`"),
        (SaleBody, {"items": [{"id": "a b", "capacity": 1}]}, "1 to 64 of A-Z a-z 0-9 . _ ~ - - at `$.items[0].id`"),
        (SaleBody, {"items": [{"id": "a", "capacity": 1, "currency": "yuan"}]}, "three letters A-Z - at"),
        (PaymentBody, {"card": "a b"}, "1 to 128 visible ASCII characters - at `$.card`"),
    ],
)
def test_a_value_that_is_not_allowed_is_told_without_the_parsers_words(
    kind: type[msgspec.Struct], body: dict[str, Any], words: str
) -> None:
    with pytest.raises(msgspec.ValidationError) as refused:
        msgspec.json.decode(json.dumps(body), type=kind)
    told = str(decode_error(refused.value))
    assert words in told
    assert not [jargon for jargon in ("regex", "RFC", "datetime") if jargon in told]
