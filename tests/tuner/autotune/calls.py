"""Calls of ``auto-tune`` in this process, as far as the experiment they stand for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from searchers import Done, Outcome, Proposal
from trainables import Measurement
from tuner._campaign import Campaign
from tuner._earlier import EarlierLedger, earlier_trials
from tuner._identity import Identifier
from tuner._ledger import Ledger
from tuner.cli._auto_tune import Prepared, parse_flags, prepare
from tuner.experiment import Experiment


def prepared(*words: str) -> Prepared:
    return prepare(parse_flags(words))


def experiment(repo: Path, *words: str) -> Experiment:
    return prepared("--repo", str(repo), *words).experiment()


def translated(repo: Path, *words: str) -> dict[str, Any]:
    """The document of a call."""
    return prepared("--repo", str(repo), *words).document.data


def search(
    experiment: Experiment, measure: Callable[[Mapping[str, Any]], float | None]
) -> tuple[Done, list[dict[str, Any]]]:
    """Carry an experiment out without Ray; its answer, and the parameters that were measured.

    Args:
        measure: The throughput of a point; None: the server crashes.
    """
    ledger = Ledger(experiment.storage / "ledger.jsonl")
    identify = Identifier(experiment.trial, experiment.trial_type)
    earlier = earlier_trials(experiment)
    known: Any = ledger
    name: Callable[[Proposal], str] = identify
    if earlier is not None:
        known = EarlierLedger(ledger, earlier, experiment, identify)
        name = known.identify
    campaign = Campaign(
        experiment.search.strategy(),
        objective=experiment.objective,
        budget=experiment.budget,
        known=known,
        identify=name,
        verifies=False,
        spent=lambda: 0,
    )
    measured: list[dict[str, Any]] = []
    while isinstance(step := campaign.ask(), Proposal):
        measured.append(dict(step.parameters))
        tps = measure(step.parameters)
        if tps is None:
            failure = {"class": "startup", "message": "it crashed"}
            campaign.tell(step, Outcome("failed", data={"failure": failure}, error="it crashed"))
            continue
        metrics = {"accuracy": 0.9, "total_tps": tps, "ok_runs": 5.0}
        ledger.append(measurement(identify(step), step.parameters, metrics))
        campaign.tell(step, Outcome("measured", metrics))
    assert isinstance(step, Done)
    return step, measured


def measurement(
    identity: str, parameters: Mapping[str, Any], metrics: Mapping[str, float], **data: Any
) -> Measurement:
    return Measurement(
        identity=identity,
        type="script",
        kind="candidate",
        parameters=dict(parameters),
        repeat=0,
        metrics=dict(metrics),
        data=data,
        artifacts={},
        environment={},
        stages=(),
        attempt=1,
        run_id="run",
        started="2026-01-02T03:04:00+00:00",
        seconds=5.25,
    )
