"""What the original tool measured answers for a run, where the user vouches for the model."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from searchers import Proposal
from tests.tuner.views.stories import evaluation, practices
from tuner._imported import ImportingLedger
from tuner._ledger import Ledger
from tuner.experiment import Objective
from tuner.views.msmodelslim import ImportedAccuracy, evaluation_md5, quantization_md5

PLAN = "binary_fallback"


@pytest.fixture
def known(tmp_path: Path) -> ImportingLedger:
    """An accuracy.yaml that knows the second practice of a plan, and an empty ledger."""
    plan, documents = evaluation(PLAN), practices(PLAN)
    names = [each["dataset"] for each in plan["demand"]["expectations"]]
    entry = {
        "accuracies": [{"dataset": name, "accuracy": "71.5"} for name in names],
        "expectations": [],
        "is_satisfied": False,
    }
    file = tmp_path / "accuracy.yaml"
    key = f"{evaluation_md5(plan)}-{quantization_md5(documents[1])}"
    file.write_text(yaml.safe_dump({key: entry}))
    demand = {"dataset": names[0], "target": 80}
    experiment: Any = SimpleNamespace(
        trial=SimpleNamespace(practice_document=lambda p: documents[p["index"]]),
        trial_type="quantization",
        views=({"type": "msmodelslim", "evaluation": plan},),
        objective=Objective.model_validate({"expectations": [demand]}),
    )
    ledger = Ledger(tmp_path / "ledger.jsonl")
    return ImportingLedger(ledger, ImportedAccuracy(file), experiment, identify)


def identify(proposal: Proposal) -> str:
    return f"{proposal.kind}-{proposal.parameters['index']}-{proposal.repeat}"


def asked(known: ImportingLedger, index: int, **more: Any) -> Any:
    return known.find(known.identify(Proposal(0, {"index": index}, **more)))


def test_a_practice_on_record_is_a_measurement_marked_as_imported(
    known: ImportingLedger, tmp_path: Path
) -> None:
    found = asked(known, 1)
    assert set(found.metrics.values()) == {71.5}
    assert found.environment["imported"].endswith("accuracy.yaml")
    assert found.artifacts["weights"]["practice"] == practices(PLAN)[1]
    (line,) = (tmp_path / "ledger.jsonl").read_text().splitlines()
    assert json.loads(line)["identity"] == found.identity
    assert asked(known, 1) == found
    assert Ledger(tmp_path / "ledger.jsonl").spent("run") == 0


def test_nothing_else_is_answered_from_it(known: ImportingLedger) -> None:
    assert asked(known, 0) is None
    assert asked(known, 1, repeat=1) is None
    assert asked(known, 1, kind="verification") is None
    assert known.find("never asked") is None
