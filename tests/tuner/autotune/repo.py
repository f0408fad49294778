"""A repo as ``auto_tune.py`` expects it: a small HTTP server, and an evaluation that asks it."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainables.script import rouge_preset

RUN_MODEL = f"""#!/bin/bash
echo "serving at $GPU_MEMORY_UTILIZATION"
exec {sys.executable} -S -E server.py "$PORT"
"""
SERVER = """
import http.server, json, os, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"gpu": os.environ["GPU_MEMORY_UTILIZATION"]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass

with open("starts.log", "a") as stream:
    stream.write(f"{os.getpid()} {os.environ['GPU_MEMORY_UTILIZATION']}\\n")
if os.environ["GPU_MEMORY_UTILIZATION"] in os.environ.get("CRASHES", "").split():
    sys.exit("out of blocks")
if os.environ["GPU_MEMORY_UTILIZATION"] in os.environ.get("HANGS", "").split():
    time.sleep(600)
while os.path.exists(f"hold {os.environ['GPU_MEMORY_UTILIZATION']}"):
    time.sleep(0.05)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
EVALUATION = """
import json, os, sys, time, urllib.request

answer = urllib.request.urlopen(f"http://127.0.0.1:{os.environ['PORT']}/", timeout=300).read()
gpu = json.loads(answer)["gpu"]
with open("evaluations.log", "a") as stream:
    stream.write(f"{gpu} {os.environ['EVAL_RUN']}\\n")
time.sleep(600 if gpu in os.environ.get("EVAL_HANGS", "").split() else 0)
while os.path.exists(f"hold {gpu} {os.environ['EVAL_RUN']}"):
    time.sleep(0.05)
tps = json.loads(os.environ["SPEEDS"])[gpu]
print("Questions: 92, OK: 92, Total time: 1.76s")
print("Accuracy (RougeL-F1 mean, RAW): " + os.environ.get("ACCURACY", "0.8815"))
print(f"Throughput RAW: answer_tokens/s={tps / 2}, (prompt+answer)_tokens/s={tps}")
"""
VALUES = ("0.97", "0.98", "0.99")


def write_repo(folder: Path) -> Path:
    """The scripts, and ``one.json``, which is no further value of anything."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run_model.sh").write_text(RUN_MODEL)
    (folder / "server.py").write_text(SERVER)
    (folder / "eval_local.py").write_text(EVALUATION)
    return folder


def hold(repo: Path, what: str) -> Path:
    """The file that holds a server (``0.97``) or an evaluation (``0.97 1``) for as long as it is
    there, after it has said that it has begun."""
    file = repo / f"hold {what}"
    file.touch()
    return file


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def flags(repo: Path, *more: str, values: Sequence[str] = VALUES) -> list[str]:
    """A call that searches GPU_MEMORY_UTILIZATION alone, in short trials."""
    only = {"GPU_MEMORY_UTILIZATION": {"type": "enum", "values": list(values)}}
    return [
        "auto-tune",
        *("--repo", str(repo), "--port", str(free_port()), "--eval_runs", "2", "--cooldown", "0"),
        *("--eval_command", f"{sys.executable} -S -E eval_local.py"),
        *("--set", f"search.space={json.dumps(only)}"),
        *("--set", f'search.start={{"GPU_MEMORY_UTILIZATION": "{values[0]}"}}'),
        *("--set", "cluster.dashboard=false", "--set", "cluster.resources.CPU=0.5"),
        *more,
    ]


def speeds(**tps: float) -> dict[str, str]:
    """The variable that says how fast the server is: ``g97=100`` at 0.97."""
    table = {f"0.{name.removeprefix('g')}": value for name, value in tps.items()}
    return {"SPEEDS": json.dumps(table), "PATH": os.environ["PATH"]}


def base(**changes: str) -> dict[str, str]:
    """The preset's configuration with changes."""
    return {**rouge_preset().base, **changes}


def key(**changes: str) -> str:
    params = base(**changes)
    return "|".join(f"{name}={params[name]}" for name in sorted(params))


def original_record(
    tps: float, *, status: str = "ok", ts: str = "", **changes: str
) -> dict[str, Any]:
    """A line as ``auto_tune.py`` writes it."""
    head = {"ts": ts or "2026-01-02T03:04:05", "trial_key": key(**changes), "status": status}
    if status in ("crashed", "timeout"):
        return {
            **head,
            "phase": "startup",
            "param_under_test": "GPU_MEMORY_UTILIZATION",
            "health": "timeout",
            "exit_code": 1,
            "server_log": "tune_server_logs/trial_00001.log",
            "params": base(**changes),
            "startup_s": 3.2,
        }
    run = {"ok": True, "returncode": 0, "accuracy": 0.89, "answer_tps": tps / 2}
    runs = [
        {"i": i, **run, "total_tps": tps, "total_time_s": 1.5, "elapsed_s": 2.0} for i in (1, 2)
    ]
    return {
        **head,
        "phase": "eval",
        "param_under_test": "GPU_MEMORY_UTILIZATION",
        "params": base(**changes),
        "health": "health=200 body=''",
        "eval_ok_n": 2,
        "eval_runs": runs,
        "avg_accuracy": 0.89,
        "avg_total_tps": tps,
        "avg_answer_tps": tps / 2,
        "avg_total_time_s": 1.5,
        "server_log": "tune_server_logs/trial_00001.log",
        "total_s": 9.5,
    }


def results(repo: Path) -> list[dict[str, Any]]:
    file = repo / "tune_results.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [json.loads(line) for line in lines]


def evaluations(repo: Path) -> list[str]:
    """``<GPU_MEMORY_UTILIZATION> <run>`` of every evaluation that began."""
    file = repo / "evaluations.log"
    return file.read_text().splitlines() if file.exists() else []
