"""Where settings come from: TOML files in their order, then the environment."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tuner.compat._options import Problems
from tuner.compat.serviceparam._config import Settings
from tuner.compat.serviceparam._lines import lines_of

PATH_VARIABLE = "MODEL_EVAL_STATE_CONFIG_PATH"
PREFIX = "model_eval_state_"
_PACKAGES = (("ms_serviceparam_optimizer", "."), ("msserviceprofiler", "modelevalstate"))
_NAMES = ("model_eval_state.toml", "config.toml")
_MOST_BYTES = 2**22


@dataclass
class Sources:
    """What all sources together say.

    Attributes:
        data: The merged tables.
        origins: Top-level key to the file or variable it comes from.
        lines: File to the lines of its values.
        files: Files read, in order.
        problems: What could not be read.
    """

    data: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    lines: dict[str, Mapping[str, int]] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    problems: Problems = field(default_factory=list)


def installations() -> list[Path]:
    """Folders of the original tool in this environment, which hold the file it was shipped with."""
    found = []
    for package, folder in _PACKAGES:
        spec = find_spec(package)
        for location in (spec.submodule_search_locations or ()) if spec else ():
            found.append(Path(location) / folder)
    return found


def candidates(
    config: Path | None,
    environment: Mapping[str, str],
    *,
    home: Path,
    cwd: Path,
    installed: Iterable[Path] = (),
) -> tuple[list[Path], Problems]:
    """The files that count, the last of them most, and those named that are not there."""
    old, new = _NAMES
    folders = list(installed)
    paths = [*(folder / old for folder in folders), home / old, cwd / old]
    paths += [*(folder / new for folder in folders), home / new, cwd / new]
    problems: Problems = []
    named = environment.get(PATH_VARIABLE) or environment.get(PATH_VARIABLE.lower())
    for place, wanted in ((PATH_VARIABLE, named), ("--config", config)):
        if not wanted:
            continue
        path = cwd / Path(wanted).expanduser()
        paths.append(path)
        if not path.is_file():
            problems.append((place, f"{path} is not there; name a TOML file"))
    existing = [path.absolute() for path in paths if path.is_file()]
    return list(dict.fromkeys(reversed(existing)))[::-1], problems


def gather(files: Sequence[Path], environment: Mapping[str, str]) -> Sources:
    """Merge files and environment; whole top-level tables of a later file replace earlier ones."""
    sources = Sources(files=list(files))
    for file in files:
        _add_file(sources, file)
    for name, text in environment.items():
        key = name.lower().removeprefix(PREFIX)
        if name.lower().startswith(PREFIX) and key in Settings.model_fields:
            _add_variable(sources, name, key, text)
    return sources


def _add_file(sources: Sources, file: Path) -> None:
    try:
        if file.stat().st_size > _MOST_BYTES:
            sources.problems.append((str(file), f"is larger than {_MOST_BYTES} bytes"))
            return
        text = file.read_text(encoding="utf-8-sig")
        data = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        sources.problems.append((str(file), f"cannot be read: {error}"))
        return
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        sources.problems.append((str(file), f"is not valid TOML: {error}"))
        return
    sources.lines[str(file)] = lines_of(text)
    sources.data |= data
    sources.origins |= dict.fromkeys(data, str(file))


def _add_variable(sources: Sources, name: str, key: str, text: str) -> None:
    """A table is JSON, which joins what files say of that table."""
    before = sources.data.get(key)
    if text.lstrip().startswith(("{", "[")):
        try:
            value = json.loads(text)
        except ValueError as error:
            sources.problems.append((name, f"is not valid JSON: {error}"))
            return
        sources.data[key] = _joined(before, value)
        if not isinstance(before, dict):
            sources.origins[key] = name
        return
    sources.data[key] = text
    sources.origins[key] = name


def _joined(before: Any, value: Any) -> Any:
    if not isinstance(before, dict) or not isinstance(value, dict):
        return value
    merged = dict(before)
    for key, item in value.items():
        merged[key] = _joined(before.get(key), item)
    return merged
