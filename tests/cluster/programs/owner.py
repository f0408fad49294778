"""Owns a family of processes and then ends in the way it is told.

Usage: owner.py RUN_ID FOLDER stop|hang|exit|return|fork
"""

import os
import sys
import time
from pathlib import Path

from cluster import ProcessTree

if __name__ == "__main__":
    run_id, folder, way = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    family = [sys.executable, str(Path(__file__).with_name("family.py")), str(folder)]
    tree = ProcessTree.start(family, log=folder / "log", run_id=run_id, label="family")
    while not (folder / "child").exists():
        time.sleep(0.01)
    if way == "fork":
        forked = os.fork()
        if forked == 0:
            time.sleep(600)
        (folder / "forked").write_text(str(forked))
    print("ready", flush=True)
    if way in ("hang", "fork"):
        time.sleep(600)
    if way == "exit":
        os._exit(1)
    if way == "stop":
        tree.stop(grace_s=0.5)
