"""From the flags and variables of ``auto_tune.py`` to an experiment of ours."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner.compat._options import Problems, checked
from tuner.compat.autotune._notify import notify_list
from tuner.compat.autotune._settings import Settings
from tuner.compat.autotune._space import read_base, read_candidates, search_block

RUNS = "tune_runs"
"""Folder in the repo for the runs."""
OK_RUNS = "ok_runs"
EVALUATION = (
    *("python3", "eval_local.py", "--which", "bonus", "--model_dir_for_tokenizer"),
    *("./model/YukinoStuki/Qwen2.5-0.5B-Plus-LLM", "--batch", "--overwrite_jsonl"),
)
"""The evaluation that is built into the original."""
_RETRIES = {"device": 1, "network": 1, "lost": 1}
"""The original repeats no trial: a server that does not come up is an answer. What is no fault of
the parameters is repeated all the same."""
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class TuneTranslation:
    """An experiment, and what a person should know about how it came about.

    Attributes:
        data: The experiment document, JSON values only.
        repo: Folder of the scripts and of all outputs.
        notes: What the flags say and the experiment does differently.
        secrets: Variables that the document refers to, to be set before it is read.
    """

    data: dict[str, Any]
    repo: Path
    notes: tuple[str, ...] = ()
    secrets: Mapping[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return Path(self.data["storage"]) / str(self.data["name"])


class Translator:
    """Reads what the settings name once; translates from any base.

    Args:
        settings: Without faults of form.
        problems: Takes what cannot be translated.
        reuse: Whether what the results file holds is measured already.
        name: Of the run; by default it follows from the results file.
    """

    def __init__(
        self, settings: Settings, problems: Problems, *, reuse: bool = True, name: str = ""
    ) -> None:
        self._settings = settings
        self._reuse = reuse
        self.repo = Path(settings["repo"]).expanduser().absolute()
        self.name = name or run_name(settings)
        problems += list(self._paths())
        extra, place = settings["search_space_file"], settings.place("search_space_file")
        self._candidates: dict[str, list[str]] = {}
        if extra:
            self._candidates = read_candidates(Path(extra).expanduser(), place, problems)
        self.best = read_base(self.file("best"), settings.place("best"), problems)
        self._evaluation = list(EVALUATION)
        if settings["eval_command"]:
            command, where = settings["eval_command"], settings.place("eval_command")
            self._evaluation = checked(where, lambda: _words(command), [], problems)
        self._channels, self._secrets = notify_list(settings, problems)

    def file(self, name: str) -> Path:
        """An output, relative to the repo."""
        return self.repo / Path(self._settings[name]).expanduser()

    def translation(self, base: Mapping[str, str]) -> TuneTranslation:
        """The experiment that starts from ``base``, over the built-in defaults."""
        settings = self._settings
        search, fixed = search_block(base, self._candidates)
        limits: list[dict[str, Any]] = [
            {"metric": "accuracy", "min": settings["accuracy_threshold"]},
            {"metric": OK_RUNS, "min": settings["eval_runs"]},
        ]
        data: dict[str, Any] = {
            "name": self.name,
            "trial": self._trial(fixed),
            "search": search,
            "objective": {"maximize": "total_tps", "limits": limits},
            "budget": {"concurrent": 1, "retries": dict(_RETRIES)},
            "storage": str(self.repo / RUNS),
            "views": [self._view()],
        }
        if self._channels:
            data["notify"] = self._channels
        return TuneTranslation(data, self.repo, tuple(self._notes()), self._secrets)

    def _trial(self, fixed: Mapping[str, str]) -> dict[str, Any]:
        settings, repo = self._settings, str(self.repo)
        trial: dict[str, Any] = {
            "type": "script",
            "preset": "rouge",
            "start": {"command": ["bash", "run_model.sh"], "cwd": repo},
            "ready": {"path": "/", "statuses": [200, 499], "timeout": settings["startup_timeout"]},
            "port": settings["port"],
            "port_busy_retries": settings["port_busy_retries"],
            "port_busy_wait": settings["port_busy_wait_s"],
            "evaluate": {
                "command": list(self._evaluation),
                "cwd": repo,
                "runs": settings["eval_runs"],
                "timeout": settings["eval_timeout"],
            },
            "cooldown": settings["cooldown"],
        }
        if fixed:
            trial["constants"] = dict(fixed)
        return trial

    def _view(self) -> dict[str, Any]:
        return {
            "type": "auto_tune",
            "repo": str(self.repo),
            "results": str(self.file("results")),
            "best": str(self.file("best")),
            "status": str(self.file("status_file")),
            "server_logs": str(self.file("server_log_dir")),
            "reuse": self._reuse,
        }

    def _paths(self) -> Iterable[tuple[str, str]]:
        if not self.repo.is_dir():
            said = "is a file" if self.repo.exists() else "does not exist"
            yield (
                self._settings.place("repo"),
                f"{self.repo} {said}; name the folder of run_model.sh",
            )
            return
        for name in ("results", "best", "status_file"):
            file = self.file(name)
            if file.is_dir():
                yield self._settings.place(name), f"{file} is a folder; name a file"
            elif not file.parent.is_dir():
                yield self._settings.place(name), f"there is no folder {file.parent}"
        logs = self.file("server_log_dir")
        if logs.exists() and not logs.is_dir():
            yield self._settings.place("server_log_dir"), f"{logs} is a file; name a folder"

    def _notes(self) -> Iterable[str]:
        settings = self._settings
        yield from settings.notes
        if settings["port_busy_kill"]:
            place = settings.place("port_busy_kill")
            yield (
                f"{place}: what a dead run left behind is ended anyway, known by its run id; a "
                "server of anybody else on the port is waited for, never ended"
            )


def run_name(settings: Settings) -> str:
    """The name of a run that writes its results where the settings say."""
    stem = _NO_NAME.sub("_", Path(settings["results"]).stem).lstrip("._-")
    return stem[:80] or "auto_tune"


def _words(command: str) -> list[str]:
    """The words of a command that runs in the repo."""
    words = shlex.split(command)
    if not words:
        raise ValueError("names no program")
    return words
