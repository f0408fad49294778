"""Child, grandchild in a session of its own, and a double-forked great-grandchild deaf to TERM.

Usage: family.py FOLDER. Each writes its process id to FOLDER/<name>; ``ready`` comes last.
"""

import os
import signal
import sys
import time
from pathlib import Path


def live(name: str, deaf: bool = False) -> None:
    if deaf:
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
    folder = Path(sys.argv[1])
    (folder / f"{name}.new").write_text(str(os.getpid()))
    (folder / f"{name}.new").rename(folder / name)
    while True:
        time.sleep(60)


def grandchild() -> None:
    os.setsid()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            live("great-grandchild", deaf=True)
        os._exit(0)
    os.wait()
    live("grandchild")


if __name__ == "__main__":
    if os.fork() == 0:
        grandchild()
    members = [Path(sys.argv[1]) / name for name in ("grandchild", "great-grandchild")]
    while not all(member.exists() for member in members):
        time.sleep(0.01)
    live("child")
