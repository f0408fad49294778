"""One trial: a proposal carried out once, stage by stage, into an immutable measurement.

A trial type writes its trial as a generator (:data:`Steps`). It runs stages with ``yield from
trial.program(...)``; every ``yield`` hands control back, so whoever pumps the generator can report
progress, notice a cancellation, and end the trial at any point: closing the generator stops what
runs. A finished stage leaves its result on disk, so a trial that died goes on after its last
finished stage.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cluster import ProcessTree, child_environment, write_json
from trainables._failures import failure_of
from trainables._program import FailureClass

if TYPE_CHECKING:
    from trainables._crew import Crew

Json: TypeAlias = Any
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class TrialSpec:
    """Everything a node needs to carry a proposal out; travels as JSON in the Ray trial's config.

    Attributes:
        run_id: Names the run that owns every process of the trial.
        identity: Digest of what decides the result; names the trial's folder.
        folder: Absolute folder of the trial, the same path on driver and node.
        type: Trial type, as registered.
        kind: ``candidate`` or an auxiliary kind of the trial type, such as ``baseline``.
        parameters: What the strategy proposed.
        repeat: 0, or the number of an independent repetition of the same parameters.
        settings: The experiment's ``trial`` block, resolved (absolute paths, defaults filled in).
        attempt: From 1; grows when an infrastructure failure is retried.
        context: What the driver knows and this trial needs, such as where to deliver.
    """

    run_id: str
    identity: str
    folder: str
    type: str
    kind: str
    parameters: Mapping[str, Json]
    repeat: int
    settings: Mapping[str, Json]
    attempt: int = 1
    context: Mapping[str, Json] = field(default_factory=dict)

    def to_json(self) -> dict[str, Json]:
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Json]) -> TrialSpec:
        return cls(**document)


@dataclass(frozen=True)
class Progress:
    """What a running trial is doing, for people."""

    stage: str
    note: str = ""


@dataclass(frozen=True)
class Result:
    """What a finished trial found.

    Attributes:
        metrics: Named finite numbers, units in the name.
        data: Structured results, such as a layer ranking or per-item records; ``note``: what a
            person should know at once.
        artifacts: Name to ``{path, ...}`` of what the trial leaves on disk.
        environment: Versions of the tools that made the numbers.
    """

    metrics: Mapping[str, float]
    data: Mapping[str, Json] = field(default_factory=dict)
    artifacts: Mapping[str, Json] = field(default_factory=dict)
    environment: Mapping[str, Json] = field(default_factory=dict)


Steps: TypeAlias = Generator[Progress, None, Result]


class TrialFailure(Exception):
    """A stage failed; says nothing about the quality of the parameters.

    Attributes:
        failure: Class of failure, which decides about a retry.
        stage: The stage that failed.
        excerpt: Last lines of the stage's log.
        suggestion: What the user can do, if anything is known.
    """

    def __init__(
        self,
        failure: FailureClass,
        stage: str,
        message: str,
        *,
        excerpt: str = "",
        suggestion: str = "",
    ) -> None:
        super().__init__(message)
        self.failure: FailureClass = failure
        self.stage = stage
        self.excerpt = excerpt
        self.suggestion = suggestion

    def to_json(self) -> dict[str, str]:
        return {
            "class": self.failure,
            "stage": self.stage,
            "message": str(self),
            "excerpt": self.excerpt,
            "suggestion": self.suggestion,
        }


class TrialRun:
    """The surroundings of one trial on its node: its folder, its processes, its stage records.

    Attributes:
        crew: What it holds on other nodes: a member for each bundle of its placement but the
            first; empty where there is one bundle.
    """

    def __init__(self, spec: TrialSpec, crew: Crew = ()) -> None:
        self.spec = spec
        self.crew = crew
        self.folder = Path(spec.folder)
        self.stages: list[dict[str, Json]] = []

    def program(
        self,
        stage: str,
        module: str,
        request: Mapping[str, Json],
        *,
        timeout: float,
        valid: Callable[[Mapping[str, Json]], bool] = lambda result: True,
        read_meanwhile: Iterable[Path] = (),
    ) -> Generator[Progress, None, dict[str, Json]]:
        """Run a stage program in its own interpreter and return its result document.

        A result left by an earlier attempt is returned at once if ``valid`` accepts it (weights
        it speaks of may have been deleted since) and no stage before it had to run anew.

        Files ``read_meanwhile`` are the program's that others read while it runs; what an earlier
        attempt wrote into them is removed before anybody can take it for news.

        Raises :class:`TrialFailure` when the program fails, dies, or runs longer than ``timeout``
        seconds.
        """
        result_file = self._result_file(stage)
        known = self.known(stage)
        if known is not None and valid(known):
            self._record(stage, 0.0, resumed=True)
            return known
        for file in (result_file, *read_meanwhile):
            file.unlink(missing_ok=True)
        request_file = self.folder / "stages" / f"{stage}.request.json"
        write_json(request_file, request)
        started = time.monotonic()
        argv = [sys.executable, "-m", module, str(request_file), str(result_file)]
        code, excerpt = yield from self._supervise(stage, argv, timeout)
        result = _read_result(result_file)
        if code != 0 or result is None:
            raise _stage_failure(stage, code, result_file, excerpt, timeout)
        self._record(stage, time.monotonic() - started, resumed=False)
        return result

    def known(self, stage: str) -> dict[str, Json] | None:
        """The result of a stage that an earlier attempt finished, if no stage had to run anew."""
        unchanged = all(earlier["resumed"] for earlier in self.stages)
        return _read_result(self._result_file(stage)) if unchanged else None

    def _result_file(self, stage: str) -> Path:
        return self.folder / "stages" / f"{stage}.json"

    def _supervise(
        self, stage: str, argv: Sequence[str], timeout: float
    ) -> Generator[Progress, None, tuple[int | None, str]]:
        """Yield until the program ended; its exit code, None when it had to be stopped."""
        tree = ProcessTree.start(
            argv,
            env=child_environment(self.spec.run_id, self.label, surroundings()),
            cwd=self.folder,
            log=self.folder / f"{stage}.log",
            run_id=self.spec.run_id,
            label=self.label,
        )
        deadline = time.monotonic() + timeout
        try:
            while (code := tree.wait(POLL_SECONDS)) is None and time.monotonic() < deadline:
                yield Progress(stage)
            return code, tree.log_tail(20)
        finally:
            tree.stop()

    @property
    def label(self) -> str:
        return f"{self.spec.kind}-{self.spec.identity[:8]}"

    def _record(self, stage: str, seconds: float, *, resumed: bool) -> None:
        self.stages.append({"name": stage, "seconds": round(seconds, 3), "resumed": resumed})


def _read_result(file: Path) -> dict[str, Json] | None:
    """The result document of a stage that finished well; None for all else."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if not (isinstance(document, dict) and document.get("ok")):
        return None
    result = document.get("result")
    return result if isinstance(result, dict) else None


def _stage_failure(
    stage: str, code: int | None, result_file: Path, excerpt: str, timeout: float
) -> TrialFailure:
    if code is None:
        return TrialFailure(
            "timeout",
            stage,
            f"{stage} did not finish within {timeout:g} s",
            excerpt=excerpt,
            suggestion="raise the stage's timeout, or look at its log for what it waits for",
        )
    try:
        error = json.loads(result_file.read_text(encoding="utf-8"))["error"]
        message, suggestion = error["message"], error["suggestion"]
        failure = error["class"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        failure, message, suggestion = failure_of(stage, code, excerpt)
    return TrialFailure(failure, stage, message, excerpt=excerpt, suggestion=suggestion)


def surroundings() -> dict[str, str]:
    """What a stage program needs beside this process's environment.

    Our packages can be imported when they are not installed but run from a checkout. Idle OpenMP
    threads sleep instead of spinning: where trials share cores, spinning costs half of them.
    """
    checkout = str(Path(__file__).resolve().parent.parent)
    theirs = os.environ.get("PYTHONPATH")
    return {
        "PYTHONPATH": f"{checkout}{os.pathsep}{theirs}" if theirs else checkout,
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "PASSIVE"),
    }
