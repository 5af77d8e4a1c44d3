"""A real server for the ledgers that need one."""

from __future__ import annotations

from tests.valkey import valkey

__all__ = ["valkey"]
