"""Versions of packages in somebody else's environment, without running anything there."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path


def package_versions(program: str, names: Iterable[str]) -> dict[str, str]:
    """Versions of those of ``names`` that are installed beside ``program``.

    ``program`` is a Python interpreter, or a script such as ``vllm`` in the same ``bin`` folder;
    without a slash it is searched in ``PATH``. Empty where its packages cannot be found.
    """
    found = shutil.which(program)
    if found is None:
        return {}
    folders = [str(folder) for prefix in _prefixes(Path(found)) for folder in _packages(prefix)]
    versions: dict[str, str] = {}
    for name in names:
        for distribution in distributions(name=name, path=folders):
            versions[name] = distribution.version
            break
    return versions


def _prefixes(program: Path) -> list[Path]:
    """Where the packages may be: a virtual environment is known by the path as it is given, an
    installation by the file it leads to."""
    given, real = program.absolute().parent.parent, program.resolve().parent.parent
    return [given] if (given / "pyvenv.cfg").exists() else list(dict.fromkeys((given, real)))


def _packages(prefix: Path) -> list[Path]:
    patterns = ("lib*/python3*/site-packages", "lib*/python3*/dist-packages")
    return sorted({folder for pattern in patterns for folder in prefix.glob(pattern)})
