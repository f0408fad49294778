"""What is known about serving before the first measurement.

Names tell what a parameter or a metric probably is, and physics tells how the two are then
related: elasticities, that is slopes of log metric over log parameter. They only centre the prior
of the model in :mod:`searchers._auto_model`; measurements overrule them, and a name that tells
nothing leaves a prior without direction.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, TypeAlias

from searchers._contract import Json

Role: TypeAlias = Literal["load", "seqs", "tensor", "replicas", "tokens", "memory", ""]
"""What a numeric parameter does: requests at once, limit of those served at once, devices that
share one model, copies of it, tokens per step, memory for the cache; empty: unknown."""

Kind: TypeAlias = Literal["throughput", "speed", "first", "next", "whole", ""]
"""What a metric measures: tokens or requests per second of all, tokens per second of one user,
time to first token, time between tokens, time of a whole request; empty: unknown."""

_ROLES: tuple[tuple[Role, str], ...] = (
    ("seqs", r"(max|num)_(num_)?(seqs|reqs|running)|max_?batch_?size|maxbatchsize"),
    ("tokens", r"batched_tokens|prefill_?tokens|chunk|max_num_tokens"),
    ("memory", r"memory_util|mem_?fraction|memory_fraction|mem_util"),
    ("load", r"concurren|(^|_)conc(_|$)|(^|_)(users|clients|rate|qps|rps|bs|batch|streams)$"),
    ("load", r"batch_?size$|request_rate|in_?flight"),
    ("tensor", r"(^|_)tp(_|$|size)|tensor_parallel|world_?size"),
    (
        "tensor",
        r"num_(of_)?(gpu|npu|card|chip|device|hardware|accel)|(^|_)n?(gpu|npu|card|device)s$",
    ),
    ("replicas", r"(^|_)dp(_|$|size)|data_parallel|replica"),
)
_KINDS: tuple[tuple[Kind, str], ...] = (
    ("first", r"ttft|first_token|prefill"),
    ("speed", r"intvty|interactiv|per_user|user_(tput|throughput|tokens)"),
    ("next", r"tpot|itl|inter_token|per_(output_)?token|decode_(latency|time)"),
    ("throughput", r"tput|through|tokens_?per|per_s|tok_s|tps|rps|qps|goodput|_rate$"),
    ("whole", r"e2e|laten|duration|response|elapsed"),
)
_PER_DEVICE = r"per_(gpu|npu|chip|card|device|accel)"

_LOAD: dict[Kind, tuple[float, float, float]] = {
    "throughput": (1.0, -1.0, 0.0),
    "speed": (0.0, -1.0, 0.0),
    "first": (0.25, 0.5, 1.2),
    "next": (0.0, 1.0, 0.0),
    "whole": (0.0, 1.0, 0.7),
    "": (0.0, 0.0, 0.0),
}
"""Slopes over log running requests, over log(1 + running / knee), and over log of the requests
per running request. In a closed loop throughput is requests over their time (Little's law)."""

_SLOPES: dict[str, dict[Kind, float]] = {
    "tensor": {"throughput": 0.6, "speed": 0.6, "first": -0.7, "next": -0.6, "whole": -0.6},
    "replicas": {"throughput": 0.7, "speed": 0.3, "first": -0.5, "next": -0.3, "whole": -0.4},
    "tokens": {"throughput": 0.05, "speed": -0.03, "first": -0.15, "next": 0.03},
    "memory": {"throughput": 0.1, "first": -0.1},
    "bits": {"throughput": -0.4, "speed": -0.4, "first": 0.3, "next": 0.4, "whole": 0.4},
    "speed": {"throughput": 0.7, "speed": 0.7, "first": -0.7, "next": -0.7, "whole": -0.7},
}
_SPREADS = {
    "tensor": 0.6,
    "replicas": 0.4,
    "tokens": 0.15,
    "memory": 0.5,
    "bits": 0.3,
    "speed": 0.35,
}

_BANDWIDTHS = {
    "mi355x": 8.0, "mi325x": 6.0, "mi300x": 5.3, "mi250": 3.2, "b300": 8.0, "b200": 8.0,
    "gh200": 4.0, "h200": 4.8, "h100": 3.35, "h20": 4.0, "a100": 2.0, "a800": 2.0, "h800": 3.35,
    "l40": 0.86, "a10": 0.6, "l4": 0.3, "t4": 0.3, "v100": 0.9, "gaudi3": 3.7, "gaudi2": 2.45,
    "910c": 3.2, "910b": 1.6, "pvc": 3.2, "max1550": 3.2, "4090": 1.0, "5090": 1.8,
}  # fmt: skip
"""TB/s of memory, from data sheets: what bounds a decoding step."""

_ENGINES = {
    "tensorrt": 1.1, "trt": 1.1, "vllm": 1.0, "sglang": 1.0, "mindie": 1.0, "lmdeploy": 1.0,
    "deepspeed": 0.6, "llamacpp": 0.4, "ollama": 0.35, "transformers": 0.3,
}  # fmt: skip
"""Speed of engines beside each other, rounded; published comparisons agree on the order only."""


def role(name: str) -> Role:
    """What a numeric parameter of this name probably does."""
    plain = _plain(name)
    return next((role for role, pattern in _ROLES if re.search(pattern, plain)), "")


def kind(metric: str, *, large_is_good: bool) -> Kind:
    """What a metric of this name probably measures; an unknown one goes by what is good of it."""
    plain = _plain(metric)
    fallback: Kind = "throughput" if large_is_good else "whole"
    return next((kind for kind, pattern in _KINDS if re.search(pattern, plain)), fallback)


def counts_requests(name: str) -> bool:
    """Whether a load of this name is a number of requests, not a rate."""
    return not re.search(r"rate|qps|rps", _plain(name))


def load_slopes(kind: Kind) -> tuple[float, float, float]:
    """Expected slopes of a log metric over the three load features, see ``_LOAD``."""
    return _LOAD[kind]


def slope(effect: str, metric: str, kind: Kind) -> float:
    """The expected elasticity of a metric over a role, over ``bits`` or over ``speed``."""
    expected = _SLOPES.get(effect, {}).get(kind, 0.0)
    shared = effect in ("tensor", "replicas") and re.search(_PER_DEVICE, _plain(metric))
    return expected - 1.0 if shared else expected


def spread(effect: str) -> float | None:
    """How far the real elasticity may be from the expected one; None: nothing is known."""
    return _SPREADS.get(effect)


def bits(values: Sequence[Json]) -> list[float] | None:
    """Bits of a weight for each value of a precision parameter; None when it is something else."""
    found = [_bits(value) for value in values]
    known = [value for value in found if value is not None]
    return None if len(known) < len(found) or len(set(known)) < 2 else known


def speeds(values: Sequence[Json]) -> list[float] | None:
    """Relative speed of each device or engine; None when fewer than two are known.

    One that is not known counts as the middle of those that are.
    """
    for table in (_BANDWIDTHS, _ENGINES):
        found = [_looked_up(table, value) for value in values]
        known = sorted(value for value in found if value is not None)
        if len(known) >= 2:
            middle = known[len(known) // 2]
            return [middle if value is None else value for value in found]
    return None


def _bits(value: Json) -> float | None:
    plain = _plain(str(value))
    if plain in ("none", "half", "bfloat16"):
        return 16.0
    if re.search(r"awq|gptq|nf4|q4", plain):
        return 4.0
    match = re.search(r"(?:^|_|bf|fp|int|float|w|q)(2|3|4|5|6|8|16|32)(?:$|_|a)", plain)
    return float(match[1]) if match and re.search(r"[a-z]", plain) else None


def _looked_up(table: dict[str, float], value: Json) -> float | None:
    plain = re.sub(r"[^a-z0-9]", "", str(value).lower())
    return next((number for key, number in table.items() if key in plain), None)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
