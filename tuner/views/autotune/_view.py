"""The files of ``auto_tune.py`` in its repo, kept true by what was measured."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from searchers import Json
from trainables.engines._substitution import variables
from tuner._ledger import IMPORTED
from tuner.views._contract import Begun, Finished, Pedigree, Story, View
from tuner.views._registry import register_view
from tuner.views.autotune._files import Results, ServerLogs, write_document
from tuner.views.autotune._record import param_of, record, result_of, trial_key

if TYPE_CHECKING:
    from tuner.experiment import Experiment

_SERVER_LOG = "server.log"


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


PathText = Annotated[str, Field(min_length=1), AfterValidator(_absolute)]


class AutoTuneOptions(BaseModel):
    """Where the files lie.

    Attributes:
        repo: What paths in the files are relative to.
        results: A line for each trial.
        best: The best parameters so far.
        status: What is going on.
        server_logs: Folder of the servers' logs.
        reuse: Whether trials that ``results`` holds from elsewhere are measured already. Whoever
            says so vouches for model, machine, scripts and evaluation having been the same.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["auto_tune"] = "auto_tune"
    repo: PathText
    results: PathText
    best: PathText
    status: PathText
    server_logs: PathText
    reuse: bool = False


@register_view("auto_tune")
class AutoTuneView(View):
    """``tune_results.jsonl``, ``best_params.json``, ``tune_status.json``, ``tune_server_logs/``.

    What is told again after a restart is written once. ``best_params.json`` is written as soon as
    something better is measured, and not before a restarted run has caught up with what it knew:
    it never gets worse.
    """

    Options = AutoTuneOptions
    options: AutoTuneOptions

    def __init__(self, options: AutoTuneOptions, *, pedigree: Pedigree | None = None) -> None:
        super().__init__(options, pedigree=pedigree)
        self._results = Results(Path(options.results))
        self._logs = ServerLogs(Path(options.server_logs))
        self._told = 0
        self._begun: set[int] = set()
        self._group = ""
        self._best: Mapping[str, str] | None = None
        self._fresh = self._started = self._over = False

    def update(self, story: Story) -> tuple[str, ...]:
        if not self._started:
            self._started = True
            self._say("start", best_params=self._present(story), results=self._relative("results"))
        for finished in story.finished[self._told :]:
            self._told += 1
            self._take(finished, story)
        begun = [one for one in story.begun if one.number not in self._begun]
        self._fresh |= bool(begun) or story.verdict is not None
        self._keep_best(story)
        for one in begun:
            self._begun.add(one.number)
            self._begin(one, story)
        if story.verdict is not None and not self._over:
            self._over = True
            self._end_group(story)
            self._say("done", best_params=self._present(story), results=self._relative("results"))
        return ()

    def _take(self, finished: Finished, story: Story) -> None:
        """Write a trial that ended."""
        measurement = finished.measurement
        imported = measurement is not None and measurement.run_id == IMPORTED
        untold = finished.status == "reused" and measurement is None
        if finished.kind != "candidate" or finished.status == "cancelled" or imported or untold:
            return
        params = params_of(finished.parameters, story.experiment)
        line = record(finished, params, "")
        if not self._results.knows(line):
            if "server_log" in line:
                folder = story.store.trial_folder(finished.identity)
                kept = self._logs.keep(folder / _SERVER_LOG)
                line["server_log"] = "" if kept is None else self._from_repo(kept)
            self._results.add(line)
        if finished.status != "reused":
            self._fresh = True
            self._say(
                "trial_done",
                trial_index=finished.number + 1,
                trial_key=line["trial_key"],
                param=param_of(finished.labels),
                result=result_of(line),
                best_params=self._present(story),
            )

    def _begin(self, begun: Begun, story: Story) -> None:
        group = param_of(begun.labels)
        if group != self._group:
            self._end_group(story)
            self._group = group
            self._say("param_group", param=group, base_params=self._present(story))
        self._logs.begin(story.store.trial_folder(begun.identity) / _SERVER_LOG)
        params = params_of(begun.parameters, story.experiment)
        self._say(
            "trial_start",
            trial_index=begun.number + 1,
            trial_key=trial_key(params),
            param=group,
            params=params,
            best_params=self._present(story),
        )

    def _end_group(self, story: Story) -> None:
        if self._group and story.best is not None:
            self._say("group_best", param=self._group, best_params=self._present(story))

    def _keep_best(self, story: Story) -> None:
        if not self._fresh or story.best is None:
            return
        best = params_of(story.best, story.experiment)
        if best != self._best:
            write_document(Path(self.options.best), best)
            self._best = best

    def _present(self, story: Story) -> dict[str, str]:
        """The best so far, else where the search starts."""
        search = story.experiment.document.data["search"]
        return params_of(story.best or search.get("start", {}), story.experiment)

    def _say(self, phase: str, **facts: Json) -> None:
        write_status(Path(self.options.status), phase, facts)

    def _relative(self, name: Literal["results"]) -> str:
        return self._from_repo(Path(getattr(self.options, name)))

    def _from_repo(self, file: Path) -> str:
        return os.path.relpath(file, self.options.repo)


def write_status(file: Path, phase: str, facts: Mapping[str, Json]) -> None:
    """Replace the status file."""
    now = datetime.now().isoformat(timespec="seconds")
    write_document(file, {"ts": now, "phase": phase, **facts})


def say_crashed(views: Iterable[Mapping[str, Json]], error: str) -> None:
    """Tell in the status files of a run's views that it has died of ``error``.

    Args:
        views: The ``views`` of its experiment, of whatever type.
    """
    for block in views:
        if block.get("type") == "auto_tune":
            options = AutoTuneOptions.model_validate(dict(block))
            write_status(Path(options.status), "crashed", {"error": error})


def params_of(parameters: Mapping[str, Json], experiment: Experiment) -> dict[str, str]:
    """All that a server is told, as text; a parameter without a value is not told at all."""
    constants = getattr(experiment.trial.options, "constants", {})
    return variables({}, {**constants, **parameters})[0]
