"""``tune_secrets.sh``: the assignments in it, read and not executed."""

from __future__ import annotations

import os
import re
import shlex
import stat
from pathlib import Path

from tuner.compat._options import Problems

FILE = "tune_secrets.sh"
_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_]\w*)=(.*)", re.ASCII | re.DOTALL)
_MOST_BYTES = 65536


def read_secrets(folder: Path, problems: Problems) -> dict[str, str]:
    """Variables that ``tune_secrets.sh`` in ``folder`` sets; none where there is no such file.

    Only lines ``[export] NAME=value`` count, the value quoted as in a shell. Anything else, a
    ``$`` in a value included, would have to be executed to be understood, and is a problem.
    """
    file = folder / FILE
    try:
        with file.open("rb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            text = stream.read(_MOST_BYTES).decode()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        problems.append((str(file), f"cannot be read: {error}"))
        return {}
    if mode & 0o077:
        problems.append((str(file), f"others can read it (mode {mode:o}): chmod 600 {file}"))
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        try:
            found |= _assignments(line)
        except ValueError as error:
            problems.append((f"{file}:{number}", str(error)))
    return found


def _assignments(line: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in shlex.split(line, comments=True):
        if word == "export":
            continue
        match = _ASSIGNMENT.fullmatch(word)
        if match is None:
            raise ValueError(_REFUSAL)
        if _expands(line) and re.search(r"[$`]", match[2]):
            raise ValueError(_REFUSAL)
        found[match[1]] = match[2]
    return found


def _expands(line: str) -> bool:
    """Whether a shell would put something in: a ``$`` or a backquote outside single quotes."""
    return re.search(r"[$`]", re.sub(r"'[^']*'", "", line)) is not None


_REFUSAL = (
    "is no plain assignment, as `export NAME='value'`, and the file is not executed here; write it "
    "so, or `source` the file yourself and move it away"
)
