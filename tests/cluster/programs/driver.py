"""Starts a private cluster with an actor that owns a family; obeys commands, one a line.

Usage: driver.py FOLDER, which it locks. ``own RUN_ID FOLDER`` answers the worker's process id,
``kill`` and ``leave`` end that actor, ``raylet`` answers its process id, ``lost`` what the
connection says of itself, ``close`` leaves the cluster; all others answer ``done``.
"""

import os
import sys
import time
from pathlib import Path

import psutil
import ray

from cluster import ProcessTree, RunLock, connect


class Owner:
    """What a trial is to its programs."""

    def own(self, run_id: str, folder: str, programs: str) -> int:
        argv = [sys.executable, f"{programs}/family.py", folder]
        log = Path(folder) / "log"
        self.tree = ProcessTree.start(argv, log=log, run_id=run_id, label="family")
        while not (Path(folder) / "child").exists():
            time.sleep(0.01)
        return os.getpid()

    def leave(self) -> None:
        os._exit(1)


def main() -> None:
    lock = RunLock(Path(sys.argv[1]))
    lock.acquire()
    connection = connect("local", name="driver", num_cpus=1)
    owner = None
    for line in sys.stdin:
        command, *arguments = line.split()
        answer: object = "done"
        if command == "own":
            owner = ray.remote(num_cpus=0)(Owner).remote()
            answer = ray.get(owner.own.remote(*arguments, str(Path(__file__).parent)))
        elif command == "kill":
            ray.kill(owner)
        elif command == "leave":
            owner.leave.remote()
        elif command == "raylet":
            children = psutil.Process().children()
            answer = next(child.pid for child in children if child.name() == "raylet")
        elif command == "lost":
            answer = connection.lost
        elif command == "close":
            connection.close()
        print(answer, flush=True)


if __name__ == "__main__":
    main()
