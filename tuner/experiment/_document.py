"""Reading a YAML document with the line of every value, and changing it from the command line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from tuner.experiment._problems import ExperimentError, Problem

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_MOST_BYTES = 4 * 2**20


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes ``1e-5`` for a word; everyone who writes it means a number."""


class _Dumper(yaml.SafeDumper):
    """Quotes the words that :class:`_Loader` would take for a number, and writes equal parts out
    each time: a person reads no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _resolver in (_Loader, _Dumper):
    _resolver.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
        list("-+.0123456789"),
    )


def to_yaml(data: Any) -> str:
    """Plain values as YAML that :func:`read_document` reads as the same values."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return text


class Document:
    """A YAML mapping as the user wrote it.

    Attributes:
        source: Where it came from, for messages.
        data: The plain values. ``${NAME}`` references are still in it.
    """

    def __init__(self, source: str, data: dict[str, Any], lines: Mapping[str, int]) -> None:
        self.source = source
        self.data = data
        self._lines = lines

    def line(self, path: str) -> int | None:
        """The line of the value at a dotted path, or of its nearest parent that is there."""
        while path:
            if path in self._lines:
                return self._lines[path]
            path = path.rpartition(".")[0]
        return None

    def problem(self, path: str, message: str) -> Problem:
        return Problem(path, message, self.line(path))

    def error(self, problems: Iterable[tuple[str, str]]) -> ExperimentError:
        return ExperimentError(self.source, [self.problem(*problem) for problem in problems])

    def set(self, assignment: str) -> None:
        """Apply ``a.b.c=value``; the value is YAML. Missing mappings are made.

        Raises:
            ExperimentError: The assignment is malformed or leads into something else than a
                mapping or list.
        """
        path, equals, text = assignment.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ExperimentError("--set", [Problem("", f"{assignment!r} is not PATH=VALUE")])
        try:
            value = yaml.load(text, Loader=_Loader)
        except yaml.YAMLError as error:
            raise ExperimentError("--set", [Problem(path, f"{text!r} is not YAML")]) from error
        target: Any = self.data
        for key in keys[:-1]:
            target = _descend(target, key, path)
        _assign(target, keys[-1], value, path)

    def expanded(self, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
        """The data with every ``${NAME}`` and ``${NAME:-default}`` replaced.

        Raises:
            ExperimentError: A variable is not set and has no default; all such are named.
        """
        problems: list[tuple[str, str]] = []

        def expand(value: Any, path: str) -> Any:
            if isinstance(value, dict):
                return {
                    key: expand(item, f"{path}.{key}" if path else str(key))
                    for key, item in value.items()
                }
            if isinstance(value, list):
                return [expand(item, f"{path}.{index}") for index, item in enumerate(value)]
            return substitute(value, path) if isinstance(value, str) else value

        def substitute(text: str, path: str) -> str:
            def replacement(match: re.Match[str]) -> str:
                name, default = match.groups()
                found: str | None = environment.get(name, default)
                if found is None:
                    problems.append((path, f"environment variable {name} is not set"))
                    return ""
                return found

            return _REFERENCE.sub(replacement, text)

        data: dict[str, Any] = expand(self.data, "")
        if problems:
            raise self.error(problems)
        return data


def read_document(file: Path) -> Document:
    """Read a YAML file whose top is a mapping.

    Raises:
        ExperimentError: It cannot be read, is not YAML, is not a mapping, or repeats keys (all
            repeated keys are named, each with its line).
    """
    source = str(file)

    def refuse(message: str, line: int | None = None) -> ExperimentError:
        return ExperimentError(source, [Problem("", message, line)])

    try:
        if file.stat().st_size > _MOST_BYTES:
            raise refuse(f"is larger than {_MOST_BYTES} bytes; this is no experiment file")
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise refuse(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise refuse("is not UTF-8 text") from error
    try:
        node = yaml.compose(text, Loader=_Loader)
        data = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        said = " ".join(part for part in (error.context, error.problem) if part)
        raise refuse(f"is not valid YAML: {said}", mark.line + 1 if mark else None) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise refuse(f"is not valid YAML: {error}") from error
    if not isinstance(data, dict) or node is None:
        raise refuse("must be a mapping of keys to values")
    lines: dict[str, int] = {}
    repeated: list[Problem] = []
    _walk(node, "", lines, repeated, set())
    if repeated:
        raise ExperimentError(source, repeated)
    return Document(source, data, lines)


def _walk(
    node: yaml.Node, path: str, lines: dict[str, int], repeated: list[Problem], seen: set[int]
) -> None:
    if path:
        lines.setdefault(path, node.start_mark.line + 1)
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            _walk(item, f"{path}.{index}" if path else str(index), lines, repeated, seen)
    elif isinstance(node, yaml.MappingNode):
        keys: set[str] = set()
        for key, item in node.value:
            name = str(key.value)
            inner = f"{path}.{name}" if path else name
            line = key.start_mark.line + 1
            if name in keys:
                repeated.append(Problem(inner, "this key stands here twice", line))
            keys.add(name)
            lines.setdefault(inner, line)
            _walk(item, inner, lines, repeated, seen)


def _descend(target: Any, key: str, path: str) -> Any:
    if isinstance(target, list) and key.isdigit() and int(key) < len(target):
        return target[int(key)]
    if isinstance(target, dict):
        if not isinstance(target.get(key), (dict, list)):
            target[key] = {}
        return target[key]
    raise ExperimentError("--set", [Problem(path, f"{key!r} leads nowhere")])


def _assign(target: Any, key: str, value: Any, path: str) -> None:
    if isinstance(target, dict):
        target[key] = value
    elif isinstance(target, list) and key.isdigit() and int(key) < len(target):
        target[int(key)] = value
    else:
        raise ExperimentError("--set", [Problem(path, f"{key!r} leads nowhere")])
