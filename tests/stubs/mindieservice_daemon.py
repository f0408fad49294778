"""MindIE's daemon without a model, for tests: the stub engine behind a config.json.

It reads the file of ``MIES_CONFIG_JSON_PATH``, else ``$MIES_INSTALL_PATH/conf/config.json``,
refuses what the real one refuses in it, and says ``Daemon start success!`` when it listens. How it
behaves is decided by ``stub.json`` in the model's folder, as for ``openai_engine.py``. A start that
fails ends with SIGKILL, as the real one does.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import openai_engine


def fails(said: str) -> None:
    print(said, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def read_config() -> dict[str, Any]:
    given = os.environ.get("MIES_CONFIG_JSON_PATH", "")
    home = Path(os.environ.get("MIES_INSTALL_PATH", "/nowhere"))
    # A longer value is none to the real one.
    path = Path(given) if 0 < len(given) <= 256 else home / "conf" / "config.json"
    if path.is_symlink() or path.stat().st_mode & 0o137:
        fails(f"Check path: {path.name} failed, by: permission denied")
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        fails("Json file is invalid. Please check json format! ")
    print(f"ConfigManager: Load Config from {path}.", flush=True)
    return document


def check(server: dict[str, Any], schedule: dict[str, Any], model: dict[str, Any]) -> None:
    if server["httpsEnabled"]:
        fails("Business Http ssl Initialize failed")
    if schedule["maxPrefillBatchSize"] < 1:
        name, value = "scheduleConfig.maxPrefillBatchSize", schedule["maxPrefillBatchSize"]
        fails(f"{name} [{value}] is less than [1]")
    if schedule["maxPreemptCount"] and not model["cpuMemSize"]:
        which = "modelParam.cpuMemSize can not be 0 when maxPreemptCount is not 0."
        fails(f"The value of {which}")


def main() -> None:
    if len(sys.argv) > 1:
        print("Unrecognized command-line argument, expect [--config-file]", flush=True)
        sys.exit(255)
    document = read_config()
    server, backend = document["ServerConfig"], document["BackendConfig"]
    model = backend["ModelDeployConfig"]["ModelConfig"][0]
    check(server, backend["ScheduleConfig"], model)
    behaviour = openai_engine.Behaviour.of(Path(model["modelWeightPath"]), os.environ)
    signal.signal(signal.SIGTERM, lambda *_: os.abort())
    print(f"schedule: {json.dumps(backend['ScheduleConfig'])}", flush=True)
    print(f"log to stdout: {os.environ.get('MINDIE_LOG_TO_STDOUT')}", flush=True)
    if behaviour.say:
        print(behaviour.say, flush=True)
    if behaviour.die_at_start:
        fails(behaviour.die_at_start)
    host = os.environ.get("MIES_CONTAINER_IP") or server["ipAddress"]
    stub = openai_engine.Stub(host, server["port"], model["modelName"], behaviour)
    time.sleep(behaviour.start_delay)
    print("Daemon start success!", flush=True)
    stub.serve_forever()


if __name__ == "__main__":
    main()
