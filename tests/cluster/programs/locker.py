"""Holds a run's folder. Usage: locker.py FOLDER."""

import sys
import time
from pathlib import Path

from cluster import RunLock

if __name__ == "__main__":
    with RunLock(Path(sys.argv[1])):
        print("locked", flush=True)
        time.sleep(600)
