"""From all sources to checked settings, or to everything that is wrong with them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tuner.compat._faults import _keys_at, faults
from tuner.compat._options import Problems
from tuner.compat.serviceparam._config import Settings
from tuner.compat.serviceparam._lines import nearest
from tuner.compat.serviceparam._sources import Sources, candidates, gather, installations
from tuner.experiment import ExperimentError, Problem

_INDEX = re.compile(r"\.(\d+)(?=\.|$)")
_GONE = ("benchmark", "profile", "server")
"""Tables of versions that no longer exist."""


class SettingsError(ExperimentError):
    """Everything wrong with the settings, each with the file or variable that says it."""

    def __init__(self, sources: Sources, problems: Problems) -> None:
        self._sources = sources
        names = [file.name for file in sources.files]
        self._names = {
            str(file): file.name if names.count(file.name) == 1 else str(file)
            for file in sources.files
        }
        placed = [Problem(path, said, self._line(path)) for path, said in problems]
        super().__init__(self._names[str(sources.files[-1])] if names else "optimizer", placed)

    def joined(self, flags: Problems) -> SettingsError:
        """The same error with faults of the command line in front."""
        found = [(problem.path, problem.message) for problem in self.problems]
        return SettingsError(self._sources, [*flags, *found])

    def _describe(self, problem: Problem) -> str:
        origin = self._sources.origins.get(_top(problem.path))
        if origin is None:
            place = f"{problem.path}: " if problem.path else ""
            return f"{place}{problem.message}"
        line = "" if problem.line is None else f":{problem.line}"
        return f"{self._names.get(origin, origin)}{line}: {problem.path}: {problem.message}"

    def _line(self, path: str) -> int | None:
        origin = self._sources.origins.get(_top(path), "")
        return nearest(self._sources.lines.get(origin, {}), path)


@dataclass(frozen=True)
class Configuration:
    """Settings without faults of form.

    Attributes:
        sources: Where they come from, for messages.
        notes: What was written and does not count.
    """

    settings: Settings
    sources: Sources
    notes: tuple[str, ...]

    def error(self, problems: Problems) -> SettingsError:
        return SettingsError(self.sources, problems)

    def wrote(self, path: str) -> bool:
        """Whether a value stands in a file or variable, and is not a default."""
        value: Any = self.sources.data
        for part in path.split("."):
            if not isinstance(value, Mapping) or part not in value:
                return False
            value = value[part]
        return True


def read_settings(
    config: Path | None,
    environment: Mapping[str, str],
    *,
    home: Path | None = None,
    cwd: Path | None = None,
    installed: Iterable[Path] | None = None,
) -> Configuration:
    """Find, merge and check the settings.

    Unknown keys are noted and left out, as a run is worth more than a spelling.

    Raises:
        SettingsError: With every fault, its path as ``vllm.target_field[2].min`` and its line.
    """
    home, cwd = home or Path.home(), cwd or Path.cwd()
    folders = installations() if installed is None else list(installed)
    files, missing = candidates(config, environment, home=home, cwd=cwd, installed=folders)
    sources = gather(files, environment)
    problems = [*missing, *sources.problems]
    if not files and not problems:
        said = f"there is none in {cwd} or {home}; name one with --config"
        problems.append(("config.toml", said))
    settings, notes, found = _checked(sources.data)
    if problems := [*problems, *found]:
        raise SettingsError(sources, problems)
    assert settings is not None
    return Configuration(settings, sources, tuple(notes))


def _checked(data: Mapping[str, Any]) -> tuple[Settings | None, list[str], Problems]:
    known = deepcopy(dict(data))
    notes: list[str] = []
    for table in _GONE:
        if known.pop(table, None) is not None:
            notes.append(f"{table}: no version of the tool uses this table any more; ignored")
    while True:
        try:
            return Settings.model_validate(known), notes, []
        except ValidationError as error:
            unknown = [e["loc"] for e in error.errors() if e["type"] == "extra_forbidden"]
            if not unknown:
                return (
                    None,
                    notes,
                    [(indexed(path), said) for path, said in faults("", known, error, Settings)],
                )
            for place in unknown:
                notes.append(_unknown(place))
                _remove(known, place)


def _unknown(place: tuple[int | str, ...]) -> str:
    path, name = indexed(".".join(map(str, place))), str(place[-1])
    close = difflib.get_close_matches(name, _keys_at(Settings, place[:-1]), n=1)
    meant = f"; was {close[0]} meant?" if close else ""
    return f"{path}: unknown key, ignored{meant}"


def _remove(data: Any, place: tuple[int | str, ...]) -> None:
    for step in place[:-1]:
        data = data[step]
    del data[place[-1]]


def indexed(path: str) -> str:
    """``vllm.target_field.2.min`` as ``vllm.target_field[2].min``."""
    return _INDEX.sub(r"[\1]", path)


def _top(path: str) -> str:
    return re.split(r"[.\[]", path, maxsplit=1)[0]
