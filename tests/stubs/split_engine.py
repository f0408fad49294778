"""The stub engine with a KV cache that can move, as vLLM's connectors move it.

Its arguments decide: with ``ExampleConnector`` the cache of a prompt is a file in the connector's
folder, written by who computes it and read by who finds it; with ``DecodeBenchConnector`` it is
always there. Any other connector moves nothing. ``/metrics`` counts prompt tokens by source.
``STUB_DIE_FILE`` names a file; the engine dies of what is written there once it exists. With
``--headless`` it answers nobody, and only lives; ``STUB_PART_DIE_FILE`` is for such a one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from openai_engine import Behaviour, Handler, Stub

_METRICS = """# TYPE vllm:prompt_tokens_by_source_total counter
vllm:prompt_tokens_by_source_total{{engine="0",source="local_compute"}} {local}
vllm:prompt_tokens_by_source_total{{engine="0",source="external_kv_transfer"}} {external}
# TYPE vllm:request_success_total counter
vllm:request_success_total{{engine="0",finished_reason="length"}} {ended}
"""


class SplitStub(Stub):
    """Counts where the tokens of prompts come from."""

    def __init__(self, arguments: argparse.Namespace, behaviour: Behaviour) -> None:
        self._transfer: dict[str, Any] = json.loads(arguments.kv_transfer_config or "{}")
        self._counters = threading.Lock()
        self.counts = {"local": 0, "external": 0, "ended": 0}
        super().__init__(arguments.host, arguments.port, arguments.served_model_name, behaviour)
        self.RequestHandlerClass = SplitHandler

    def count_completion(self, body: bytes) -> int:
        prompt = str(json.loads(body).get("prompt"))
        found = self._is_elsewhere(prompt)
        with self._counters:
            self.counts["external" if found else "local"] += len(prompt.split())
            self.counts["ended"] += 1
        return super().count_completion(body)

    def _is_elsewhere(self, prompt: str) -> bool:
        connector = self._transfer.get("kv_connector")
        if connector != "ExampleConnector":
            return connector == "DecodeBenchConnector"
        folder = Path(self._transfer["kv_connector_extra_config"]["shared_storage_path"])
        file = folder / hashlib.sha256(prompt.encode()).hexdigest()
        if file.exists():
            return True
        file.touch()
        return False


class SplitHandler(Handler):
    server: SplitStub

    def do_GET(self) -> None:  # noqa: N802
        if self.path != "/metrics":
            super().do_GET()
            return
        body = _METRICS.format(**self.server.counts).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _die_when_told(file: Path) -> None:
    while not file.exists():
        time.sleep(0.05)
    print(file.read_text(), file=sys.stderr, flush=True)
    os._exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model")
    parser.add_argument("--host")
    parser.add_argument("--port", type=int)
    parser.add_argument("--served-model-name")
    parser.add_argument("--kv-transfer-config")
    parser.add_argument("--headless", action="store_true")
    arguments, _ = parser.parse_known_args()
    behaviour = Behaviour.of(Path(arguments.model), os.environ)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    print(f"split stub: {sys.argv[1:]}", flush=True)
    fatal = "STUB_PART_DIE_FILE" if arguments.headless else "STUB_DIE_FILE"
    if file := os.environ.get(fatal):
        threading.Thread(target=_die_when_told, args=(Path(file),), daemon=True).start()
    time.sleep(behaviour.start_delay)
    if behaviour.die_at_start:
        print(behaviour.die_at_start, file=sys.stderr, flush=True)
        sys.exit(behaviour.exit_code)
    if arguments.headless:
        threading.Event().wait()
    SplitStub(arguments, behaviour).serve_forever()


if __name__ == "__main__":
    main()
