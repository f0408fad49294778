"""Where AISBench finds a dataset's configuration: in the user's folder, or among its own."""

from __future__ import annotations

import difflib
import hashlib
import shutil
from functools import lru_cache
from pathlib import Path

from trainables.evaluation._aisbench_options import AisbenchOptions

_FOLDERS = ("datasets", "dataset_collections")
_OWN = "lib*/python3*/*-packages/ais_bench/benchmark/configs"


def config_problem(options: AisbenchOptions, config_name: str) -> str:
    """Why AISBench will refuse a name; empty when it will not, or that cannot be told here."""
    name = config_name.split("/")[0]
    theirs, own = _configs(options.settings.config_dir), _own_configs(options.command[0])
    found = [file for configs in (theirs, own) for file in configs.get(name.lower(), ())]
    if len(found) > 1:
        return f"{name} is ambiguous: {', '.join(map(str, found))}; rename your own"
    if found or not own:
        return ""
    near = difflib.get_close_matches(name.lower(), [*theirs, *own], n=3)
    hint = f"; there is {', '.join(near)}" if near else ""
    return f"AISBench has no dataset configuration {name!r}{hint}"


def config_digest(options: AisbenchOptions, config_name: str) -> str | None:
    """SHA-256 of the user's own configuration; None for AISBench's, which come with its version."""
    found = _configs(options.settings.config_dir).get(config_name.split("/")[0].lower())
    return hashlib.sha256(found[0].read_bytes()).hexdigest() if found else None


def _configs(folder: str) -> dict[str, list[Path]]:
    """Name, in lower case as AISBench compares it, to the files that have it."""
    found: dict[str, list[Path]] = {}
    for name in _FOLDERS if folder else ():
        for file in sorted((Path(folder) / name).rglob("*.py")):
            found.setdefault(file.stem.lower(), []).append(file)
    return found


@lru_cache(maxsize=8)
def _own_configs(program: str) -> dict[str, list[Path]]:
    """Those that came with the program, where they lie beside it; none otherwise."""
    found = shutil.which(program)
    if found is None:
        return {}
    given, real = Path(found).absolute(), Path(found).resolve()
    for prefix in dict.fromkeys((given.parent.parent, real.parent.parent)):
        for folder in sorted(prefix.glob(_OWN)):
            return _configs(str(folder))
    return {}
