"""Between practices and schemes: what a ``linear_quant`` does to a layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from trainables.quantization._patterns import matches
from trainables.quantization._practice import (
    LinearQuant,
    Practice,
    PracticeError,
    QConfig,
    parse_practice,
    processes,
)
from trainables.quantization._scheme import (
    Granularity,
    LinearScheme,
    RangeMethod,
    TensorScheme,
    named_scheme,
)

_SCOPES: dict[str, Granularity] = {
    "per_tensor": "tensor",
    "per_channel": "channel",
    "per_token": "token",
    "per_group": "group",
}
_METHODS: dict[str, RangeMethod] = {"minmax": "minmax", "mse": "mse"}
_BITS = {"int8": 8, "int4": 4}
_DEFAULT_GROUP = 128


def _qconfig(scheme: TensorScheme) -> dict[str, Any]:
    names = {granularity: scope for scope, granularity in _SCOPES.items()}
    config: dict[str, Any] = {
        "scope": names[scheme.granularity],
        "dtype": f"int{scheme.bits}",
        "symmetric": scheme.symmetric,
        "method": scheme.method,
    }
    return (
        config if scheme.group_size is None else config | {"ext": {"group_size": scheme.group_size}}
    )


def practice_from_scheme(
    scheme: str,
    smoothquant: bool | float = False,
    config_id: str | None = None,
    dataset: str = "builtin:calibration",
) -> Practice:
    """The practice that quantizes all linear layers by a named scheme.

    Args:
        scheme: A name of ``SCHEMES``.
        smoothquant: True, or the migration strength alpha, puts SmoothQuant before it.
        config_id: Name of the practice; the scheme's when None.
        dataset: Calibration data.

    Raises:
        ValueError: Unknown scheme, or alpha outside 0 to 1.
    """
    linear = named_scheme(scheme)
    process: list[dict[str, Any]] = []
    if smoothquant is not False:
        alpha = 0.5 if smoothquant is True else float(smoothquant)
        if not 0 <= alpha <= 1:
            raise ValueError(f"SmoothQuant's alpha must be between 0 and 1, not {alpha:g}")
        process.append({"type": "smooth_quant", "alpha": alpha, "symmetric": True})
    qconfig = {"weight": _qconfig(linear.weight)}
    if linear.activation is not None:
        qconfig = {"act": _qconfig(linear.activation), **qconfig}
    process.append({"type": "linear_quant", "qconfig": qconfig})
    label = {
        "w_bit": linear.weight.bits,
        "a_bit": 16 if linear.activation is None else linear.activation.bits,
        "is_sparse": False,
        "kv_cache": False,
    }
    return parse_practice(
        {
            "metadata": {"config_id": config_id or scheme, "label": label},
            "spec": {
                "process": process,
                "save": [{"type": "compressed_tensors", "part_file_size": 4}],
                "dataset": dataset,
            },
        }
    )


@dataclass(frozen=True)
class LinearTarget:
    """One ``linear_quant`` of a practice.

    Attributes:
        path: Dot path of the processor in the practice.
        scheme: What it does to a layer.
        include: Patterns a layer must match.
        exclude: Patterns a layer must not match.
    """

    path: str
    scheme: LinearScheme
    include: tuple[str, ...]
    exclude: tuple[str, ...]


def linear_targets(practice: Practice) -> tuple[LinearTarget, ...]:
    """The ``linear_quant`` processors of a practice in order, those inside groups included.

    Raises:
        PracticeError: One of them asks for a type, scope or method that is not known here.
    """
    return tuple(
        LinearTarget(path, _scheme(process, path), tuple(process.include), tuple(process.exclude))
        for path, process in processes(practice)
        if isinstance(process, LinearQuant)
    )


def layer_schemes(practice: Practice, layers: Iterable[str]) -> dict[str, LinearScheme | None]:
    """What becomes of each linear layer: the first ``linear_quant`` that takes it, or None.

    Raises:
        PracticeError: As :func:`linear_targets`.
    """
    targets = linear_targets(practice)
    return {
        layer: next(
            (
                target.scheme
                for target in targets
                if matches(layer, target.include) and not matches(layer, target.exclude)
            ),
            None,
        )
        for layer in layers
    }


def _scheme(process: LinearQuant, path: str) -> LinearScheme:
    act = process.qconfig.act
    try:
        return LinearScheme(
            _tensor_scheme(process.qconfig.weight, "weight"),
            None if act is None or act.dtype == "float" else _tensor_scheme(act, "act"),
        )
    except ValueError as error:
        raise PracticeError(f"{path}.qconfig: {error}") from error


def _tensor_scheme(config: QConfig, role: str) -> TensorScheme:
    for key, known in (("dtype", _BITS), ("scope", _SCOPES), ("method", _METHODS)):
        if getattr(config, key) not in known:
            raise ValueError(
                f"{role}.{key} {getattr(config, key)!r} is not known here, only {', '.join(known)}"
            )
    granularity = _SCOPES[config.scope]
    size = (config.ext or {}).get("group_size", _DEFAULT_GROUP)
    if not isinstance(size, int):
        raise ValueError(f"{role}.ext.group_size must be a whole number, not {size!r}")
    return TensorScheme(
        bits=_BITS[config.dtype],
        granularity=granularity,
        symmetric=config.symmetric,
        dynamic=granularity == "token",
        group_size=size if granularity == "group" else None,
        method=_METHODS[config.method],
    )
