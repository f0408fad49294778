"""How AISBench is called: its command line, and the file that tells it about the served model."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from trainables._aisbench import DATASETS, SUMMARIZERS, model_source, private_folder
from trainables._program import StageError
from trainables._trial import Json
from trainables.evaluation._aisbench_options import AisbenchOptions

_SHARED = (*DATASETS, *SUMMARIZERS)
"""Folders of the user's configurations that AISBench is to find next to ours."""


class Call(BaseModel):
    """Everything about one call of AISBench, as JSON; the request of ``run_aisbench``.

    Attributes:
        dataset: The dataset's name in the experiment.
        command: The program and its first arguments.
        config_name: The dataset's configuration.
        mode: AISBench's mode.
        extra_args: Further arguments.
        client: AISBench's class that talks to the engine.
        model: Keys of the model's entry beside ``type`` and ``pred_postprocessor``.
        pred_postprocessor: AISBench's function that prepares answers; empty for none.
        model_name: Name of the model's configuration, which is that of its file.
        model_folder: Where the file goes; empty for the private folder.
        subdir: Folder below the private one's ``models``.
        keep_model: Whether the file stays.
        config_dir: The user's folder of configurations; empty for none.
        folder: Where AISBench works: its output, its temporary files, the private folder.
        log: File for the command and all it prints.
        timeout: Seconds until it is stopped.
        metric_keys: Keys of a result that become metrics.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: str
    command: list[str]
    config_name: str
    mode: str
    extra_args: list[str]
    client: str
    model: dict[str, Json]
    pred_postprocessor: str
    model_name: str
    model_folder: str
    subdir: str
    keep_model: bool
    config_dir: str
    folder: str
    log: str
    timeout: float
    metric_keys: list[str]

    @property
    def abbr(self) -> str:
        return str(self.model["abbr"])


def call_for(
    options: AisbenchOptions,
    name: str,
    *,
    served: Mapping[str, Json],
    trial: str,
    folder: Path,
    log: Path,
    timeout: float,
) -> Call:
    """The call that evaluates one dataset.

    Args:
        options: The evaluation block.
        name: The dataset.
        served: ``path``, ``model``, ``host_ip`` and ``host_port`` of the served model.
        trial: Short name of the trial.
        folder: Where AISBench is to work.
        log: File for what it prints.
        timeout: Seconds that are left; the settings may ask for less.
    """
    settings, dataset, meta = options.settings, options.datasets[name], options.settings.model_meta
    suffix = meta.name_suffix
    if suffix == "auto":
        suffix = f"trial_{trial}_{int(time.time())}"
    return Call(
        dataset=name,
        command=options.command,
        config_name=dataset.config_name,
        mode=dataset.mode or settings.mode,
        extra_args=[*settings.extra_args, *dataset.extra_args],
        client=dataset.api_chat_type,
        model=_model(options, name, served),
        pred_postprocessor=settings.pred_postprocessor or "",
        model_name="_".join(part for part in (meta.base_name, suffix) if part),
        model_folder=meta.directory,
        subdir=meta.subdir,
        keep_model=not settings.cleanup_model_config,
        config_dir=settings.config_dir,
        folder=str(folder),
        log=str(log),
        timeout=min(settings.timeout, timeout),
        metric_keys=options.metric_keys(name),
    )


def _model(options: AisbenchOptions, name: str, served: Mapping[str, Json]) -> dict[str, Json]:
    settings, dataset, meta = options.settings, options.datasets[name], options.settings.model_meta
    generation = dict(settings.generation_kwargs)
    if dataset.chat_template_kwargs:
        # A key of its own is refused by AISBench 3.1; these go into every request as they are.
        template = generation.get("chat_template_kwargs", {})
        generation["chat_template_kwargs"] = {**template, **dataset.chat_template_kwargs}
    model = {
        "attr": meta.attr,
        "abbr": meta.abbr,
        **served,
        "request_rate": dataset.request_rate or settings.request_rate,
        # AISBench counts attempts: with 0 it would not ask at all.
        "retry": max(1, settings.retry),
        "max_out_len": dataset.max_out_len or settings.max_out_len,
        "batch_size": settings.batch_size,
        "trust_remote_code": settings.trust_remote_code,
        "generation_kwargs": generation,
    }
    if dataset.returns_tool_calls is not None:
        model["returns_tool_calls"] = dataset.returns_tool_calls
    return model


def model_file(call: Call) -> str:
    """Python source of the model's configuration."""
    return model_source(call.client, call.model, call.pred_postprocessor)


@contextmanager
def configured(call: Call) -> Iterator[list[str]]:
    """The command line, valid as long as the model's configuration exists: inside the context.

    The file is readable for its owner only. It never goes into AISBench's own folders unless the
    experiment names one, where trials must not share a file: each has its own engine.

    Raises:
        StageError: Another trial is using the file.
    """
    config_dir = Path(call.config_dir) if call.config_dir else None
    target = Path(call.model_folder)
    if not call.model_folder:
        config_dir = private_folder(Path(call.folder) / "config", call.config_dir, _SHARED)
        target = config_dir / "models" / call.subdir
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = target / f"{call.model_name}.py"
    with file.open("a", encoding="utf-8") as stream:
        _lock(stream.fileno(), file)
        try:
            os.fchmod(stream.fileno(), 0o600)
            stream.truncate(0)
            stream.write(model_file(call))
            stream.flush()
            yield _command_line(call, config_dir)
        finally:
            if not call.keep_model:
                file.unlink(missing_ok=True)


def _lock(descriptor: int, file: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise StageError(
            "input",
            f"{file} is in use by another trial",
            "leave settings.model_meta.name_suffix out, so that every trial has a file of its own",
        ) from error


def _command_line(call: Call, config_dir: Path | None) -> list[str]:
    own: list[Any] = ["--models", call.model_name, "--datasets", call.config_name]
    own += ["--mode", call.mode, "--work-dir", Path(call.folder) / "output"]
    if config_dir is not None:
        own += ["--config-dir", config_dir]
    return [*call.command, *map(str, own), *call.extra_args]
