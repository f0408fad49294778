"""What is wrong with a quantization experiment, seen before anything is started."""

from __future__ import annotations

from pathlib import Path

import yaml

from trainables._blocks import Problems, model_problems, plugin_problems
from trainables._extras import how_to_install, missing_modules
from trainables._quantization_options import QuantizationOptions
from trainables._quantization_practice import Practices
from trainables.evaluation import make_evaluator
from trainables.quantization import (
    Practice,
    PracticeError,
    calibration_digest,
    make_quantizer,
)


def find_problems(options: QuantizationOptions, practices: Practices) -> Problems:
    """Every fault of model, practice, quantizer, evaluation and calibration."""
    problems = [*model_problems(options.model), *_evaluation_problems(options)]
    if missing := missing_modules("quantize"):
        said = f"needs {', '.join(missing)}; {how_to_install('quantize')}"
        problems.append(("trial.type", said))
    problems += _practice_problems(options, practices)
    try:
        calibration_digest(options.calibration.dataset)
    except (OSError, ValueError) as error:
        problems.append(("trial.calibration.dataset", str(error)))
    return problems


def _evaluation_problems(options: QuantizationOptions) -> Problems:
    path = "trial.evaluation"
    return plugin_problems(
        path,
        lambda: [
            (f"{path}.{place}", said)
            for place, said in make_evaluator(options.evaluation).problems()
        ],
    )


def _practice_problems(options: QuantizationOptions, practices: Practices) -> Problems:
    try:
        practice = practices.base
    except (OSError, ValueError, yaml.YAMLError) as error:
        return [("trial.practice", str(error))]
    problems: Problems = []
    try:
        practices.check()
    except PracticeError as error:
        problems.append(("search.rollback_path", str(error)))
    return problems + plugin_problems(
        "trial.quantizer",
        lambda: _quantizer_problems(options, practice),
    )


def _quantizer_problems(options: QuantizationOptions, practice: Practice) -> Problems:
    quantizer, model = make_quantizer(options.quantizer), Path(options.model)
    found = [("trial.practice", said) for said in quantizer.problems(practice)]
    # Where the weights will lie is the run's choice; the model's folder stands in for it.
    obstacles = quantizer.obstacles(model, model, options.device)
    return found + [("trial.quantizer", said) for said in obstacles]
