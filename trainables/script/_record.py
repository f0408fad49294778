"""What happened in a trial, for whoever writes it down; of a trial that failed as well."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

from trainables._trial import Json, TrialFailure

Status = Literal["ok", "partial", "failed", "timeout", "crashed"]
Phase = Literal["startup", "eval"]
SERVER_LOG = "server.log"


@dataclass(frozen=True)
class Run:
    """One run of the evaluation.

    Attributes:
        i: From 1; a repetition has the number of the run whose place it takes.
        ok: It ended with 0 in time, and all required metrics were there.
        returncode: Its exit status, negative for a signal; None when it was out of time.
        timeout: It was ended because its time was over.
        elapsed_s: Its duration in seconds.
        metrics: What was read from it.
        error: Why it failed; empty when it did not.
        log: What it printed, a file in the trial's folder.
    """

    i: int
    ok: bool
    returncode: int | None
    timeout: bool
    elapsed_s: float
    metrics: dict[str, float]
    error: str
    log: str


@dataclass
class Record:
    """A trial so far.

    Attributes:
        params: All that the server was told, constants and parameters, as text.
        status: ``ok`` all runs succeeded, ``partial`` some; ``crashed`` the server ended,
            ``timeout`` it did not serve in time or no run ended in time, ``failed`` all else.
        phase: What was under way at the end.
        health: ``status``: last answer of the server to the question whether it serves, None
            without any; ``said``: ``ready``, or what was missing.
        exit_code: Of the start command, where it ended by itself.
        startup_s: Seconds from the start until it served, or until that was given up.
        server_log: File in the trial's folder.
        eval_runs: The runs that count.
        eval_repeated: Failed runs in whose place others count.
    """

    params: dict[str, str]
    status: Status = "failed"
    phase: Phase = "startup"
    health: dict[str, Json] = field(default_factory=lambda: {"status": None, "said": "not started"})
    exit_code: int | None = None
    startup_s: float | None = None
    server_log: str = SERVER_LOG
    eval_runs: list[Run] = field(default_factory=list)
    eval_repeated: list[Run] = field(default_factory=list)

    def succeeded(self) -> list[Run]:
        return [run for run in self.eval_runs if run.ok]

    def take(self, run: Run) -> None:
        """Count a run, in the place of an earlier one of its number."""
        earlier = [one for one in self.eval_runs if one.i == run.i]
        self.eval_repeated += earlier
        kept = [one for one in self.eval_runs if one.i != run.i]
        self.eval_runs = sorted([*kept, run], key=lambda one: one.i)

    def to_json(self) -> dict[str, Json]:
        return asdict(self)


class ScriptFailure(TrialFailure):
    """A failure that tells the whole story: its document has the trial's ``record``."""

    def __init__(self, failure: TrialFailure, record: Record) -> None:
        super().__init__(
            failure.failure,
            failure.stage,
            str(failure),
            excerpt=failure.excerpt,
            suggestion=failure.suggestion,
        )
        self.record = record

    def to_json(self) -> dict[str, Json]:
        return {**super().to_json(), "record": self.record.to_json()}
