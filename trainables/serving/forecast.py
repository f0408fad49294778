"""What the trials of an experiment would measure, were their engine simulated.

Apart from the package, because trials need none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from trainables._trial import Json, TrialFailure, TrialRun, TrialSpec
from trainables._types import TrialType
from trainables.engines._simulated import TYPE
from trainables.serving._served import ServedTrial

__all__ = ["Twin"]

_ENGINE = "trial.engine"
_UNKNOWN = frozenset({"startup_s"})
"""What a simulation says nothing of."""


class Twin:
    """An experiment whose engine is simulated; all else, such as the load, is its own.

    Args:
        trial: The experiment's, with its goal.
        simulator: Options of the engine ``simulated`` but for ``of``.
        example: Parameters that have to be understood, where there is no baseline.

    Raises:
        ValueError: Trials of that type have no engine that could be simulated, or it is already.
    """

    def __init__(
        self,
        trial: TrialType,
        simulator: Mapping[str, Json],
        example: Mapping[str, Json] | None = None,
    ) -> None:
        if not isinstance(trial, ServedTrial):
            raise ValueError("trials of this type have no engine that could be simulated")
        options = trial.options
        if options.engine.get("type") == TYPE:
            raise ValueError("the engine of the trials is simulated already; leave it out")
        rejects = options.early_rejection.model_copy(update={"windows": False, "incumbent": False})
        changes = {
            "engine": {"type": TYPE, "of": options.engine, **simulator},
            "repeats": 1,
            "final_repeats": 1,
            "baseline": example if options.baseline is None else options.baseline,
            "early_rejection": rejects,
        }
        self._original = trial
        self._trial = type(trial)(options.model_copy(update=changes))
        self._trial.goal = trial.goal

    def problems(self) -> list[tuple[str, str]]:
        """Why it cannot be simulated: path below the simulator's options, and what is wrong.

        What is wrong with the experiment itself is left out.
        """
        theirs = {said for _, said in self._original.problems()}
        found = []
        for path, said in self._trial.problems():
            if said in theirs:
                continue
            below = path.removeprefix(f"{_ENGINE}.") if path.startswith(f"{_ENGINE}.") else ""
            inside = below and below.partition(".")[0] != "of"
            found.append((below if inside else "", said))
        return found

    def identity(self) -> Json:
        """What decides the numbers, but for the parameters."""
        return self._trial.identity("candidate")

    def play(
        self,
        parameters: Mapping[str, Json],
        folder: Path,
        *,
        goes_on: Callable[[], bool],
        kind: str = "baseline",
    ) -> Mapping[str, float] | None:
        """The metrics of a trial; empty where its engine would not start.

        Args:
            folder: Where a trial's files would lie.
            kind: Of the trial; by default one that is not given up.
            goes_on: Asked between the runs of the trial; the answer False gives it up.

        Returns: None where it was given up.

        Raises:
            TrialFailure: It cannot be simulated.
        """
        sort = self._trial.options.type
        spec = TrialSpec("forecast", "forecast", str(folder), sort, kind, parameters, 0, {})
        steps = self._trial.run(TrialRun(spec))
        try:
            while goes_on():
                next(steps)
        except StopIteration as end:
            metrics: Mapping[str, float] = end.value.metrics
            return {name: value for name, value in metrics.items() if name not in _UNKNOWN}
        except TrialFailure as failure:
            if failure.failure == "out_of_memory":
                return {}
            raise
        finally:
            steps.close()
        return None
