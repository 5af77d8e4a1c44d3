"""A web server for hosts of the lab: `web.py ADDRESS PORT NAME FILE` answers every GET with NAME.

It keeps connections. While FILE is there, it answers /readyz with 503.
"""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

ADDRESS: Final = sys.argv[1]
PORT: Final = int(sys.argv[2])
NAME: Final = sys.argv[3].encode()
UNREADY: Final = Path(sys.argv[4])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(503 if self.path == "/readyz" and UNREADY.exists() else 200)
        self.send_header("Content-Length", str(len(NAME)))
        self.end_headers()
        self.wfile.write(NAME)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    with ThreadingHTTPServer((ADDRESS, PORT), Handler) as server:
        print("ready", flush=True)
        server.serve_forever()
