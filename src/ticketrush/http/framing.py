"""What makes it doubtful where a request ends, or whom it is for: readers may differ, so it is refused."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

HOST: Final = rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]"
"""A byte of a host with its port (RFC 3986, 3.2.2)."""

_is_host: Final = re.compile(rb"%b+" % HOST).fullmatch

Headers = Iterable[tuple[bytes, bytes]]
"""Names in lower case, and values."""


def coding_fault(version: str, headers: Headers) -> str:
    """What is wrong with the Transfer-Encoding, "" if nothing is (RFC 9112, 6.1). `version` is HTTP's, as "1.1"."""
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if not codings:
        return ""
    if version == "1.0":
        return "Transfer-Encoding needs HTTP/1.1."
    if len(codings) > 1 or codings[0].strip(b" \t").lower() != b"chunked":
        return "The only Transfer-Encoding that is understood here is `chunked`, once."
    return ""


def host_fault(version: str, headers: Headers) -> str:
    """What is wrong with the Host, "" if nothing is (RFC 9112, 3.2)."""
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1 and (hosts or version != "1.0"):
        return "An HTTP/1.1 request needs one Host header."
    if hosts and _is_host(hosts[0].rstrip(b" \t")) is None:
        return "The Host header is not a host and a port."
    return ""
