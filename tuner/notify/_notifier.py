"""What of a run is told, and when."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import update_wrapper
from types import TracebackType
from typing import Any, Concatenate, ParamSpec

from searchers import Json, Outcome, Proposal
from tuner._campaign import Event
from tuner._judge import BaselineMissing, Judgement, judge
from tuner._ledger import Ledger
from tuner._report import RunResult
from tuner._store import now
from tuner._view import RunView
from tuner.experiment import Experiment, Kind
from tuner.notify._channels import make_channels
from tuner.notify._courier import Courier
from tuner.notify._lane import Say
from tuner.notify._notice import Notice, Progress, Score, Subject, Under
from tuner.notify._pulse import Pulse
from tuner.notify._record import Entry, Record

_ENDINGS: Mapping[str, Kind] = {
    "timeout": "timeout",
    "startup": "crashed",
    "out_of_memory": "crashed",
    "device": "crashed",
    "lost": "crashed",
}
"""By class of failure; all others are ``failed``."""

P = ParamSpec("P")


def _harmless(
    method: Callable[Concatenate[Notifier, P], None],
) -> Callable[Concatenate[Notifier, P], None]:
    """Nothing that goes wrong in telling may reach the run."""

    def guarded(self: Notifier, /, *args: P.args, **kwargs: P.kwargs) -> None:
        if not self.active:
            return
        try:
            method(self, *args, **kwargs)
        except Exception as error:
            self._excuse(error)

    update_wrapper(guarded, method)
    return guarded


class Notifier:
    """Tells people of a run, over the channels of its experiment.

    Use as a context manager around the run: what leaves it as an exception is told too. None of
    the methods raises, blocks or waits, but for :meth:`close`, which waits within bounds.

    Args:
        view: Knows where the run stands.
        ledger: As it is before the run's first trial: what is in it is no news.
        say: Tells the user one line, from any thread.
        spent: Candidates measured by the run so far.
        resumed: The run continues an earlier session.
        died: That session was killed.
        clock: Monotonic seconds.

    Attributes:
        active: The experiment has channels.
    """

    def __init__(
        self,
        experiment: Experiment,
        view: RunView,
        ledger: Ledger,
        say: Say,
        *,
        spent: Callable[[], int],
        resumed: bool,
        died: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.active = bool(experiment.notify)
        self._experiment = experiment
        self._view = view
        self._ledger = ledger
        self._say = say
        self._spent = spent
        self._resumed = resumed
        self._died = died
        self._clock = clock
        self._known = frozenset(item.identity for item in ledger)
        self._record = Record(experiment.objective, self._earlier)
        self._fresh: set[str] = set()
        self._announced: set[str] = set()
        self._progress = Progress()
        self._excused: set[str] = set()
        self._over = threading.Event()
        self._lock = threading.RLock()
        self._finished = False
        if self.active:
            self._courier = Courier(make_channels(experiment.notify), say)
            self._pulses = [Pulse(options, clock()) for options in experiment.notify]

    def __enter__(self) -> Notifier:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._over.set()
        if error is not None:
            self._end(error)

    @_harmless
    def _begin(self) -> None:
        if any(pulse.next is not None for pulse in self._pulses):
            threading.Thread(target=self._beat, name="heartbeats", daemon=True).start()
        self._refresh()
        self._post("start", known=len(self._known), resumed=self._resumed, died=self._died)

    @_harmless
    def on_event(self, event: Event) -> None:
        """Take an event of the campaign in, after the view has."""
        self._refresh()
        self._announce_best_of_demands()
        ticket, outcome = event.ticket, event.outcome
        if ticket is None or outcome is None:
            return
        if event.kind in ("measured", "reused"):
            self._measured(event, outcome)
        elif event.kind in ("failed", "retry"):
            self._failed(event, outcome)
        if event.kind in ("measured", "failed"):
            self._count_trial()

    @_harmless
    def abnormal(self, message: str) -> None:
        """Tell of something out of order that does not end the run."""
        self._post("abnormal", message=message)

    @_harmless
    def done(self, result: RunResult) -> None:
        """Tell the verdict."""
        self._over.set()
        self._refresh()
        self._announce_best_of_demands()
        self._finished = True
        ranking = self._experiment.objective.ranking
        score = None
        if ranking is not None and result.objective is not None:
            score = Score(ranking[0], result.objective)
        winner = result.lines[-1].metrics if result.best is not None and result.lines else {}
        self._progress = replace(self._progress, best=result.best, running=(), remaining_s=None)
        self._post(
            "done",
            score=score,
            metrics=self._named(winner),
            message=result.message,
            verdict=result.verdict,
            where=result.delivered or result.storage,
        )

    def close(self) -> Mapping[str, Mapping[str, int]]:
        """Wait, at most a minute, until all is sent; messages sent, failed and dropped by channel.

        An interrupt ends the waiting.
        """
        self._over.set()
        return self._courier.close() if self.active else {}

    @_harmless
    def _end(self, error: BaseException) -> None:
        if self._finished:
            return
        self._finished = True
        where = str(self._experiment.storage)
        if isinstance(error, KeyboardInterrupt):
            self._post("done", verdict="interrupted", where=where)
            return
        said = str(error) or type(error).__name__
        self._post("crashed", message=f"{type(error).__name__}: {said}", where=where)

    def _measured(self, event: Event, outcome: Outcome) -> None:
        assert event.ticket is not None
        proposal, identity = event.ticket.proposal, event.ticket.identity
        fresh = event.kind == "measured" and identity not in self._known
        if fresh:
            self._fresh.add(identity)
        subject = self._subject(event)
        entry = Entry(
            proposal.kind, subject.parameters, outcome.metrics, outcome.data, fresh, subject
        )
        lead = self._record.enter(entry) if proposal.repeat == 0 else None
        self._refresh()
        if event.kind == "measured":
            self._trial_done(subject, proposal, outcome)
        if lead is not None and lead.entry.subject is not None:
            metrics = {**lead.entry.metrics, lead.score.metric: lead.score.value}
            self._post(
                "best", subject=lead.entry.subject, metrics=self._named(metrics), score=lead.score
            )

    def _trial_done(self, subject: Subject, proposal: Proposal, outcome: Outcome) -> None:
        if not (due := self._hear_of_trials()):
            return
        judgement = self._judged(proposal, outcome)
        derived = {} if judgement is None else judgement.derived
        metrics = self._named({**outcome.metrics, **derived})
        if judgement is not None:
            broken = tuple(str(check) for check in judgement.checks if not check.ok)
            satisfied = judgement.satisfied and "stopped" not in outcome.data
            subject = replace(subject, broken=broken, satisfied=satisfied)
        note = str(outcome.data.get("note", ""))
        self._post("trial_done", to=due, subject=subject, metrics=metrics, message=note)

    def _hear_of_trials(self) -> list[int]:
        """The channels that hear of this measured trial; a fallback only where none else does."""
        takers = [
            (index, options.fallback)
            for index, options in enumerate(self._experiment.notify)
            if "trial_done" in options.takes
        ]
        heard = [index for index, fallback in takers if not fallback]
        heard = heard or [index for index, _ in takers]
        return [index for index in heard if self._pulses[index].measured()]

    def _failed(self, event: Event, outcome: Outcome) -> None:
        failure = outcome.data.get("failure") or {}
        sort = str(failure.get("class", "tool"))
        kind: Kind = "abnormal" if event.kind == "retry" else _ENDINGS.get(sort, "failed")
        subject = replace(self._subject(event), failure=sort, stage=str(failure.get("stage") or ""))
        message = str(failure.get("message") or outcome.error or "")
        self._post(kind, subject=subject, message=message)

    def _subject(self, event: Event) -> Subject:
        assert event.ticket is not None
        ticket = event.ticket
        proposal = ticket.proposal
        return Subject(
            number=proposal.number,
            kind=proposal.kind,
            identity=ticket.identity,
            parameters=dict(proposal.parameters),
            attempt=ticket.attempt,
        )

    def _judged(self, proposal: Proposal, outcome: Outcome) -> Judgement | None:
        if proposal.kind not in ("candidate", "verification"):
            return None
        campaign = self._view.campaign
        baseline = None if campaign is None else campaign.baseline
        try:
            return judge(self._experiment.objective, outcome.metrics, baseline)
        except BaselineMissing:
            return None

    def _announce_best_of_demands(self) -> None:
        """Where nothing is optimised, the search itself knows which of those that satisfy it
        prefers, and has made up its mind by the event after the measurement."""
        campaign = self._view.campaign
        best = None if campaign is None else campaign.best()
        if self._experiment.objective.ranking is not None or campaign is None or best is None:
            return
        identity = campaign.identify(replace(best, kind="candidate", repeat=0))
        measurement = self._ledger.find(identity)
        if identity not in self._fresh - self._announced or measurement is None:
            return
        self._announced.add(identity)
        subject = Subject(best.number, best.kind, identity, dict(best.parameters), satisfied=True)
        self._post("best", subject=subject, metrics=self._named(measurement.metrics))

    def _earlier(self) -> Iterable[Entry]:
        """What was measured in answer to the same question before this run began."""
        campaign = self._view.campaign
        if campaign is None:
            return
        for item in list(self._ledger):
            if item.identity not in self._known or item.repeat != 0:
                continue
            asked = Proposal(0, item.parameters, item.kind)
            if item.kind in ("candidate", "baseline") and campaign.identify(asked) == item.identity:
                yield Entry(item.kind, item.parameters, item.metrics, item.data)

    def _named(self, metrics: Mapping[str, float]) -> Mapping[str, float]:
        """The metrics that the objective speaks of, what is optimised first."""
        objective = self._experiment.objective
        names = [name for name, _ in objective.goal().objectives]
        names += [expectation.key for expectation in objective.expectations]
        names += [limit.metric for limit in objective.limits]
        return {name: metrics[name] for name in dict.fromkeys(names) if name in metrics}

    def _refresh(self) -> None:
        """Look at what only the run's own thread may look at."""
        view, budget = self._view, self._experiment.budget
        campaign, best = view.campaign, self._best()
        most = None if campaign is None else campaign.search.most()
        self._progress = Progress(
            measured=self._spent(),
            most=most if budget.trials is None else budget.trials,
            failed=view.counts.failed,
            reused=view.counts.reused,
            time_s=budget.time,
            remaining_s=view.remaining_seconds(),
            best=best,
        )

    def _best(self) -> Mapping[str, Json] | None:
        """Parameters of what would be delivered now."""
        if self._experiment.objective.ranking is not None:
            best = self._record.best
            return None if best is None else dict(best.parameters)
        proposal = self._view.best()
        return None if proposal is None else dict(proposal.parameters)

    def _post(self, kind: Kind, *, to: Iterable[int] | None = None, **facts: Any) -> None:
        with self._lock:
            if kind != "heartbeat" or not self._finished:
                self._courier.post(self._notice(kind, facts), None if to is None else frozenset(to))

    def _notice(self, kind: Kind, facts: dict[str, Any]) -> Notice:
        facts.setdefault("score", self._record.score)
        progress = self._progress
        if not self._finished:
            progress = replace(progress, running=self._running())
        return Notice(
            kind=kind,
            experiment=self._experiment.name,
            at=now(),
            progress=replace(progress, elapsed_s=round(self._view.elapsed, 1)),
            **facts,
        )

    def _running(self) -> tuple[Under, ...]:
        seconds = self._view.clock()
        return tuple(
            Under(
                one.ticket.proposal.number,
                one.ticket.proposal.kind,
                one.stage,
                round(seconds - one.stage_since, 1),
            )
            for one in list(self._view.running.values())
        )

    def _count_trial(self) -> None:
        with self._lock:
            at = self._clock()
            due = [index for index, pulse in enumerate(self._pulses) if pulse.finished(at)]
        if due:
            self._post("heartbeat", to=due)

    def _beat(self) -> None:
        """Heartbeats by real time, whatever the run's own thread is busy with."""
        while True:
            with self._lock:
                times = [pulse.next for pulse in self._pulses if pulse.next is not None]
            if self._over.wait(max(0.0, min(times) - self._clock())):
                return
            self._heartbeat()

    @_harmless
    def _heartbeat(self) -> None:
        with self._lock:
            at = self._clock()
            due = [index for index, pulse in enumerate(self._pulses) if pulse.due(at)]
        if due:
            self._post("heartbeat", to=due)

    def _excuse(self, error: Exception) -> None:
        said = f"a notification was not made: {type(error).__name__}: {error}"
        if said not in self._excused:
            self._excused.add(said)
            self._say(said)
