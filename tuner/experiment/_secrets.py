"""Where secrets may come from: the environment, or a file that only its owner can read."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

_REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")
_DEFAULT = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*:-[^}]+\}")
_PASSWORD = re.compile(r"://[^/\s@]*:[^/\s@$]+@")
_MOST_BYTES = 8192


def read_secret(path: object) -> str:
    """The only line of a secret file.

    Raises:
        ValueError: It is no file, others may read it, or it does not hold one line of text.
    """
    if not isinstance(path, str) or not path:
        raise ValueError("must be the path of a file")
    file = Path(path).expanduser()
    try:
        with file.open("rb") as stream:
            mode = os.fstat(stream.fileno()).st_mode
            if stat.S_IMODE(mode) & 0o077:
                said = f"{file} has mode {stat.S_IMODE(mode):o}, others can read this secret"
                raise ValueError(f"{said}; chmod 600 {file}")
            content = stream.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{file} cannot be read: {error.strerror}") from error
    try:
        lines = content.decode().strip().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is not UTF-8 text") from error
    if len(lines) != 1 or len(content) > _MOST_BYTES:
        raise ValueError(f"{file} must hold one line, the secret and nothing else")
    return lines[0]


def literal_fault(written: object) -> str | None:
    """Why a value as it stands in the experiment would give its secret away; None if it does not.

    The experiment is copied into the run's folder as written, and ``--set`` stands in process
    lists, so a secret has to be a reference: ``${NAME}``, alone or as a part of the value.
    """
    if not isinstance(written, str) or not _REFERENCE.search(written):
        return "is a secret and would be stored in the results; export it and write ${NAME}"
    if _DEFAULT.search(written):
        return "is a secret and takes no default; write ${NAME}"
    if _PASSWORD.search(written):
        return "has a password in it that would be stored in the results; write ${NAME} for it"
    return None
