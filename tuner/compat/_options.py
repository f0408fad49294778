"""What the command line of ``msmodelslim tune`` says, understood."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from trainables.quantization import Device, parse_device
from tuner.experiment import parse_duration

T = TypeVar("T")
Problems = list[tuple[str, str]]
"""(path, message) pairs; the path is a flag, a variable, or dotted in the plan."""

LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_VARIABLE = "MSMODELSLIM_LOG_LEVEL"
REPOSITORY_VARIABLE = "MSMODELSLIM_CUSTOM_PRACTICE_REPO"
TOOL_VARIABLES = {
    "msmodelslim": "TUNER_MSMODELSLIM",
    "vllm": "TUNER_VLLM",
    "ais_bench": "TUNER_AIS_BENCH",
}
_TRUTH = {
    **dict.fromkeys(("true", "yes", "on"), True),
    **dict.fromkeys(("false", "no", "off"), False),
}


@dataclass(frozen=True)
class Tools:
    """Commands of the tools, each of which lives in an environment of its own; None: by default.

    Attributes:
        msmodelslim: Such as ``/opt/msmodelslim/bin/msmodelslim``.
        vllm: An interpreter that has vLLM, or a command that ends with ``serve``.
        ais_bench: Such as ``/opt/aisbench/bin/ais_bench``.
    """

    msmodelslim: list[str] | None = None
    vllm: list[str] | None = None
    ais_bench: list[str] | None = None


@dataclass(frozen=True)
class TuneRequest:
    """Everything but the plan.

    Attributes:
        model_path: Folder of the float checkpoint, absolute.
        save_path: Folder for everything that comes of it, absolute.
        model_type: Name of the model among msModelSlim's adapters.
        timeout: Seconds or ``3D4H``-like text; None: no bound.
        practice_repo: Folder that collects practices that satisfied.
        visible: ``ASCEND_RT_VISIBLE_DEVICES`` of the caller: what indices of cards refer to.
    """

    model_path: Path
    save_path: Path
    device: Device = field(default_factory=lambda: Device("npu"))
    model_type: str = "default"
    timeout: str | int | None = None
    trust_remote_code: bool = False
    tools: Tools = field(default_factory=Tools)
    practice_repo: str | None = None
    visible: str | None = None


def choose_device(text: str, ids: Sequence[str] | None) -> Device:
    """The device of ``--device`` and ``--device_id`` together.

    Raises:
        ValueError: One of them is wrong, or they contradict each other.
    """
    device = parse_device(text)
    if ids is None:
        return device
    try:
        named = parse_device(f"{device.kind}:{','.join(ids)}")
    except ValueError as error:
        raise ValueError(f"--device_id {' '.join(ids)}: {error}") from None
    if device.indices is not None and device.indices != named.indices:
        raise ValueError(f"{text!r} and --device_id {' '.join(ids)} name different cards")
    return named


def parse_timeout(text: str) -> str | int:
    """``3D4H``-like text as it is, or a number of whole seconds.

    Raises:
        ValueError: It is neither.
    """
    if text.isascii() and text.isdigit():
        return int(text)
    parse_duration(text)
    return text


def parse_truth(text: str) -> bool:
    """``true``, ``yes``, ``on`` and their opposites, in any case.

    Raises:
        ValueError: It is none of these.
    """
    try:
        return _TRUTH[text.lower()]
    except KeyError:
        raise ValueError(f"{text!r}: write True or False") from None


def parse_command(text: str) -> list[str]:
    """The words of a command, quoted as in a shell; those that are paths of something, absolute.

    Tools run in folders of their own.

    Raises:
        ValueError: There are none, or a quote is not closed.
    """
    words = shlex.split(text)
    if not words:
        raise ValueError("names no program")
    paths = [Path(word).expanduser() if "/" in word else None for word in words]
    return [
        word if path is None or not path.exists() else str(path.absolute())
        for word, path in zip(words, paths, strict=True)
    ]


def parse_engine_command(text: str) -> list[str]:
    """As :func:`parse_command`; the program ``vllm`` alone means ``vllm serve``."""
    words = parse_command(text)
    return [*words, "serve"] if Path(words[-1]).name == "vllm" else words


def parse_log_level(environment: Mapping[str, str]) -> str:
    """The level that ``MSMODELSLIM_LOG_LEVEL`` sets; ``info`` when it is not set.

    Raises:
        ValueError: It is neither info nor debug.
    """
    text = environment.get(LOG_VARIABLE, "info")
    if text.lower() not in ("info", "debug"):
        raise ValueError(f"{text!r}: write info or debug")
    return text.lower()


def checked(place: str, parse: Callable[[], T], default: T, problems: Problems) -> T:
    """What ``parse`` returns; after a ``ValueError``, noted at ``place``, the default."""
    try:
        return parse()
    except ValueError as error:
        problems.append((place, str(error)))
        return default


def path_problems(model_path: Path, save_path: Path, config: Path) -> Problems:
    """What is wrong with the three paths of a call. Makes nothing."""
    problems: Problems = []
    if not model_path.is_dir():
        said = "is a file" if model_path.exists() else "does not exist"
        problems.append(
            ("--model_path", f"{model_path} {said}; name the folder of a float checkpoint")
        )
    if config.suffix.lower() not in (".yaml", ".yml"):
        problems.append(("--config", f"{config} must be a .yaml or .yml file"))
    there = next(folder for folder in (save_path, *save_path.parents) if folder.exists())
    if not there.is_dir():
        problems.append(("--save_path", f"{there} is a file; name a folder"))
    elif not os.access(there, os.W_OK | os.X_OK):
        problems.append(("--save_path", f"{there} cannot be written to by this user"))
    return problems
