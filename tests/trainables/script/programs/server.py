"""A server that behaves as ``BEHAVIOUR`` says; PORT is where it listens."""

import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BEHAVIOUR = os.environ.get("BEHAVIOUR", "serve")
STATUS = int(os.environ.get("STATUS", "200"))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/die":
            os._exit(7)
        self.send_response(STATUS)
        self.send_header("Content-Length", "0")
        self.end_headers()


print("starting with", " ".join(sys.argv[1:]), flush=True)
if BEHAVIOUR == "crash":
    print("RuntimeError: the weights are of another model", flush=True)
    sys.exit(3)
if BEHAVIOUR == "leave":
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    sys.exit(0)
if BEHAVIOUR == "hang":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)
if BEHAVIOUR == "grandchildren":
    nap = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"
    child = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {nap!r}])"
    subprocess.run([sys.executable, "-c", child], start_new_session=True, check=True)


class Server(ThreadingHTTPServer):
    allow_reuse_port = BEHAVIOUR == "share"


Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
