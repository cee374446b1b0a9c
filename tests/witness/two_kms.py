#!/usr/bin/env python3
"""Two KMSs written from the public interface alone, with nothing but Python's standard library.

They share no code with the project. Started without arguments, the program prints `listening PORT_A PORT_B`, reads one
line of JSON from standard input ({"module_a": "http://...", "module_b": "http://...", "kms_a": uri, "kms_b": uri}),
runs the sequence in several ways and ends with `N passed, N failed`.
"""
import base64
import http.client
import json
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

sys.dont_write_bytecode = True  # the sources' folder stays as it is
import judging

DEADLINE = 60.0
BASE = "/api/v1/kms/etsi004/"


class Kms:
    """Receives key-material on a port of its own and calls one QKD module."""

    def __init__(self, name):
        self.name = name
        self.lock = threading.Condition()
        self.chunks = {}  # stream -> {index: key}
        self.order = {}  # stream -> [index, ...] of first receipt
        self.notices = []
        self.complaints = []
        kms = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                refusal = kms.refusal(json.loads(body))
                if refusal == "hang up":
                    self.close_connection = True
                    return
                if refusal:
                    self.send_response(refusal[0])
                    for name, value in (("Content-Length", "0"), *refusal[1:]):
                        self.send_header(name, value)
                    self.end_headers()
                    return
                try:
                    kms.take(self.path, self.headers, body)
                except Exception as error:  # a witness tells everything it does not like
                    kms.complain(f"{error!r} in {body[:200]!r}")
                answer = b'{"status": 0}'
                self.send_response(201)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def refusal(self, message):
        """What a subclass answers instead of taking the message: (HTTP status, header...) or "hang up"."""

    def complain(self, text):
        with self.lock:
            self.complaints.append(f"{self.name}: {text}")

    def take(self, path, headers, body):
        if path != "/api/v1/qkd/etsi004/key-material":
            raise ValueError(f"path {path}")
        if headers.get_content_type() != "application/json":
            raise ValueError("content type " + str(headers.get("Content-Type")))
        message = json.loads(body)
        missing = {"status", "index", "key_buffer"} - message.keys()
        if missing:
            raise ValueError(f"{missing} missing")
        if message["metadata"]["size"] != 57:
            raise ValueError("metadata.size is not 57")
        stream = message["metadata"]["buffer"]["key_stream_id"]
        index, key = message["index"], base64.b64decode(message["key_buffer"], validate=True)
        with self.lock:
            if message["status"] != 0:
                if key:
                    raise ValueError("a notice carries key")
                self.notices.append((stream, message["status"], index))
                self.lock.notify_all()
                return
            known = self.chunks.setdefault(stream, {})
            if index in known:
                if known[index] != key:
                    raise ValueError(f"index {index} came again with other octets")
                return
            known[index] = key
            self.order.setdefault(stream, []).append(index)
            self.lock.notify_all()

    def wait_for(self, stream, count):
        end = time.monotonic() + DEADLINE
        with self.lock:
            while len(self.chunks.get(stream, {})) < count:
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"{self.name}: {len(self.chunks.get(stream, {}))} of {count} chunks of {stream} in time")
                self.lock.wait(left)

    def connect(self, module):
        self.module = urllib.parse.urlsplit(module)
        self.http = http.client.HTTPConnection(self.module.hostname, self.module.port, timeout=DEADLINE)

    def call(self, method, name, body):
        """One request on the same kept-alive connection; answers (HTTP status, body octets)."""
        self.http.request(method, BASE + name, json.dumps(body), {"Content-Type": "application/json"})
        answer = self.http.getresponse()
        octets = answer.read()
        if answer.status == 205:
            # Python's client takes a 205 for bodyless on some versions; the octets then stand in the way of the next answer.
            length = int(answer.getheader("Content-Length") or 0)
            if not octets and length:
                self.http.close()
        return answer.status, octets

    def open(self, source, destination, stream=None, **qos):
        body = {"source": source, "destination": destination, "key_stream_id": stream, "qos": qos}
        status, octets = self.call("POST", "open-connect", body)
        return status, json.loads(octets)

    def open_in_time(self, source, destination, stream=None, **qos):
        """As open, again while the module has not seen the QKD connection yet."""
        end = time.monotonic() + DEADLINE
        while True:
            status, answer = self.open(source, destination, stream, **qos)
            if status == 201 or time.monotonic() > end:
                return status, answer
            time.sleep(0.1)

    def get_key(self, stream, form, expect, **more):
        end = time.monotonic() + DEADLINE
        while True:
            status, octets = self.call(form, "get-key", {"key_stream_id": stream, **more})
            if status == expect or time.monotonic() > end:
                break
            time.sleep(0.05)  # the peer module may not have been told yet
        assert status == expect, (self.name, status, octets)
        return json.loads(octets) if octets else None

    def close(self, stream, form="PUT"):
        status, octets = self.call(form, "close", {"key_stream_id": stream})
        assert status == 204 and octets == b"", (self.name, status, octets)


def agree(a, b, stream, size):
    """Both hold the same octets under the same indices, from 0 on and without a gap."""
    with a.lock:
        at_a, order_a = dict(a.chunks[stream]), list(a.order[stream])
    with b.lock:
        at_b, order_b = dict(b.chunks[stream]), list(b.order[stream])
    assert order_a == list(range(len(order_a))), order_a[:20]
    assert order_b == list(range(len(order_b))), order_b[:20]
    common = at_a.keys() & at_b.keys()
    assert common, "nothing in common"
    for index in common:
        assert at_a[index] == at_b[index], f"index {index} differs"
        assert len(at_a[index]) == size, (index, len(at_a[index]))
        assert size < 16 or any(at_a[index]), f"index {index} is all zero"
    return [at_a[i] for i in sorted(at_a)]


def judge(tests, a, b, prepare=lambda kms: None):
    """Runs the tests one by one and prints how each went; whether all passed and neither KMS complained."""

    def before():
        for kms in (a, b):
            kms.http.close()
            prepare(kms)

    def after():
        complaints = a.complaints + b.complaints
        assert not complaints, complaints[:3]

    return judging.judge(tests, before, after)


def main(kind, run):
    """Two KMSs of a kind: says where they listen, reads the task, runs it, and ends with 0 when all passed."""
    a, b = kind("A"), kind("B")
    print(f"listening {a.port} {b.port}", flush=True)
    task = json.loads(sys.stdin.readline())
    a.connect(task["module_a"])
    b.connect(task["module_b"])
    sys.exit(0 if run(task, a, b) else 1)


def run(task, a, b):
    uri_a, uri_b = task["kms_a"], task["kms_b"]
    seen = {}

    def remember(stream, chunks):
        for chunk in chunks:
            if len(chunk) < 16:
                continue
            assert seen.setdefault(chunk, stream) == stream, "one key in two streams"
        assert len(set(chunks)) == len(chunks), "one key under two indices"

    def sequence(opener, joiner, source, destination, form, size):
        http_status, answer = opener.open_in_time(source, destination, None, key_chunk_size=size)
        assert http_status == 201 and answer["status"] in (0, 1), answer
        stream = answer["key_stream_id"]
        assert answer["qos"]["key_chunk_size"] == size, answer
        early = opener.get_key(stream, form, 400)
        assert early["status"] == 3, early
        http_status, joined = joiner.open_in_time(source, destination, stream, key_chunk_size=size + 1)
        assert http_status == 201 and joined["status"] == 0, joined
        assert joined["qos"] == answer["qos"], "the registered qos holds for the second caller"
        opener.get_key(stream, form, 205)
        assert stream not in joiner.chunks, "key came before get-key"
        joiner.get_key(stream, form, 205)
        return stream

    def finish(stream, count, size):
        a.wait_for(stream, count)
        b.wait_for(stream, count)
        remember(stream, agree(a, b, stream, size))

    def opened_at_a_with_get():
        stream = sequence(a, b, uri_a, uri_b, "GET", 32)
        finish(stream, 50, 32)
        a.close(stream)
        b.close(stream)

    def opened_at_b_with_post():
        stream = sequence(b, a, uri_b, uri_a, "POST", 100)
        finish(stream, 50, 100)
        b.close(stream, "POST")
        a.close(stream, "POST")

    def predefined_id_and_reversed_names():
        stream = "0b0e5a5c-8a3e-4d0e-9a57-2f7a9a3a6c11"
        first, answer = b.open(uri_b, uri_a, stream, key_chunk_size=48)
        assert first == 201 and answer["key_stream_id"] == stream, answer
        second, answer = a.open(uri_a, uri_b, stream.upper())
        assert second == 201 and answer["qos"]["key_chunk_size"] == 48, answer
        a.get_key(stream, "GET", 205)
        b.get_key(stream, "POST", 205)
        finish(stream, 20, 48)
        a.close(stream)
        b.close(stream)
        closed, answer = a.open(uri_a, uri_b, stream)
        assert closed == 400 and answer["status"] == 5, "a closed id never starts again"

    def several_streams_at_once():
        sizes = [1, 33, 256, 4096]
        streams = [
            sequence(*((a, b, uri_a, uri_b) if i % 2 else (b, a, uri_b, uri_a)), "GET", size)
            for i, size in enumerate(sizes)
        ]
        for stream, size in zip(streams, sizes):
            if size >= 16:
                finish(stream, 20, size)
            else:
                a.wait_for(stream, 20)
                b.wait_for(stream, 20)
                agree(a, b, stream, size)
        for stream in streams:
            a.close(stream)
            b.close(stream)

    def new_stream_after_a_close():
        first = sequence(a, b, uri_a, uri_b, "GET", 64)
        finish(first, 20, 64)
        a.close(first)
        with a.lock:
            at_close = len(a.chunks[first])
        b.close(first)
        second = sequence(a, b, uri_a, uri_b, "GET", 64)
        finish(second, 20, 64)
        assert second != first
        with a.lock:
            assert len(a.chunks[first]) == at_close, "a chunk came after the answer to close"
        a.close(second)
        b.close(second)

    def a_start_index_is_agreed():
        http_status, answer = a.open(uri_a, uri_b, None, key_chunk_size=32)
        assert http_status == 201, answer
        stream = answer["key_stream_id"]
        assert b.open(uri_a, uri_b, stream)[0] == 201
        a.get_key(stream, "GET", 205, index=5)
        b.get_key(stream, "GET", 205, index=9)
        a.wait_for(stream, 10)
        b.wait_for(stream, 10)
        assert a.order[stream][0] == b.order[stream][0] == 9, (a.order[stream][:3], b.order[stream][:3])
        common = a.chunks[stream].keys() & b.chunks[stream].keys()
        assert common and all(a.chunks[stream][i] == b.chunks[stream][i] for i in common)
        a.close(stream)
        b.close(stream)

    def small_metadata_loses_no_key():
        stream = sequence(a, b, uri_a, uri_b, "GET", 32)
        for size, wanted in ((1, 400), (56, 400), (0, 205), (57, 205)):
            answer = a.get_key(stream, "GET", wanted, metadata={"size": size, "buffer": ""})
            if wanted == 400:
                assert answer["status"] == 8 and "57" in json.dumps(answer), answer
        finish(stream, 20, 32)
        a.close(stream)
        b.close(stream)

    return judge((
        opened_at_a_with_get,
        opened_at_b_with_post,
        predefined_id_and_reversed_names,
        several_streams_at_once,
        new_stream_after_a_close,
        a_start_index_is_agreed,
        small_metadata_loses_no_key,
    ), a, b)


if __name__ == "__main__":
    main(Kms, run)
