"""What of a URL may be shown."""

from __future__ import annotations

import pytest

from ticketrush.addresses import without_password


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///orders.db", "sqlite:///orders.db"),
        ("redis://:hush@h:6379/0", "redis://h:6379/0"),
        ("postgresql://me:hush@h/shop?sslmode=require", "postgresql://h/shop?sslmode=require"),
        ("postgresql://h/shop?password=hush&user=me&sslmode=require", "postgresql://h/shop?sslmode=require"),
        ("postgresql:///shop?PASSWORD=hush", "postgresql:///shop"),
        ("postgresql://h/shop?sslmode=require", "postgresql://h/shop?sslmode=require"),
    ],
)
def test_a_url_is_shown_without_what_is_secret(url: str, shown: str) -> None:
    assert without_password(url) == shown
