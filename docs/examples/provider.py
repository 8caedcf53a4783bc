#!/usr/bin/env python3
"""Plays Midtrans and the receiver of a webhook, so that integrations can be tried without an account anywhere.

    python3 docs/examples/provider.py [port]

Port 4010 when none is given. `GET /v2/<order>/status` answers as Midtrans does to a good key when there is no such
order, which is how a connection is tested; to a key that ends with `WRONG` it answers as it does to a bad one. `POST` to
anything is a webhook: its headers and its body are printed, and it is taken.
"""

import base64
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Provider(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        key = base64.b64decode(self.headers.get("authorization", "Basic ").split(" ", 1)[1]).decode()
        if key.rstrip(":").endswith("WRONG"):
            self.answer(401, {"status_code": "401", "status_message": "Unknown Merchant server_key/id"})
        else:
            self.answer(404, {"status_code": "404", "status_message": "Transaction doesn't exist."})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        for name in ("webhook-id", "webhook-timestamp", "webhook-signature", "x-webhook-signature"):
            print(f"{name}: {self.headers.get(name)}")
        print(body.decode(errors="replace"), flush=True)
        self.answer(200, {"ok": True})

    def answer(self, status, content):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 4010
    ThreadingHTTPServer(("127.0.0.1", port), Provider).serve_forever()
