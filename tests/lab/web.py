"""A web server for hosts of the lab: `web.py ADDRESS PORT NAME` answers every GET with NAME, and keeps connections."""

from __future__ import annotations

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

ADDRESS: Final = sys.argv[1]
PORT: Final = int(sys.argv[2])
NAME: Final = sys.argv[3].encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(NAME)))
        self.end_headers()
        self.wfile.write(NAME)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    with ThreadingHTTPServer((ADDRESS, PORT), Handler) as server:
        print("ready", flush=True)
        server.serve_forever()
