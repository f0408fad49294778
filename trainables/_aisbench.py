"""What all callers of AISBench know about it: its words, its configurations, its version."""

from __future__ import annotations

import difflib
import hashlib
import re
import shutil
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from trainables._program import FailureClass, StageError
from trainables._trial import Json
from trainables.engines._versions import package_versions

OFFLINE = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
"""Models and datasets lie on disk; without a network, libraries would try for minutes."""
DATASETS = ("datasets", "dataset_collections")
MODELS = ("models",)
SUMMARIZERS = ("summarizers",)
"""Folders of configurations, by what they configure."""

_PACKAGE = "ais_bench_benchmark"
_OWN = "lib*/python3*/*-packages/ais_bench/benchmark/configs"
_POSTPROCESSORS = "ais_bench.benchmark.utils.postprocess.model_postprocessors"
_ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|[=>])")
_FOLDER = re.compile(r"Current exp folder:[ \t]*(\S[^\r\n]*)")
_TELLING = re.compile(r"^(?:[\w.]*(?:Error|Exception)\b|.*\[ERROR\])")
_HELP = re.compile(r"\s*\| Visit \S+ for further help\.?")
_REASON_CHARS = 600

_CLASSES: tuple[tuple[FailureClass, str], ...] = (
    ("out_of_memory", r"out of memory|MemoryError|Cannot allocate memory"),
    (
        "network",
        r"Cannot connect to host|Connect call failed|Connection (?:refused|reset|aborted)"
        r"|Server ?Disconnected|ClientOSError|ClientPayloadError|Internal Server Error"
        r"|Bad Gateway|Service Unavailable|Gateway Time-?out|Too Many Requests",
    ),
    ("timeout", r"Timeout|timed out"),
    (
        "input",
        r"UTILS-|TMAN-|ConfigError|(?:is|does) not exist|No such file|Module\w*Error|ImportError"
        r"|Bad Request|Not Found|Unprocessable|Unauthorized|Forbidden|unexpected keyword argument",
    ),
)
_SUGGESTIONS: Mapping[FailureClass, str] = {
    "network": "see the engine's log; AISBench could not get answers from it",
    "input": "see the dataset's configuration; AISBench needs its data prepared beforehand",
}


def aisbench_version(program: str) -> str | None:
    """The version that ``program`` runs; None where its packages cannot be found."""
    return package_versions(program, (_PACKAGE,)).get(_PACKAGE)


def plain(text: str) -> str:
    """Terminal output without colours and cursor movements."""
    return _ESCAPES.sub("", text).replace("\r", "\n")


def failure_class(reason: str) -> FailureClass:
    """What sort of failure AISBench's own words are about; ``tool`` when they do not say."""
    for failure, pattern in _CLASSES:
        if re.search(pattern, reason, re.IGNORECASE):
            return failure
    return "tool"


def failure(what: str, reason: str, *, otherwise: str = "see AISBench's log") -> StageError:
    """The failure that AISBench's ``reason`` stands for; ``what`` happened because of it."""
    kind = failure_class(reason)
    said = f"{what}: {reason[:_REASON_CHARS]}" if reason else what
    return StageError(kind, said, _SUGGESTIONS.get(kind, otherwise))


def telling_line(text: str) -> str:
    """The last line of an output that names an error; ``""`` when none does."""
    lines = [_HELP.sub("", line).strip() for line in plain(text).splitlines()]
    return next((line for line in reversed(lines) if _TELLING.match(line)), "")


def output_folder(output: str) -> Path:
    """Where AISBench says that its results are.

    Raises ``StageError`` when it does not.
    """
    found = _FOLDER.findall(plain(output))
    if not found:
        raise failure("ais_bench does not say where its results are", telling_line(output))
    return Path(found[-1].strip())


def unmatched(output: str, name: str) -> bool:
    """Whether AISBench ended because it has none, or several, of the configuration ``name``."""
    lines = (line.strip().strip("| ") for line in plain(output).splitlines())
    return "UTILS-MATCH-" in output and name.split("/")[0] in lines


def model_source(client: str, model: Mapping[str, Json], pred_postprocessor: str = "") -> str:
    """Python source of a model's configuration. Values are JSON, so their repr is a literal.

    Args:
        client: AISBench's class that talks to the engine.
        model: Keys of the model's entry beside ``type`` and ``pred_postprocessor``.
        pred_postprocessor: AISBench's function that prepares answers; empty for none.
    """
    lines = [f"from ais_bench.benchmark.models import {client}"]
    if pred_postprocessor:
        lines.append(f"from {_POSTPROCESSORS} import {pred_postprocessor}")
    lines += ["", "models = [", "    dict(", f"        type={client},"]
    lines += [f"        {key}={value!r}," for key, value in model.items()]
    if pred_postprocessor:
        lines.append(f"        pred_postprocessor=dict(type={pred_postprocessor}),")
    return "\n".join([*lines, "    )", "]", ""])


def private_folder(folder: Path, config_dir: str, shared: Sequence[str]) -> Path:
    """A folder of configurations, for its owner only, to which those of the kinds ``shared`` in the
    user's ``config_dir`` belong as well."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in shared if config_dir else ():
        theirs, link = Path(config_dir) / name, folder / name
        if theirs.is_dir() and not link.is_symlink():
            link.symlink_to(theirs, target_is_directory=True)
    return folder


def config_problem(program: str, config_dir: str, kinds: tuple[str, ...], config_name: str) -> str:
    """Why AISBench will refuse a name; empty when it will not, or that cannot be told here."""
    name = config_name.split("/")[0]
    theirs, own = config_files(config_dir, kinds), own_config_files(program, kinds)
    found = [file for configs in (theirs, own) for file in configs.get(name.lower(), ())]
    if len(found) > 1:
        return f"{name} is ambiguous: {', '.join(map(str, found))}; rename your own"
    if found or not own:
        return ""
    near = difflib.get_close_matches(name.lower(), [*theirs, *own], n=3)
    hint = f"; there is {', '.join(near)}" if near else ""
    return f"AISBench has no {kinds[0].removesuffix('s')} configuration {name!r}{hint}"


def config_digest(config_dir: str, kinds: tuple[str, ...], config_name: str) -> str | None:
    """SHA-256 of the user's own configuration; None for AISBench's, which come with its version."""
    found = config_files(config_dir, kinds).get(config_name.split("/")[0].lower())
    return hashlib.sha256(found[0].read_bytes()).hexdigest() if found else None


def config_files(folder: str, kinds: tuple[str, ...]) -> dict[str, list[Path]]:
    """Name, in lower case as AISBench compares it, to the files that have it."""
    found: dict[str, list[Path]] = {}
    for name in kinds if folder else ():
        for file in sorted((Path(folder) / name).rglob("*.py")):
            found.setdefault(file.stem.lower(), []).append(file)
    return found


@lru_cache(maxsize=8)
def own_config_files(program: str, kinds: tuple[str, ...]) -> dict[str, list[Path]]:
    """Those that came with the program, where they lie beside it; none otherwise."""
    folder = own_configs(program)
    return {} if folder is None else config_files(str(folder), kinds)


def own_configs(program: str) -> Path | None:
    """AISBench's folder of configurations, where it lies beside the program."""
    found = shutil.which(program)
    if found is None:
        return None
    given, real = Path(found).absolute(), Path(found).resolve()
    prefixes = dict.fromkeys((given.parent.parent, real.parent.parent))
    return next((folder for prefix in prefixes for folder in sorted(prefix.glob(_OWN))), None)
