"""The ``save_path`` of ``msmodelslim tune``, kept true by what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from searchers import Json
from tuner.views._contract import Pedigree, Story, View
from tuner.views._registry import register_view
from tuner.views.msmodelslim._candidates import Candidate, candidates, winner
from tuner.views.msmodelslim._documents import expectations
from tuner.views.msmodelslim._failures import write_failures
from tuner.views.msmodelslim._history import History
from tuner.views.msmodelslim._links import Links
from tuner.views.msmodelslim._repository import file_name, save_practice
from tuner.views.msmodelslim._trials import benchmark_outputs, newest_engine_log


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def _with_demands(evaluation: dict[str, Any]) -> dict[str, Any]:
    expectations(evaluation)
    return evaluation


PathText = Annotated[str, Field(min_length=1), AfterValidator(_absolute)]


class MsModelSlimOptions(BaseModel):
    """What the user of ``msmodelslim tune`` gave it.

    Attributes:
        folder: Its ``--save_path``.
        practice_repo: Its ``MSMODELSLIM_CUSTOM_PRACTICE_REPO``; without one the answer is saved
            in ``folder`` itself.
        evaluation: The ``evaluation`` block of the plan with all defaults; keys of
            ``accuracy.yaml`` are made from it.
        model_type: Its ``--model_type``.
        tags: What the practice is verified with; by default the plan's inference engine.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["msmodelslim"] = "msmodelslim"
    folder: PathText
    practice_repo: PathText | None = None
    evaluation: Annotated[dict[str, Any], AfterValidator(_with_demands)]
    model_type: str = "default"
    tags: list[str] | None = None


@register_view("msmodelslim")
class MsModelSlimView(View):
    """``history/``, ``quant_model``, ``round_N/quantized`` and logs, as the original leaves them.

    Round N is the practice ``<id>_<N-1>``. Weights, logs and benchmark outputs are links into the
    run's folder: they cost no space, follow a file that still grows, and can be moved together.
    What others left in the folder is moved aside, never deleted.
    """

    Options = MsModelSlimOptions
    options: MsModelSlimOptions

    def __init__(self, options: MsModelSlimOptions, *, pedigree: Pedigree | None = None) -> None:
        super().__init__(options, pedigree=pedigree)
        self._folder = Path(options.folder)
        self._history = History(self._folder / "history", options.evaluation)
        self._family: str | None = None
        self._said: set[str] = set()
        self._outputs: dict[str, tuple[Path, ...]] = {}

    def update(self, story: Story) -> tuple[str, ...]:
        told = candidates(story)
        links = Links(story.store.folder, self._log_folder())
        parts: list[Callable[[], list[str]]] = [
            lambda: self._history.update(story, told),
            lambda: self._link_weights(story, told, links),
            lambda: self._link_logs(story, told, links),
            lambda: self._save_answer(story, winner(story, told)),
            lambda: self._report_failures(story),
        ]
        notes: list[str] = []
        for part in parts:
            try:
                notes += part()
            except OSError as error:
                notes.append(f"{self._folder} is not up to date: {error}")
        notes += [f"{old} was there already; moved to {new.name}" for old, new in links.moved]
        fresh = [note for note in dict.fromkeys(notes) if note not in self._said]
        self._said.update(fresh)
        return tuple(fresh)

    def _link_weights(self, story: Story, told: list[Candidate], links: Links) -> list[str]:
        delivered, answer = story.store.best / "weights", winner(story, told)
        rounds: dict[Path, Path] = {}
        for item in told:
            weights = delivered if item is answer else item.weights
            if weights is not None and weights.is_dir():
                rounds[self._folder / f"round_{item.index + 1}" / "quantized"] = weights
        links.sync(self._folder, "round_*/quantized*", rounds)
        for folder in self._folder.glob("round_*"):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        if story.delivered and delivered.is_dir():
            links.point(self._folder / "quant_model", delivered)
        return []

    def _link_logs(self, story: Story, told: list[Candidate], links: Links) -> list[str]:
        if (newest := newest_engine_log(story.store.trials)) is not None:
            links.point(self._folder / "vllm_server.log", newest)
        logs, outputs = self._log_folder(), self._folder / "aisbench_output"
        wanted_logs: dict[Path, Path] = {}
        wanted_outputs: dict[Path, Path] = {}
        for item in told:
            for demand in expectations(self.options.evaluation):
                log = item.benchmark(demand["dataset"]).get("log")
                if log is not None and Path(log).is_file():
                    name = f"{file_name(demand['dataset'])}_trial{item.index}.log"
                    wanted_logs[logs / name] = Path(log)
            for output in self._outputs_of(item, story):
                link = outputs / output.name
                if link in wanted_outputs:
                    link = outputs / f"{output.name}_trial{item.index}_{len(wanted_outputs)}"
                wanted_outputs[link] = output
        links.sync(logs, "*_trial*.log", wanted_logs)
        links.sync(outputs, "*", wanted_outputs)
        return []

    def _outputs_of(self, item: Candidate, story: Story) -> tuple[Path, ...]:
        """A measured trial leaves nothing new, so its folder is looked through once."""
        identity = item.measurement.identity
        if identity not in self._outputs:
            self._outputs[identity] = benchmark_outputs(story.store.trial_folder(identity))
        return self._outputs[identity]

    def _log_folder(self) -> Path:
        """Where the plan wants the benchmarks' logs."""
        benchmark: Mapping[str, Json] = self.options.evaluation.get("evaluation", {})
        named = benchmark.get("aisbench", {}).get("log_dir")
        return Path(_absolute(named)) if named else self._folder / "aisbench_logs"

    def _save_answer(self, story: Story, answer: Candidate | None) -> list[str]:
        """File the answer where ``quant --quant_type`` finds it, once it meets every demand."""
        if answer is None or not answer.finished.satisfied:
            return []
        if self.options.practice_repo is None:
            folder = self._folder
        else:
            try:
                folder = Path(self.options.practice_repo) / self._pedigree()
            except Exception as error:
                return [f"the practice is in {story.store.best}, not in the repository: {error}"]
        saved = save_practice(
            folder,
            answer.practice,
            answer.config_id,
            model_type=self.options.model_type,
            tags=self._tags(),
        )
        notes = [f"practice saved: {saved.file}"] if saved.new else []
        if saved.corrected:
            notes.append(f"{saved.file}: label corrected: {', '.join(saved.corrected)}")
        return notes

    def _report_failures(self, story: Story) -> list[str]:
        write_failures(story, self._folder)
        return []

    def _pedigree(self) -> str:
        """The folder of the model's family. Raises what the callable raises."""
        if self._family is None:
            if self.pedigree is None:
                raise LookupError("the model's family is not known")
            family = self.pedigree()
            if not family or family.startswith(".") or Path(family).name != family:
                raise ValueError(f"{family!r} cannot be the name of a folder")
            self._family = family
        return self._family

    def _tags(self) -> list[str]:
        if self.options.tags is not None:
            return self.options.tags
        engine = self.options.evaluation.get("inference_engine", {}).get("type")
        return ["vLLM-Ascend"] if engine == "vllm-ascend" else []
