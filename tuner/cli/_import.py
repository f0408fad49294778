"""``import``: results of the original tools, for a run to use."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from tuner.cli._options import add_json

_WARNING = """\
{file} holds {usable} accuracies that can be used.
Its keys say which practice was measured and under which evaluation block. They say neither of
which model nor with which versions of the tools: if those were others, the accuracies are wrong
for this run, and nothing can show it. If they were measured from the very model this run tunes,
say so with --trust-same-model; otherwise do not import them."""


def add_commands(commands: Any) -> None:
    parser = commands.add_parser("import", help="reuse an accuracy.yaml of msmodelslim tune")
    parser.add_argument("file", type=Path, help="<save_path>/history/accuracy.yaml")
    parser.add_argument(
        "--into",
        type=Path,
        required=True,
        metavar="RUN_FOLDER",
        help="the run's folder, <storage>/<name>; may not exist yet",
    )
    parser.add_argument(
        "--trust-same-model",
        action="store_true",
        help="the accuracies were measured from the model that this run tunes",
    )
    add_json(parser)
    parser.set_defaults(command=_import)


def _import(arguments: argparse.Namespace) -> int:
    from tuner.views.msmodelslim import ImportedAccuracy, NotAnAccuracyFile

    file, folder = arguments.file.absolute(), arguments.into.absolute()
    try:
        content = file.read_bytes()
        found = ImportedAccuracy(file)
    except (OSError, NotAnAccuracyFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    _say_left_out(found.zeros, found.broken)
    if problem := _cannot_take(folder, found.usable, file):
        print(f"error: {problem}", file=sys.stderr)
        return 2
    if not arguments.trust_same_model:
        print(_WARNING.format(file=file, usable=found.usable), file=sys.stderr)
        return 2
    try:
        stored, replaced = _store(file, content, folder)
    except (OSError, NotAnAccuracyFile) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    said = {
        "imported": found.usable,
        "zeros": found.zeros,
        "broken": found.broken,
        "replaced": replaced,
        "file": str(stored),
    }
    print(
        json.dumps(said)
        if arguments.json
        else f"{found.usable} accuracies in {stored}; the next run or resume here uses those that "
        "match what it proposes"
    )
    return 0


def _say_left_out(zeros: int, broken: int) -> None:
    if zeros:
        said = f"{zeros} entries have an accuracy of zero, as the tool also writes for a benchmark"
        print(f"{said} that failed; they will be measured again", file=sys.stderr)
    if broken:
        print(f"{broken} entries cannot be understood and are left out", file=sys.stderr)


def _cannot_take(folder: Path, usable: int, file: Path) -> str | None:
    """Why nothing can be imported; None when it can."""
    if not usable:
        return f"{file}: there is no accuracy in it that can be used"
    known = ("experiment.yaml", "run.json", "run.lock", "imported")
    if folder.exists() and not folder.is_dir():
        return f"{folder}: is not a folder"
    if folder.is_dir() and any(folder.iterdir()) and not _any(folder, known):
        return f"{folder}: is neither a run's folder nor empty"
    return None


def _any(folder: Path, names: tuple[str, ...]) -> bool:
    return any((folder / name).exists() for name in names)


def _store(file: Path, content: bytes, folder: Path) -> tuple[Path, int]:
    """Merge usable entries into what was imported before; the file, and how many were replaced.

    Raises ``RunLockedError`` while a driver works in the folder: it would not see them.
    """
    from cluster import write_atomic
    from tuner._store import RunStore, now
    from tuner.views.msmodelslim import merge_imported

    with RunStore(folder).lock():
        stored, replaced = merge_imported(file, folder)
        record = {"at": now(), "file": str(file), "sha256": hashlib.sha256(content).hexdigest()}
        log = stored.with_name("imports.jsonl")
        earlier = log.read_text(encoding="utf-8") if log.exists() else ""
        write_atomic(log, earlier + json.dumps(record, ensure_ascii=False) + "\n")
    return stored, replaced
