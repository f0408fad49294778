"""Runs an experiment and keeps what Prometheus would have scraped of it meanwhile.

Arguments: the experiment file, and a file for the last text that had our metrics.
"""

from __future__ import annotations

import sys
import threading
import urllib.request
from pathlib import Path

import ray

from tuner._run import Session
from tuner.experiment import load_experiment


def scrape(file: Path, ended: threading.Event) -> None:
    while not ended.wait(1.0):
        if not ray.is_initialized():
            continue
        try:
            node = ray.nodes()[0]
            url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            with urllib.request.urlopen(url, timeout=5) as answer:
                text = answer.read().decode()
        except Exception:
            continue
        if "ray_tuner_" in text:
            file.write_text(text)


def main() -> int:
    ended = threading.Event()
    thread = threading.Thread(target=scrape, args=(Path(sys.argv[2]), ended), daemon=True)
    thread.start()
    try:
        return Session(load_experiment(Path(sys.argv[1])), resume=False).run().exit_code
    finally:
        ended.set()
        thread.join(10)


if __name__ == "__main__":
    sys.exit(main())
