"""``[[engine.target_field]]``: one parameter that the optimizer may vary."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
)

from tuner.compat._plan import Real

Scalar = bool | int | float | str
LOADS: dict[str, Literal["concurrency", "request_rate"]] = {
    "CONCURRENCY": "concurrency",
    "MAXCONCURRENCY": "concurrency",
    "REQUESTRATE": "request_rate",
}
"""Fields that are the load of the benchmark, never searched."""
DERIVED = ("ratio", "share", "factories", "times", "ternary_factories", "ternary_times")
DTYPES = ("int", "float", "bool", "str", "enum", "range", *DERIVED)


def _written(value: Any) -> Any:
    """TOML tells 1 from 1.0; a constant keeps what was written."""
    if isinstance(value, bool):
        return int(value)
    return value


class TargetField(BaseModel):
    """One entry, as written.

    Attributes:
        name: Column of the results; in capitals, name of the environment variable.
        config_position: ``env``, or a dotted path of the engine's configuration file.
        min, max: Range of the coordinate; for ``enum`` without meaning.
        dtype: One of :data:`DTYPES`.
        dtype_param: What the dtype needs beside the range.
        value: Value in the baseline.
        constant: Fixes the field.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)] = (
        "max_batch_size"
    )
    config_position: Annotated[str, StringConstraints(strip_whitespace=True, max_length=1000)] = (
        "BackendConfig.ScheduleConfig.maxBatchSize"
    )
    min: Real = 0.0
    max: Real = 100.0
    dtype: Literal[
        "int",
        "float",
        "bool",
        "str",
        "enum",
        "range",
        "ratio",
        "share",
        "factories",
        "times",
        "ternary_factories",
        "ternary_times",
    ] = "float"
    dtype_param: Any = None
    value: StrictBool | StrictInt | StrictFloat | StrictStr = 0.0
    constant: Annotated[Real | None, BeforeValidator(_written)] = None

    @property
    def load(self) -> Literal["concurrency", "request_rate"] | None:
        """Which part of the load the field is."""
        return LOADS.get(self.name)

    @property
    def closed(self) -> bool:
        """Whether its range is a single value."""
        return math.isclose(self.min, self.max, rel_tol=1e-5)

    @property
    def fixed(self) -> float | None:
        """The coordinate where the field is no dimension of the search."""
        if self.constant is not None:
            return self.constant
        return self.max if self.closed else None


def _schedule(name: str, key: str, **entry: Any) -> TargetField:
    return TargetField(name=name, config_position=f"BackendConfig.ScheduleConfig.{key}", **entry)


def _deploy(name: str, **entry: Any) -> TargetField:
    path = f"BackendConfig.ModelDeployConfig.ModelConfig.0.{name}"
    return TargetField(name=name, config_position=path, **entry)


_POLICIES = [0, 1, 3]
_WIDTHS = [1, 2, 4, 8, 16]


def _widths(name: str) -> TargetField:
    return _deploy(name, min=0, max=1, dtype="enum", dtype_param=_WIDTHS)


def _rest(name: str, target: str) -> TargetField:
    product = {"target_name": target, "product": 16, "dtype": "int"}
    return _deploy(name, min=0, max=0, dtype="factories", dtype_param=product)


DEFAULT_MINDIE_FIELDS: tuple[TargetField, ...] = (
    _schedule("max_batch_size", "maxBatchSize", min=10, max=1000, dtype="int"),
    _schedule(
        "max_prefill_batch_size",
        "maxPrefillBatchSize",
        min=0.1,
        max=0.7,
        dtype="ratio",
        dtype_param="max_batch_size",
    ),
    _schedule("prefill_time_ms_per_req", "prefillTimeMsPerReq", max=1000, dtype="int"),
    _schedule("decode_time_ms_per_req", "decodeTimeMsPerReq", max=1000, dtype="int"),
    _schedule("support_select_batch", "supportSelectBatch", max=1, dtype="bool"),
    _schedule("max_prefill_token", "maxPrefillTokens", min=4096, max=409600, dtype="int"),
    _schedule(
        "max_queue_deloy_mircroseconds",
        "maxQueueDelayMicroseconds",
        min=500,
        max=1000000,
        dtype="int",
    ),
    _schedule(
        "prefill_policy_type",
        "prefillPolicyType",
        max=1,
        dtype="enum",
        dtype_param=_POLICIES,
    ),
    _schedule("decode_policy_type", "decodePolicyType", max=1, dtype="enum", dtype_param=_POLICIES),
    _schedule(
        "max_preempt_count",
        "maxPreemptCount",
        max=1,
        dtype="ratio",
        dtype_param="max_batch_size",
    ),
    _widths("tp"),
    _rest("dp", "tp"),
    _widths("moe_ep"),
    _rest("moe_tp", "moe_ep"),
)
"""What is searched where ``[mindie]`` lists nothing."""
