"""One session of a run, from the lock on its folder to the delivered answer."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from cluster import Connection, Storage, connect, sweep
from searchers import Done, Proposal
from trainables import (
    Measurement,
    StageError,
    TrialFailure,
    TrialRun,
    TrialSpec,
    how_to_install,
    missing_modules,
)
from tuner._campaign import Campaign, Event, Known
from tuner._delivery import Delivery
from tuner._earlier import EarlierLedger, earlier_trials
from tuner._forecast import forecast
from tuner._guide import Guide
from tuner._identity import Identifier
from tuner._imported import ImportingLedger
from tuner._interruption import Signals, Watchdog
from tuner._nodes import Nodes
from tuner._nodes_watch import NodesWatch, nodes_of
from tuner._outcome import Carrier
from tuner._pace import Pace
from tuner._prior import read_prior
from tuner._report import RunResult, summarize
from tuner._run_folder import RunError as RunError
from tuner._run_folder import resolve_run_folder as resolve_run_folder
from tuner._status_file import StatusFile
from tuner._store import RunRecord, RunStore, now
from tuner._storyteller import Storyteller
from tuner._terminal import Say, Terminal
from tuner._view import RunView, event_record
from tuner.experiment import Experiment
from tuner.notify import Notifier
from tuner.views.msmodelslim import ImportedAccuracy

_EXPORT_SECONDS = 5.0
"""How often metrics and ``status.json`` are renewed while nothing else happens."""
_PRUNE_SECONDS = 2.0


class Session:
    """Carries one experiment out. One session of a run at a time; resumed ones share its id."""

    def __init__(self, experiment: Experiment, *, resume: bool) -> None:
        self.experiment = experiment
        self._signals = Signals()
        storage = Storage(
            experiment.storage,
            say=lambda message: self._say_storage(message),
            interrupted=lambda: self._signals.received is not None,
        )
        self.store = RunStore(experiment.storage, storage)
        self._say_storage: Say = partial(print, file=sys.stderr)
        self._resume = resume
        self._exported = 0.0
        self._kept: set[str] | None = None
        self._nodes: Nodes | None = None
        self._pruning = Pace(_PRUNE_SECONDS, clock=storage.working)
        self._status = StatusFile(self.store, self._status_document)
        self._afterwards = ExitStack()

    def run(self) -> RunResult:
        """Search until a verdict, deliver, and say what came of it.

        Raises:
            RunLockedError: Another driver works in this folder; carries its pid.
            RunError: Nothing could be started; nothing was spent.
            StorageError: The storage was gone for too long; a resume goes on.
        """
        with self.store.lock(), self._signals:
            last = self.store.record()
            if last is not None:
                sweep(last.run_id)
            resumable = self._resume and last is not None and not last.finished
            record = self.store.begin(resume=resumable)
            self.store.storage.do(lambda: self.experiment.save(self.store.experiment_file))
            spent = record.spent_s
            started = time.monotonic()
            try:
                moved = record.folder != str(self.store.folder)
                return self._run(record, restore=resumable and not moved)
            finally:
                record.spent_s = spent + time.monotonic() - started
                record.sessions[-1]["ended"] = now()
                with self._afterwards:
                    self.store.save_record(record)

    def data_of(self, kind: str) -> dict[str, Any] | None:
        """Data of the measurement of an auxiliary kind this session learned from, if any."""
        known = self._campaign.identities()
        found = [item for item in self._ledger if item.kind == kind and item.identity in known]
        return dict(found[-1].data) if found else None

    def _run(self, record: RunRecord, *, restore: bool) -> RunResult:
        experiment = self.experiment
        self._view = RunView(experiment.name, experiment.objective, record.spent_s)
        self._ledger = self.store.ledger()
        self._delivery = Delivery(self.store, experiment.trial)
        self._storyteller = Storyteller(experiment, self.store)
        with Terminal(self._view) as self._terminal, self._telling(record) as self._notifier:
            self._say_storage = self._alarm
            for fault in self._ledger.faults:
                self._alarm(fault)
            self.store.storage.do(lambda: self._prepare(record))
            self._guide = self.store.storage.do(self._guided)
            for note in self._guide.notes:
                self._terminal.say(note, "yellow")
            self._identify = Identifier(experiment.trial, experiment.trial_type)
            self._delivery.forget_undelivered(self._ledger)
            done = self._search(record, restore=restore)
            result = self._conclude(record, done)
        sweep(record.run_id)
        return result

    def _telling(self, record: RunRecord) -> Notifier:
        """Tells people of the session. What is still to be sent is waited for when all else is
        safe on disk."""
        earlier = record.sessions[:-1]
        notifier = Notifier(
            self.experiment,
            self._view,
            self._ledger,
            self._terminal.say,
            spent=lambda: self._ledger.spent(record.run_id),
            resumed=bool(earlier),
            died=bool(earlier) and earlier[-1]["ended"] is None,
        )

        def see_off() -> None:
            if counts := notifier.close():
                self.store.log_event({"event": "notified", "channels": counts})

        self._afterwards.callback(see_off)
        return notifier

    def _guided(self) -> Guide:
        """What the search is told before it begins; a simulator plays first."""
        experiment, terminal = self.experiment, self._terminal
        played = forecast(experiment, self.store.folder, terminal.say, terminal.tick)
        return Guide(read_prior(experiment), played, experiment.objective)

    def _alarm(self, message: str) -> None:
        self._terminal.say(message, "yellow")
        self._notifier.abnormal(message)

    def _prepare(self, record: RunRecord) -> None:
        """What all trials need is made here, once, under the same supervision as a trial."""
        spec = TrialSpec(
            run_id=record.run_id,
            identity="prepare",
            folder=str(self.store.folder / "prepare"),
            type=self.experiment.trial_type,
            kind="prepare",
            parameters={},
            repeat=0,
            settings={},
        )
        steps = self.experiment.trial.prepare(TrialRun(spec))
        stage = ""
        try:
            for progress in steps:
                if progress.stage != stage:
                    stage = progress.stage
                    self._terminal.say(f"preparing: {stage}")
                self._terminal.tick()
        except (StageError, TrialFailure) as error:
            raise RunError(f"{error}. {error.suggestion}".strip(". ")) from error
        finally:
            steps.close()

    def _search(self, record: RunRecord, *, restore: bool) -> Done | None:
        """The campaign's answer, or None when a signal ended the session before it."""
        self._first = self._new_campaign(record, quiet=True).ask()
        self._campaign = self._view.campaign = self._new_campaign(record)
        if isinstance(self._first, Done):
            self._campaign.ask()
        else:
            self._with_ray(record, restore=restore)
        return self._campaign.final

    def _with_ray(self, record: RunRecord, *, restore: bool) -> None:
        from tuner._metrics import RunMetrics
        from tuner._tune import Job, carry_out

        with self._connected() as connection:
            nodes = self._meet(connection, record.run_id)
            self._metrics = RunMetrics(self.experiment.name)
            carrier = Carrier(
                self.experiment, self.store, self._ledger, self._campaign, nodes, record.run_id
            )
            job = Job(
                key=record.run_id,
                folder=self.store.ray,
                strategy=self._campaign,
                to_config=carrier.config,
                to_outcome=carrier.outcome,
                has_room=nodes.has_room,
                on_begin=self._signals.install,  # Ray Tune takes SIGINT for itself
                on_report=self._on_report,
                on_tick=lambda: self._on_tick(carrier),
                on_trial=carrier.on_trial,
                given_up=carrier.given_up,
                storage=self.store.storage,
            )
            with Watchdog(connection, self._alarm), self._signals.gracefully():
                carry_out(job, restore=restore)

    @contextmanager
    def _connected(self) -> Iterator[Connection]:
        cluster = self.experiment.cluster
        self._terminal.say("starting Ray" if cluster.address == "local" else "connecting to Ray")
        with connect(
            cluster.address,
            name=self.experiment.name,
            dashboard=cluster.dashboard,
            temp_dir=None if cluster.temp_dir is None else Path(cluster.temp_dir),
        ) as connection:
            self._connection = connection
            self._signals.install()
            if cluster.address == "local" and cluster.dashboard and missing_modules("dashboard"):
                self._terminal.say(f"no Ray dashboard here; {how_to_install('dashboard')}")
            yield connection

    def _meet(self, connection: Connection, run_id: str) -> Nodes:
        """The nodes there are. Raises :class:`RunError` if they cannot hold the search's trials."""
        file, storage = self.store.folder / "nodes.json", self.store.storage
        nodes = nodes_of(
            self.experiment, [self._first], file, run_id, self._of_nodes, storage.write_json
        )
        self._watch = NodesWatch(connection, self._view, self._campaign, nodes, storage.working)
        if reasons := nodes.refusal():
            raise RunError("cluster.resources: " + "; ".join(reasons))
        if (said := nodes.warning()) is not None:
            self._terminal.say(said, "yellow")
        self._nodes = nodes
        return nodes

    def _of_nodes(self, message: str, wake: bool) -> None:
        """Something about the nodes is to be told."""
        self.store.log_event({"event": "nodes", "message": message})
        if wake:
            self._alarm(message)
        else:
            self._terminal.say(message)

    def _new_campaign(self, record: RunRecord, *, quiet: bool = False) -> Campaign:
        experiment = self.experiment
        known: Known = self._ledger
        identify: Callable[[Proposal], str] = self._identify
        if (imported := ImportedAccuracy.of_run(self.store.folder)) is not None:
            known = importing = ImportingLedger(self._ledger, imported, experiment, identify)
            identify = importing.identify
        elif (earlier := earlier_trials(experiment)) is not None:
            known = reusing = EarlierLedger(self._ledger, earlier, experiment, identify)
            identify = reusing.identify
        return Campaign(
            self._guide.tell(experiment.search.strategy()),
            objective=experiment.objective,
            budget=experiment.budget,
            known=known,
            identify=identify,
            verifies=experiment.trial.verifies(),
            policy=experiment.trial.verification_policy(),
            baseline=experiment.trial.baseline(),
            answers=experiment.trial.answers,
            spent=lambda: self._ledger.spent(record.run_id),
            observe=(lambda _: None) if quiet else self._on_event,
        )

    def _on_event(self, event: Event) -> None:
        row = self._view.on_event(event)
        self._terminal.event(event, row)
        self._notifier.on_event(event)
        self._storyteller.on_event(event, self._ledger, self._campaign.baseline)
        for said in self._guide.heard(event, self._campaign, self._ledger):
            self._alarm(said)
        self.store.log_event(event_record(event, row))
        self._status.changed()
        self._tell()

    def _tell(self, result: RunResult | None = None, verified: Measurement | None = None) -> None:
        for note in self._storyteller.tell(self._campaign.best(), result, verified):
            self._terminal.say(note, "yellow")

    def _on_report(self, report: Any) -> None:
        identity, node = report["identity"], report.get("node", "")
        if self._nodes is not None and self._nodes.located(identity, node, report["stage"]):
            where = self._nodes.whereabouts(identity)
            self.store.log_event({"event": "begun", "trial": identity[:16], **where})
        if bundles := self._view.spread(report):
            self.store.log_event({"event": "spread", "trial": identity[:16], "bundles": bundles})
        if self._view.on_report(report):
            self._status.changed()

    def _on_tick(self, carrier: Carrier) -> None:
        limit = self.experiment.budget.time
        if limit is not None and self._view.elapsed > limit:
            self._campaign.stop("budget", "the time of the budget is spent")
        self._announce_dashboard()
        carrier.cancel_obsolete()
        self._watch.tick()
        if self._pruning.due():
            with self._pruning.measured():
                self._prune()
        self._terminal.tick()
        if time.monotonic() - self._exported > _EXPORT_SECONDS:
            self._exported = time.monotonic()
            self._metrics.update(self._view)
            self._status.changed()
        self._status.tick()

    def _announce_dashboard(self) -> None:
        """The dashboard comes up after the first trials have begun."""
        if self._view.dashboard is None and self._connection.dashboard_url is not None:
            self._view.dashboard = self._connection.dashboard_url
            self._terminal.say(f"Ray dashboard: {self._view.dashboard}")

    def _prune(self) -> None:
        """Keep weights of what is in flight and of the best so far, no others."""
        best = self._campaign.best()
        keep = set(self._campaign.unfinished())
        if best is not None:
            winner = replace(best, kind="verification", repeat=0)
            keep |= {self._campaign.identify(best), self._campaign.identify(winner)}
        if keep != self._kept:
            self._kept = keep
            self.store.prune(keep)

    def _conclude(self, record: RunRecord, done: Done | None) -> RunResult:
        if done is None:
            record.verdict = "interrupted"
            result = self._result("interrupted", None, "resume continues where it stopped", None)
            self._status.save("interrupted", result)
            self._notifier.done(result)
            return result
        verified = None
        if done.best is not None and done.verdict in ("satisfied", "budget"):
            verified = self._verification(done.best)
        result = self._result(done.verdict, done.best, done.message, verified)
        if done.best is not None and done.verdict in ("satisfied", "budget"):
            measured = verified or self._own_measurement(done.best)
            self._delivery.deliver(measured, done.best.parameters, result.to_json())
        self.store.prune([])
        record.finished, record.verdict = True, done.verdict
        self._status.save(done.verdict, result)
        self._tell(result, verified)
        self._notifier.done(result)
        return result

    def _verification(self, best: Proposal) -> Measurement | None:
        if not self.experiment.trial.verifies():
            return None
        proposal = Proposal(0, best.parameters, "verification")
        return self._ledger.find(self._campaign.identify(proposal))

    def _own_measurement(self, best: Proposal) -> Measurement | None:
        """A baseline that wins was measured as well as a verification would."""
        return self._ledger.find(self._campaign.identify(best)) if best.kind == "baseline" else None

    def _result(
        self, verdict: str, best: Proposal | None, message: str, verified: Measurement | None
    ) -> RunResult:
        result = summarize(
            verdict=verdict,
            best=best,
            message=message,
            verified=verified,
            experiment=self.experiment,
            ledger=self._ledger,
            campaign=self._campaign,
            counts=self._view.counts,
            signal=self._signals.received,
        )
        return self._guide.closing(result, self._campaign, self._ledger)

    def _status_document(self) -> dict[str, Any]:
        document = self._view.to_json()
        if self._nodes is not None:
            document["nodes"] = self._nodes.to_json()
        if self._guide.agreement is not None:
            document["prior"] = self._guide.agreement.to_json()
        return document
