"""Which model a folder holds, and whether a delivered one is still what it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path

WEIGHT_SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".pth", ".gguf"})
_MEANING_SUFFIXES = frozenset({".json", ".jinja", ".txt", ".model", ".tiktoken", ".py"})
_WHOLE_BYTES = 4 << 20
_BLOCK_BYTES = 64 << 10
_BLOCKS = 64


def model_fingerprint(folder: Path) -> str:
    """Digest that tells one checkpoint from another wherever its folder lies.

    Files that give the weights their meaning (configuration, tokenizer, index, remote code) count
    with all they contain. Weight files count with name, size, and, above 4 MiB, 64 blocks of
    64 KiB at even distances, the first bytes (the safetensors header: names, types, shapes) and
    the last among them. Training, merging or quantizing anew changes nearly all bytes and is
    seen; an edit that keeps the size and touches nothing but bytes between the blocks is not.
    Files are read again only when size or modification time changed.

    Raises:
        OSError: A file cannot be read.
    """
    parts = []
    for path in sorted(folder.iterdir()):
        weights = path.suffix in WEIGHT_SUFFIXES
        if not (weights or path.suffix in _MEANING_SUFFIXES) or path.name.startswith("."):
            continue
        state = path.stat()
        digest = _sampled_digest(path.resolve(), state.st_size, state.st_mtime_ns, weights)
        parts.append([path.name, state.st_size, digest])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@lru_cache(maxsize=4096)
def _sampled_digest(path: Path, size: int, _mtime_ns: int, weights: bool) -> str:
    if not weights or size <= _WHOLE_BYTES:
        return _file_digest(path)
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        for block in range(_BLOCKS):
            stream.seek(block * (size - _BLOCK_BYTES) // (_BLOCKS - 1))
            digest.update(stream.read(_BLOCK_BYTES))
    return digest.hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def checkpoint_digest(folder: Path) -> dict[str, str]:
    """SHA-256 of every byte of every file below ``folder``, by path relative to it."""
    return {name: _file_digest(folder / name) for name in _files(folder)}


def verify_digest(folder: Path, digest: Mapping[str, str]) -> list[str]:
    """What is wrong with ``folder``, compared to its :func:`checkpoint_digest`; empty when fine.

    Weight files that were not there count too, since loaders take every one they find; other new
    files do not.
    """
    present = set(_files(folder))
    problems = [f"{name} is missing" for name in digest if name not in present]
    problems += [
        f"{name} has other content"
        for name in sorted(present & digest.keys())
        if _file_digest(folder / name) != digest[name]
    ]
    return problems + [
        f"{name} was not there before"
        for name in sorted(present - digest.keys())
        if Path(name).suffix in WEIGHT_SUFFIXES
    ]


def _files(folder: Path) -> Iterable[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
