"""Advances a trial in small steps and turns its end into a measurement or a failure."""

from __future__ import annotations

import platform
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainables._measurement import Measurement
from trainables._program import describe_error
from trainables._trial import Json, Progress, Result, TrialFailure, TrialRun, TrialSpec
from trainables._types import trial_type

if TYPE_CHECKING:
    from trainables._crew import Crew

CANCEL = "cancel"


class TrialPump:
    """One trial under way.

    The measurement is on disk before :meth:`advance` says ``measured``, so no death of anybody
    after that point loses it. A trial whose measurement is already there answers with it.

    Args:
        crew: What the trial holds on other nodes; whoever made it ends it after :meth:`close`.
    """

    def __init__(self, spec: TrialSpec, crew: Crew = ()) -> None:
        self.spec = spec
        self._folder = Path(spec.folder)
        self._run = TrialRun(spec, crew)
        self._started = datetime.now(UTC)
        self._clock = time.monotonic()
        self._progress = Progress("starting")
        self._steps: Any = None

    def advance(self, seconds: float) -> dict[str, Json]:
        """Work for about ``seconds``, less when the stage changes or the trial ends.

        Returns a report ``{status, stage, note}`` with status ``running``, ``measured``,
        ``failed`` (then with ``failure``: class, stage, message, excerpt, suggestion) or
        ``cancelled``. After any status but ``running`` nothing of the trial runs any more.
        """
        try:
            return self._advance(seconds)
        except StopIteration as end:
            self._write(end.value)
            return self._report("measured")
        except TrialFailure as failure:
            return self._report("failed", failure=failure.to_json())
        except Exception as error:
            document = describe_error(error) | {"stage": self._progress.stage, "excerpt": ""}
            return self._report("failed", failure=document)

    def close(self) -> None:
        """Stop whatever runs; safe to call at any time and again."""
        if self._steps is not None:
            self._steps.close()

    def _advance(self, seconds: float) -> dict[str, Json]:
        if self._steps is None:
            if Measurement.file(self._folder).exists():
                return self._report("measured")
            self._folder.mkdir(parents=True, exist_ok=True)
            self._steps = _begin(self._run)
        deadline = time.monotonic() + seconds
        stage = self._progress.stage
        while time.monotonic() < deadline and self._progress.stage == stage:
            if (self._folder / CANCEL).exists():
                self.close()
                return self._report("cancelled")
            self._progress = next(self._steps)
        return self._report("running")

    def _report(self, status: str, **more: Json) -> dict[str, Json]:
        return {
            "status": status,
            "stage": self._progress.stage,
            "note": self._progress.note,
            "identity": self.spec.identity,
            **more,
        }

    def _write(self, result: Result) -> None:
        spec = self.spec
        measurement = Measurement(
            identity=spec.identity,
            type=spec.type,
            kind=spec.kind,
            parameters=spec.parameters,
            repeat=spec.repeat,
            metrics=result.metrics,
            data=result.data,
            artifacts=result.artifacts,
            environment=_environment() | dict(result.environment),
            stages=tuple(self._run.stages),
            attempt=spec.attempt,
            run_id=spec.run_id,
            started=self._started.isoformat(timespec="seconds"),
            seconds=round(time.monotonic() - self._clock, 3),
        )
        measurement.write(self._folder)


def _begin(run: TrialRun) -> Any:
    return trial_type(run.spec.type).from_settings(run.spec.settings).run(run)


def _environment() -> dict[str, str]:
    return {
        "host": socket.gethostname(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
