"""Which files a dataset's configuration of AISBench is about, told from its source.

AISBench runs a configuration to learn that; here it is only read. What is computed while it runs,
such as the names of parts in a loop, may be any text, so every file that it may mean counts.
"""

from __future__ import annotations

import ast
import glob
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from trainables._aisbench import DATASETS, config_files, own_config_files, own_configs
from trainables._content import content_digest, is_cache

_KEYS = re.compile(r"(?:.*_)?(?:path|file|files)")
_ANY = "*"
_MAGIC = re.compile(r"[*?\[]")
_CACHE = "AIS_BENCH_DATASETS_CACHE"
"""Names the folder that relative paths start from; by default that of AISBench's package."""


def data_digest(program: str, config_dir: str, config_name: str) -> str | None:
    """SHA-256 of all that a dataset's configuration reads: configurations it is made from, and
    data; wherever they lie. None where none of that is found on this machine.

    Args:
        program: AISBench.
        config_dir: The user's folder of configurations; empty for none.
        config_name: ``NAME`` or ``NAME/VARIABLE``.
    """
    name = config_name.split("/")[0].lower()
    theirs, own = config_files(config_dir, DATASETS), own_config_files(program, DATASETS)
    found = [*theirs.get(name, ()), *own.get(name, ())][:1]
    configs = own_configs(program)
    package = None if configs is None else configs.parents[2]
    data = Path(cache) if (cache := os.environ.get(_CACHE)) else package
    sources = list(_sources(found, package))
    places = [place for source in sources for place in _places(source, data)]
    digests = {f"{place.name} {content_digest(place)}" for place in (*sources[1:], *places)}
    return hashlib.sha256("\n".join(sorted(digests)).encode()).hexdigest() if digests else None


def _sources(files: list[Path], package: Path | None) -> Iterator[Path]:
    """Configurations, and those that they read."""
    waiting, seen = [*files], set[Path]()
    while waiting:
        file = waiting.pop(0)
        if file in seen or not file.is_file():
            continue
        seen.add(file)
        yield file
        for node in _imports(file):
            base = package
            if node.level:
                base = next(islice(file.parents, node.level - 1, None), None)
            if base is not None and node.module:
                waiting.append(base.joinpath(*node.module.split(".")).with_suffix(".py"))


def _imports(file: Path) -> Iterator[ast.ImportFrom]:
    """What a configuration says in its ``with read_base():``."""
    for block in ast.walk(_parsed(file)):
        if isinstance(block, ast.With) and "read_base" in ast.unparse(block.items[0]):
            yield from (each for each in block.body if isinstance(each, ast.ImportFrom))


def _places(source: Path, root: Path | None) -> Iterator[Path]:
    """Files and folders that a configuration names under a key such as ``path``; ``root`` is where
    relative ones begin."""
    tree = _parsed(source)
    known = _texts(tree)
    for node in ast.walk(tree):
        for value in _values(node):
            pattern = re.sub(r"\*+", "*", _pattern(value, known))
            base = Path("/") if pattern.startswith("/") else root
            # Else any folder would do, or all there are.
            if base is not None and _fixed(pattern).strip("/."):
                yield from _matches(base, pattern.lstrip("/"))


def _matches(base: Path, pattern: str) -> list[Path]:
    try:
        found = list(base.glob(pattern))
    except (OSError, ValueError):  # no path at all: too long, or with a NUL
        return []
    return [place for place in found if not (glob.has_magic(pattern) and is_cache(place))]


def _fixed(pattern: str) -> str:
    """The folder that all paths of a pattern are in; a pattern of one path itself."""
    if not glob.has_magic(pattern):
        return pattern
    return _MAGIC.split(pattern)[0].rpartition("/")[0]


def _parsed(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8", errors="replace"))
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])


def _values(node: ast.AST) -> Iterator[ast.expr]:
    """The values of a node's keys that name files."""
    pairs: list[tuple[str, ast.expr]] = []
    if isinstance(node, ast.Call):
        pairs = [(one.arg or "", one.value) for one in node.keywords]
    elif isinstance(node, ast.Dict):
        pairs = [
            (str(key.value), value)
            for key, value in zip(node.keys, node.values, strict=True)
            if isinstance(key, ast.Constant)
        ]
    for key, value in pairs:
        if _KEYS.fullmatch(key):
            if isinstance(value, ast.List | ast.Tuple):
                yield from value.elts
            elif isinstance(value, ast.Dict):
                yield from value.values
            else:
                yield value


def _texts(tree: ast.Module) -> dict[str, str]:
    """Names that stand for one text, as patterns."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    again = target.id in known
                    known[target.id] = _ANY if again else _pattern(node.value, known)
    return known


def _pattern(node: ast.expr, known: Mapping[str, str]) -> str:
    """The pattern of all paths that an expression may be."""

    def joined(nodes: list[ast.expr], between: str = "") -> str:
        return between.join(_pattern(each, known) for each in nodes)

    match node:
        case ast.Constant(value=str() as text):
            return glob.escape(text)
        case ast.Name(id=name):
            return known.get(name, _ANY)
        case ast.JoinedStr(values=parts):
            return joined(parts)
        case ast.FormattedValue(value=inner):
            return _pattern(inner, known)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return joined([left, right])
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return joined([left, right], "/")
        case ast.Call(func=ast.Attribute(attr="join", value=ast.Name() | ast.Attribute())):
            return joined(node.args, "/")
    return _ANY
