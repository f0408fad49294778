"""The ``strategy`` block of a plan, and the practice that it starts from."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from searchers import Proposal, make_strategy, strategy_options, strategy_types
from trainables.quantization import (
    Practice,
    PracticeError,
    check_rollback_path,
    default_rollback_path,
)
from tuner.compat._faults import faults
from tuner.compat._options import Problems
from tuner.compat._plan import BinaryFallbackPlan, ExperiencePlan, StandingHighPlan

StrategyPlan = StandingHighPlan | ExperiencePlan | BinaryFallbackPlan

_PLANS: dict[str, type[StrategyPlan]] = {
    "standing_high": StandingHighPlan,
    "standing_high_with_experience": ExperiencePlan,
    "binary_fallback": BinaryFallbackPlan,
}
_SAVE: dict[str, Any] = {"type": "ascendv1_saver", "part_file_size": 4}
_DATASET = "mix_calib.jsonl"
_STATIC_W8A8: dict[str, Any] = {
    "type": "linear_quant",
    "qconfig": {
        "act": {"scope": "per_tensor", "dtype": "int8", "symmetric": False, "method": "minmax"},
        "weight": {"scope": "per_channel", "dtype": "int8", "symmetric": True, "method": "minmax"},
    },
    "include": ["*"],
    "exclude": [],
}


def known_strategies() -> list[str]:
    """Types that a plan may name: msModelSlim's, and those that only we know."""
    return sorted({*_PLANS, *strategy_types()})


def read_strategy(
    block: dict[str, Any],
) -> tuple[StrategyPlan | dict[str, Any] | None, Practice | None, Problems]:
    """The strategy of a block whose type is known, and its practice.

    A strategy that only we know is its block. The first two are None where the problems are.
    """
    kind: str = block["type"]
    if kind not in _PLANS:
        return block, *_practice(block, kind)
    try:
        strategy = _PLANS[kind].model_validate(block)
    except ValidationError as error:
        problems = faults("strategy", block, error, _PLANS[kind])
        return None, None, problems + (_parts(block) if kind == "standing_high" else [])
    if isinstance(strategy, BinaryFallbackPlan):
        return strategy, strategy.template, _rollback_problems(strategy)
    if isinstance(strategy, ExperiencePlan):
        return strategy, *_experienced(strategy)
    practice, problems = _practice(block, kind)
    return strategy, practice, problems + _processor_problems(strategy)


def _parts(block: dict[str, Any]) -> Problems:
    """What is wrong inside the practice of a strategy whose own keys are wrong too."""
    parts = {key: block.get(key) for key in ("template", "metadata")}
    return _practice({k: v for k, v in parts.items() if isinstance(v, dict)}, "standing_high")[1]


def _rollback_problems(strategy: BinaryFallbackPlan) -> Problems:
    try:
        check_rollback_path(strategy.template, strategy.rollback_path)
    except PracticeError as error:
        return [("strategy.rollback_path", str(error))]
    return []


def _practice(block: dict[str, Any], kind: str) -> tuple[Practice | None, Problems]:
    """The practice of a template that is complete, or has metadata of its own beside it."""
    template, metadata = block.get("template"), block.get("metadata")
    if isinstance(template, dict) and "spec" in template:
        document, places = template, {"": "strategy.template"}
    else:
        document = {"spec": _default_spec() if template is None else template}
        document["metadata"] = _named(kind) if metadata is None else metadata
        places = {"spec": "strategy.template", "metadata": "strategy.metadata"}
    try:
        practice = Practice.model_validate(document)
        default_rollback_path(practice)
    except ValidationError as error:
        return None, [
            problem
            for part, place in places.items()
            for problem in faults(place, document, error, Practice, (part,) if part else ())
        ]
    except PracticeError as error:
        return None, [("strategy.template", str(error))]
    return practice, []


def _processor_problems(strategy: StandingHighPlan) -> Problems:
    problems: Problems = []
    for index, processors in enumerate(strategy.anti_outlier_strategies):
        document = {"spec": {"process": processors}}
        try:
            Practice.model_validate(document)
        except ValidationError as error:
            place = f"strategy.anti_outlier_strategies.{index}"
            problems += faults(place, document, error, Practice, ("spec", "process"))
    return problems


def experience_options(strategy: ExperiencePlan) -> dict[str, Any]:
    """The ``search`` block of ``standing_high_with_experience``."""
    return strategy.model_dump(mode="json", exclude_none=True)


def _experienced(strategy: ExperiencePlan) -> tuple[Practice | None, Problems]:
    """The practice whose processors are what experience knows, as the search begins with them."""
    options = experience_options(strategy)
    kind = options.pop("type")
    try:
        first = make_strategy(kind, options, space=None, seed=0).ask()
    except ValidationError as error:
        return None, faults("strategy", options, error, strategy_options(kind))
    assert isinstance(first, Proposal)
    spec = {**_default_spec(), "process": first.parameters["process"]}
    label = {"w_bit": int(strategy.quant_type[1])}
    document = {"metadata": _named(kind, **label), "spec": spec}
    return Practice.model_validate(document), []


def _default_spec() -> dict[str, Any]:
    return {"runner": "auto", "process": [_STATIC_W8A8], "save": [_SAVE], "dataset": _DATASET}


def _named(kind: str, **label: int) -> dict[str, Any]:
    default = {"w_bit": 8, "a_bit": 8, "is_sparse": False, "kv_cache": False}
    return {"config_id": kind, "label": default | label}
