"""Why somebody did not answer over HTTP, in words."""

from __future__ import annotations

import os
from typing import Final

import aiohttp

SILENT: Final = (aiohttp.ClientError, TimeoutError, OSError, UnicodeError)
"""What is raised when there is no answer; a UnicodeError for a host that is no name."""


def why_silent(error: Exception, within_s: float) -> str:
    """What `error` means to a person, such as "connection refused"; `within_s` is how long an answer was waited for."""
    if isinstance(error, TimeoutError):
        return f"no answer within {within_s:g} s"
    if isinstance(error, (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, UnicodeError)):
        return "not a URL"  # which may have a password in it
    cause = getattr(error, "os_error", error)  # aiohttp wraps what the system says
    number = getattr(cause, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number).lower()
    return str(error) or type(error).__name__
