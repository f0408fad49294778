"""The ``result`` folder of ``msserviceprofiler optimizer``, kept true by what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveInt

from cluster import write_atomic
from searchers import Json
from tuner._fitness import Fitness
from tuner.views._contract import Finished, Pedigree, Story, View
from tuner.views._registry import register_view
from tuner.views.serviceparam._backup import Backup
from tuner.views.serviceparam._table import header, row, table

_RESULT, _STORE, _BACKUP = "result", "store", "bak"


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


PathText = Annotated[str, Field(min_length=1), AfterValidator(_absolute)]


class ServiceparamOptions(BaseModel):
    """What the table shows and where it lies.

    Attributes:
        folder: Root of the outputs; by default ``result`` in the run's folder.
        store: Folder of the table; by default ``store`` in the root.
        fields: Parameters in the order of their columns; by default those of the search.
        load: Columns that are the load: name to ``concurrency`` or ``request_rate``.
        constants: Values of columns that are neither parameters nor measured.
        num_prompts: Requests of a run; by default as many as were sent.
        sample_size: Requests of a candidate's run, where those are fewer.
        fitness: How the fitness is computed.
        backup: Copy logs, configuration and outputs of each trial to ``bak`` in the root.
        classes: Names of the folders in a copy, for the engine and for the benchmark.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["serviceparam"] = "serviceparam"
    folder: PathText | None = None
    store: PathText | None = None
    fields: tuple[str, ...] | None = None
    load: Mapping[str, Literal["concurrency", "request_rate"]] = {}
    constants: Mapping[str, Json] = {}
    num_prompts: PositiveInt | None = None
    sample_size: PositiveInt | None = None
    fitness: Fitness = Fitness()
    backup: bool = False
    classes: tuple[str, str] = ("Simulator", "Benchmark")


@register_view("serviceparam")
class ServiceparamView(View):
    """``store/data_storage_<start>.csv``, one row for each trial.

    The start is that of the run, in local time, so a resumed run goes on in its own file. A trial
    that was cancelled is none of the rows: nothing became of it. Whoever opens the file while it
    is replaced has the old one or the new one, whole.
    """

    Options = ServiceparamOptions
    options: ServiceparamOptions

    def __init__(self, options: ServiceparamOptions, *, pedigree: Pedigree | None = None) -> None:
        super().__init__(options, pedigree=pedigree)
        self._written = ""
        self._backup: Backup | None = None

    def update(self, story: Story) -> tuple[str, ...]:
        told = [each for each in story.finished if each.status != "cancelled"]
        if not told:
            return ()
        notes: list[str] = []
        fields = self._fields(story)
        baseline = _baseline(told)
        rows = [
            row(
                each,
                fields,
                self.options.fitness,
                baseline,
                load=self.options.load,
                constants=self.options.constants,
                num_prompts=self._requests(each),
                backup=self._copied(each, story, notes),
            )
            for each in told
        ]
        text = table(header(fields), rows)
        if text != self._written:
            file = self._store(story) / f"data_storage_{_start(story, told)}.csv"
            file.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            write_atomic(file, text, mode=0o640)
            self._written = text
        return tuple(notes)

    def _root(self, story: Story) -> Path:
        named = self.options.folder
        return story.store.folder / _RESULT if named is None else Path(named)

    def _store(self, story: Story) -> Path:
        named = self.options.store
        return self._root(story) / _STORE if named is None else Path(named)

    def _fields(self, story: Story) -> tuple[str, ...]:
        if self.options.fields is not None:
            return self.options.fields
        space = story.experiment.search.space
        return () if space is None else space.names

    def _requests(self, finished: Finished) -> int | None:
        options = self.options
        if finished.kind == "candidate" and options.sample_size is not None:
            return options.sample_size
        if options.num_prompts is not None or finished.measurement is None:
            return options.num_prompts
        sent = finished.measurement.metrics.get("requests")
        return None if sent is None else round(sent)

    def _copied(self, finished: Finished, story: Story, notes: list[str]) -> str | None:
        """Where the trial's copies are; None without any."""
        if not self.options.backup or finished.measurement is None:
            return None
        if self._backup is None:
            self._backup = Backup(self._root(story) / _BACKUP, *self.options.classes)
        folder = story.store.trial_folder(finished.measurement.identity)
        try:
            copy, said = self._backup.copy(folder)
        except OSError as error:
            copy, said = None, f"{folder.name} is not backed up: {error}"
        if said:
            notes.append(said)
        return None if copy is None else str(copy)


def _baseline(told: list[Finished]) -> Mapping[str, float] | None:
    for each in told:
        if each.kind == "baseline" and each.measurement is not None:
            return each.measurement.metrics
    return None


def _start(story: Story, told: list[Finished]) -> str:
    """When the run was first started, as the original stamps its files."""
    record = story.store.record()
    began = record.sessions[0]["started"] if record and record.sessions else told[0].at
    return datetime.fromisoformat(began).astimezone().strftime("%Y%m%d%H%M%S")
