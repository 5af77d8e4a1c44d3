"""What of a URL may be shown."""

from __future__ import annotations

import pytest

from ticketrush.addresses import without_password
from ticketrush.errors import SettingsError
from ticketrush.wiring import store_of


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///orders.db", "sqlite:///orders.db"),
        ("redis://:hush@h:6379/0", "redis://h:6379/0"),
        ("postgresql://me:hush@h/shop?sslmode=require", "postgresql://h/shop?sslmode=require"),
        ("postgresql://h/shop?password=hush&user=me&sslmode=require", "postgresql://h/shop?sslmode=require"),
        ("postgresql:///shop?PASSWORD=hush", "postgresql:///shop"),
        ("postgresql://h/shop?sslmode=require", "postgresql://h/shop?sslmode=require"),
        ("postgresql://shop:hu/sh?hu@sh@h/shop", "postgresql://h/shop"),
    ],
)
def test_a_url_is_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://shop:hu/sh@h/shop",
        "postgresql://shop:hu?sh@h/shop",
        "postgresql://shop:12/hush@h/shop",
        "postgresql://shop:hush@h:port/shop",
    ],
)
def test_a_store_whose_url_can_be_cut_in_two_ways_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match="percent-encoded") as refused:
        store_of(url)
    assert "hu" not in str(refused.value)
