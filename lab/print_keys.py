#!/usr/bin/env python3
"""The least that a KMS must do: take key-material and say 201. Prints the first keys of every key stream.

It prints key: only for test key and laboratories. Usage: print_keys.py PORT
"""
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class KeyMaterial(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if message["status"] == 0 and message["index"] < 3:
            stream = message["metadata"]["buffer"]["key_stream_id"]
            print(stream, message["index"], message["key_buffer"], flush=True)
        answer = b'{"status": 0}'
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), KeyMaterial).serve_forever()
