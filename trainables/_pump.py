"""Advances a trial in small steps and turns its end into a measurement or a failure."""

from __future__ import annotations

import platform
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster import STORAGE_S, is_full, is_gone, probe
from trainables._measurement import Measurement
from trainables._program import StageError, describe_error
from trainables._trial import (
    POLL_SECONDS,
    Json,
    Progress,
    Result,
    TrialFailure,
    TrialRun,
    TrialSpec,
)
from trainables._types import trial_type

if TYPE_CHECKING:
    from trainables._crew import Crew

CANCEL = "cancel"


class TrialPump:
    """One trial under way.

    The measurement is on disk before :meth:`advance` says ``measured``, so no death of anybody
    after that point loses it. A trial whose measurement is already there answers with it.

    A storage that is gone for a while (read-only, not mounted, no answer from its server) is waited
    for: before the trial begins; with a result, which is written once it is back; and with a
    failure, which would be repeated in vain before. So is one that is full, but not with a failure,
    after which space may be made. The folder above the trial's has to be there:
    where it is not, nothing is mounted.

    Args:
        crew: What the trial holds on other nodes; whoever made it ends it after :meth:`close`.
        node: Ray's id of the node it is on; None without Ray.
        storage_s: How long a storage is waited for.
    """

    def __init__(
        self,
        spec: TrialSpec,
        crew: Crew = (),
        *,
        node: str | None = None,
        storage_s: float = STORAGE_S,
    ) -> None:
        self.spec = spec
        self._node = node
        self._folder = Path(spec.folder)
        self._run = TrialRun(spec, crew)
        self._started = datetime.now(UTC)
        self._clock = time.monotonic()
        self._progress = Progress("starting")
        self._steps: Any = None
        self._end: Result | dict[str, str] | None = None
        self._seconds = 0.0
        self._storage_s = storage_s
        self._gone_since: float | None = None

    def advance(self, seconds: float) -> dict[str, Json]:
        """Work for about ``seconds``, less when the stage changes or the trial ends.

        Returns a report ``{status, stage, note}`` with status ``running``, ``measured``,
        ``failed`` (then with ``failure``: class, stage, message, excerpt, suggestion) or
        ``cancelled``. After any status but ``running`` nothing of the trial runs any more.
        """
        try:
            if self._end is None:
                return self._advance(seconds)
        except StopIteration as end:
            self._end, self._seconds = end.value, time.monotonic() - self._clock
        except TrialFailure as failure:
            self._end = failure.to_json()
        except Exception as error:
            self._end = describe_error(error) | {"stage": self._progress.stage, "excerpt": ""}
        return self._ended(seconds)

    def close(self) -> None:
        """Stop whatever runs; safe to call at any time and again."""
        if self._steps is not None:
            self._steps.close()

    def _advance(self, seconds: float) -> dict[str, Json]:
        if self._steps is None:
            if Measurement.file(self._folder).exists():
                return self._report("measured")
            try:
                self._folder.mkdir(exist_ok=True)
                probe(self._folder)
            except OSError as error:
                return self._without_storage(error, seconds)
            self._gone_since = None
            self._steps = _begin(self._run)
        deadline = time.monotonic() + seconds
        stage = self._progress.stage
        while time.monotonic() < deadline and self._progress.stage == stage:
            if self._is_cancelled():
                self.close()
                return self._report("cancelled")
            self._progress = next(self._steps)
        return self._report("running")

    def _ended(self, seconds: float) -> dict[str, Json]:
        """Report the end, once the storage is there that it belongs to."""
        end = self._end
        try:
            probe(self._folder)
            if isinstance(end, Result):
                self._write(end)
                return self._report("measured")
        except OSError as error:
            return self._without_storage(error, seconds)
        assert end is not None
        if self._gone_since is not None:
            gone = time.monotonic() - self._gone_since
            end = {**end, "message": f"the storage was gone for {gone:.0f} s: {end['message']}"}
        return self._report("failed", failure=end)

    def _is_cancelled(self) -> bool:
        with suppress(OSError):  # a storage that is gone says nothing
            return (self._folder / CANCEL).exists()
        return False

    def _without_storage(self, error: OSError, seconds: float) -> dict[str, Json]:
        """Wait, or give up what has to be written there."""
        now = time.monotonic()
        self._gone_since = self._gone_since or now
        full = is_full(error) and not isinstance(self._end, dict)
        if (is_gone(error) or full) and now - self._gone_since < self._storage_s:
            if self._is_cancelled():
                return self._report("cancelled")
            time.sleep(min(seconds, POLL_SECONDS))
            stage = self._progress.stage
            self._progress = Progress(stage, f"waits for {self._folder}: {error.strerror}")
            return self._report("running")
        failure = self._end
        if not isinstance(failure, dict):
            said = f"{self._folder} cannot be written to: {error.strerror}"
            failure = describe_error(StageError("tool", said, "see whether it is mounted there"))
            failure |= {"stage": self._progress.stage, "excerpt": ""}
        return self._report("failed", failure=failure)

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
            environment=_environment(self._node) | dict(result.environment),
            stages=tuple(self._run.stages),
            attempt=spec.attempt,
            run_id=spec.run_id,
            started=self._started.isoformat(timespec="seconds"),
            seconds=round(self._seconds, 3),
        )
        measurement.write(self._folder)


def _begin(run: TrialRun) -> Any:
    return trial_type(run.spec.type).from_settings(run.spec.settings).run(run)


def _environment(node: str | None) -> dict[str, str]:
    found = {
        "host": socket.gethostname(),
        "machine": platform.machine(),
        "python": platform.python_version(),
    }
    return found if node is None else {**found, "node": node}
