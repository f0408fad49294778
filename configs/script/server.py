"""A toy inference service: it answers quizzes, and its settings decide how fast and how well.

Settings are environment variables: BATCH (requests served at once), QUANT (none, int8, int4) and
MAX_TOKENS (length of an answer). PORT is where it listens.
"""

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BATCH = int(os.environ.get("BATCH", "1"))
QUANT = os.environ.get("QUANT", "none")
MAX_TOKENS = int(os.environ.get("MAX_TOKENS", "16"))
SECONDS_PER_TOKEN = {"none": 0.0010, "int8": 0.0006, "int4": 0.0004}[QUANT]
RIGHT_OF_100 = {"none": 96, "int8": 94, "int4": 78}[QUANT]

if BATCH > 8:
    raise SystemExit(f"out of memory: no room for {BATCH} requests at once")

places = threading.BoundedSemaphore(BATCH)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.answer({"status": "ok"})

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with places:
            time.sleep(SECONDS_PER_TOKEN * MAX_TOKENS * (1 + 0.1 * BATCH))
        whole = question["needs_tokens"] <= MAX_TOKENS
        right = whole and question["number"] % 100 < RIGHT_OF_100
        self.answer({"answer": "right" if right else "wrong", "tokens": MAX_TOKENS})

    def answer(self, document):
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 64


if __name__ == "__main__":
    Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
