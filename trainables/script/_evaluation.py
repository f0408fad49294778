"""The runs of the evaluation over a server that serves."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from pathlib import Path

from cluster import ProcessTree
from trainables._failures import failure_of
from trainables._trial import POLL_SECONDS, Json, Progress, TrialFailure, TrialRun
from trainables.engines._substitution import in_list
from trainables.script._command import evaluation, spawn
from trainables.script._metrics import Stamp, printed, read_metrics, stamp
from trainables.script._options import ScriptTrialOptions
from trainables.script._record import Record, Run
from trainables.script._server import EVALUATE, Server

_LAST_WORDS_S = 1.0
"""How long after a failed run the end of the server counts as its reason."""
_EXCERPT_LINES = 20


class Evaluation:
    """All runs of one trial, kept in its record."""

    def __init__(
        self, trial: TrialRun, options: ScriptTrialOptions, server: Server, record: Record
    ) -> None:
        self._trial, self._options = trial, options
        self._server, self._record = server, record
        self._excerpts: dict[str, str] = {}

    def steps(self) -> Generator[Progress, None, None]:
        """Run them one after the other; then, where only some failed, those once more.

        Raises :class:`TrialFailure` when all fail, when the server ends, or when its port is not
        its own any more.
        """
        record, count = self._record, self._options.evaluate.runs
        for number in range(1, count + 1):
            yield from self._take(number, 1)
        for again in range(2, self._options.retry_partial + 2):
            failed = [run.i for run in record.eval_runs if not run.ok]
            if not 0 < len(failed) < count:
                break
            for number in failed:
                yield from self._take(number, again)
        good = len(record.succeeded())
        if not good:
            raise self._nothing()
        record.status = "ok" if good == count else "partial"

    def _take(self, number: int, attempt: int) -> Generator[Progress, None, None]:
        yield from self._server.keep_port()
        run = yield from self._run(number, attempt)
        self._record.take(run)
        if not run.ok:
            self._server.check(_LAST_WORDS_S)
        yield from self._server.keep_port()

    def _run(self, number: int, attempt: int) -> Generator[Progress, None, Run]:
        name = f"{number}" if attempt == 1 else f"{number}-again-{attempt - 1}"
        folder = self._trial.folder / "evaluations" / name
        folder.mkdir(parents=True, exist_ok=True)
        log = self._trial.folder / f"evaluate-{name}.log"
        begin = log.stat().st_size if log.exists() else 0
        launch, given = evaluation(self._options, self._server.deployment, number, folder)
        files = self._files(given, launch.cwd or self._trial.folder)
        begun = time.monotonic()
        tree = spawn(self._trial, launch, log, stage=EVALUATE, key="trial.evaluate")
        try:
            code = yield from self._wait(tree, f"run {name} of {self._options.evaluate.runs}")
            elapsed = round(time.monotonic() - begun, 3)
        finally:
            tree.stop(self._options.stop_grace)
        metrics, missing = read_metrics(self._options.metrics, printed(log, begin), files)
        self._excerpts[log.name] = excerpt = tree.log_tail(_EXCERPT_LINES)
        error = self._error(code, missing, excerpt)
        return Run(number, not error, code, code is None, elapsed, metrics, error, log.name)

    def _wait(self, tree: ProcessTree, note: str) -> Generator[Progress, None, int | None]:
        """Its exit status; None when it is out of time."""
        deadline = time.monotonic() + self._options.evaluate.timeout
        while True:
            # What has ended is not late, however long nobody asked.
            left = max(deadline - time.monotonic(), 0.0)
            if (code := tree.wait(min(left, POLL_SECONDS))) is not None:
                return code
            if not left:
                return None
            self._server.check()
            yield Progress(EVALUATE, note)

    def _files(self, given: Mapping[str, Json], folder: Path) -> dict[str, tuple[Path, Stamp]]:
        """The files that metrics are read from, as they are before a run."""
        found = {}
        for name, metric in self._options.metrics.items():
            if metric.file is not None:
                file = folder / Path(*in_list([metric.file], given)).expanduser()
                found[name] = (file, stamp(file))
        return found

    def _error(self, code: int | None, missing: list[str], excerpt: str) -> str:
        if code is None:
            return f"did not end within {self._options.evaluate.timeout:g} s"
        if code:
            return failure_of("the evaluation", code, excerpt)[1]
        return "; ".join(missing)

    def _nothing(self) -> TrialFailure:
        """No run succeeded; the first one tells why."""
        runs = self._record.eval_runs
        first = runs[0]
        log = self._trial.folder / first.log
        excerpt = self._excerpts[first.log]
        said = f"none of {len(runs)} runs succeeded; run 1, after {first.elapsed_s:.1f} s: "
        said += first.error
        if all(run.timeout for run in runs):
            self._record.status = "timeout"
            hint = f"raise trial.evaluate.timeout, or see {log}"
            return TrialFailure("timeout", EVALUATE, said, excerpt=excerpt, suggestion=hint)
        failure = failure_of("", first.returncode, excerpt)[0] if first.returncode else "tool"
        return TrialFailure(failure, EVALUATE, said, excerpt=excerpt, suggestion=f"see {log}")
