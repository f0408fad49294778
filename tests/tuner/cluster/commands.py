"""``python -m tuner cluster`` as users start it, with folders of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

PYTHON = sys.executable


class User:
    """Somebody on a host: a home with a token, a runtime folder, commands.

    Attributes:
        folder: Of all that is theirs, with a short path, as sockets need.
        namespace: Network namespace their commands run in; empty for this machine's own.
    """

    def __init__(self, folder: Path, namespace: str = "") -> None:
        self.folder = folder
        self.namespace = namespace

    @property
    def variables(self) -> dict[str, str]:
        home = str(self.folder / "h")
        return {"HOME": home, "TUNER_RUNTIME_DIR": str(self.folder / "r")}

    @property
    def token(self) -> Path:
        return self.folder / "h" / ".ray" / "auth_token"

    def run(
        self, *words: str, variables: Mapping[str, str] | None = None, given: str = ""
    ) -> subprocess.CompletedProcess[str]:
        inside = ["ip", "netns", "exec", self.namespace] if self.namespace else []
        kept = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        return subprocess.run(
            [*inside, PYTHON, "-m", "tuner", *words],
            env={**kept, **self.variables, **(variables or {})},
            input=given,
            capture_output=True,
            text=True,
            timeout=600,
        )


@contextmanager
def user(namespace: str = "") -> Iterator[User]:
    """A user whose nodes are stopped in the end, whatever happens."""
    folder = Path(tempfile.mkdtemp(prefix="u", dir="/tmp"))
    (folder / "h").mkdir()
    someone = User(folder, namespace)
    try:
        yield someone
    finally:
        someone.run("cluster", "stop")
        shutil.rmtree(folder, ignore_errors=True)
