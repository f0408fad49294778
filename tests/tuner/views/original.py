"""Runs in the interpreter of msModelSlim itself: ``python original.py TASK ARGUMENT...``.

Drives the classes that keep the history, the accuracies and the repository of ``msmodelslim
tune``, without a model and without torch doing any work. Made the folder ``data`` with the task
``tell``; the answers are the last line of stdout, as JSON.
"""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from msmodelslim.app.naive_quantization.application import NaiveQuantizationApplication
from msmodelslim.core.const import QuantType
from msmodelslim.core.practice import PracticeConfig
from msmodelslim.core.quant_service.modelslim_v1.quant_config import load_specific_config
from msmodelslim.core.tune_strategy import EvaluateAccuracy, EvaluateResult
from msmodelslim.core.tune_strategy.binary_fallback.strategy import (
    BinaryFallbackStrategy,
    BinaryFallbackStrategyConfig,
)
from msmodelslim.core.tune_strategy.standing_high.strategy import (
    StandingHighStrategy,
    StandingHighStrategyConfig,
)
from msmodelslim.infra.service_oriented_evaluate_service import (
    ServiceOrientedEvaluateServiceConfig,
)
from msmodelslim.infra.yaml_practice_accuracy_manager import YamlTuningAccuracy
from msmodelslim.infra.yaml_practice_history_manager import YamlTuningHistory
from msmodelslim.infra.yaml_practice_manager import YamlPracticeManager
from msmodelslim.utils.hash import calculate_md5


def tell(story: str, folder: str) -> None:
    """Write a history of what the real strategies propose, with accuracies as given."""
    told = yaml.safe_load(Path(story).read_text())
    evaluation = ServiceOrientedEvaluateServiceConfig.model_validate(told["plan"])
    history, cache = YamlTuningHistory(folder), YamlTuningAccuracy(folder)
    proposed = _proposed(told["strategy"], told["levels"])
    for practice, result in zip(proposed, told["results"], strict=True):
        evaluated = EvaluateResult(
            accuracies=[
                EvaluateAccuracy(dataset=name, accuracy=Decimal(str(value)))
                for name, value in result["accuracies"].items()
            ],
            expectations=evaluation.demand.expectations,
            is_satisfied=result["satisfied"],
        )
        cache.append_accuracy(practice, evaluation, evaluated)
        history.append_history(practice, evaluated)
    block = json.dumps(evaluation.model_dump(mode="json"), indent=1)
    (Path(folder) / "evaluation.json").write_text(block + "\n")


def md5(file: str) -> list[str]:
    """Keys of practices given as JSON."""
    given = json.loads(Path(file).read_text())
    return [calculate_md5(_practice(one).extract_quant_config()) for one in given]


def cached(folder: str, story: str, practices: str) -> list[Any]:
    """What the tool's cache in ``folder`` says of practices given as JSON."""
    plan = yaml.safe_load(Path(story).read_text())["plan"]
    config = ServiceOrientedEvaluateServiceConfig.model_validate(plan)
    cache = YamlTuningAccuracy(folder)
    answers = []
    for one in json.loads(Path(practices).read_text()):
        found = cache.get_accuracy(_practice(one), config)
        answers.append(None if found is None else found.model_dump(mode="json"))
    return answers


def best(repository: str, pedigree: str, model_type: str, quant_type: str) -> list[str]:
    """Id and remark of what ``quant --quant_type`` would take."""
    import msmodelslim

    official = Path(msmodelslim.__file__).parent / "lab_practice"
    manager = YamlPracticeManager(official, Path(repository))
    application = NaiveQuantizationApplication(manager, None, None)
    found, remark = application.get_config(pedigree, model_type, QuantType(quant_type))
    if (Path(repository) / pedigree / f"{found.metadata.config_id}.yaml").exists():
        manager.get_config_by_id(pedigree, found.metadata.config_id)
    return [found.metadata.config_id, remark]


def _practice(document: dict[str, Any]) -> PracticeConfig:
    practice = PracticeConfig.model_validate(document)
    practice.spec = load_specific_config(practice.spec)
    return practice


def _proposed(strategy: dict[str, Any], levels: list[Any]) -> list[PracticeConfig]:
    if strategy["type"] == "binary_fallback":
        config = BinaryFallbackStrategyConfig.model_validate(strategy)
        fallback = BinaryFallbackStrategy(config, None)
        return [fallback._build_practice(rollback_list=layers) for layers in levels]
    config = StandingHighStrategyConfig.model_validate(strategy)
    high = StandingHighStrategy(config, None)
    choices = config.anti_outlier_strategies
    return [
        high._build_practice_config(choices[level["strategy"]], level["layers"]) for level in levels
    ]


if __name__ == "__main__":
    task = {"tell": tell, "md5": md5, "cached": cached, "best": best}[sys.argv[1]]
    print(json.dumps(task(*sys.argv[2:])))
