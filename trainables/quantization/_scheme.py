"""What becomes of a linear layer's numbers: bits, granularity, symmetry, when ranges are taken."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

Granularity: TypeAlias = Literal["tensor", "channel", "token", "group"]
RangeMethod: TypeAlias = Literal["minmax", "mse"]


@dataclass(frozen=True)
class TensorScheme:
    """How one tensor is mapped to signed integers.

    Attributes:
        bits: Width of the integers, 2 to 8.
        granularity: What shares one scale: the whole tensor, an output channel of a weight, a
            token of an activation, or ``group_size`` neighbouring inputs of one output channel.
        symmetric: Whether the zero point is 0. Otherwise the range is shifted to fit the data.
        dynamic: Whether the range is taken from each tensor as it comes (activations only).
        group_size: Inputs per group; set exactly when ``granularity`` is ``group``.
        method: ``minmax`` covers every value; ``mse`` shrinks the range to the smallest error.

    Raises:
        ValueError: The combination has no meaning.
    """

    bits: int
    granularity: Granularity
    symmetric: bool
    dynamic: bool = False
    group_size: int | None = None
    method: RangeMethod = "minmax"

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"bits must be 2 to 8, not {self.bits}")
        if (self.granularity == "group") != (self.group_size is not None):
            raise ValueError("group_size belongs to granularity 'group' and to no other")
        if self.group_size is not None and self.group_size < 1:
            raise ValueError(f"group_size must be positive, not {self.group_size}")
        if (self.granularity == "token") != self.dynamic:
            raise ValueError("granularity 'token' is dynamic, every other is static")
        if self.dynamic and self.method != "minmax":
            raise ValueError("a dynamic range is taken by 'minmax'")


@dataclass(frozen=True)
class LinearScheme:
    """How a linear layer is quantized; ``activation`` None leaves its input in float."""

    weight: TensorScheme
    activation: TensorScheme | None

    def __post_init__(self) -> None:
        if self.weight.granularity == "token":
            raise ValueError("a weight has no tokens: use 'tensor', 'channel' or 'group'")
        if self.activation is not None and self.activation.granularity in ("channel", "group"):
            raise ValueError("an activation is quantized per 'tensor' or per 'token'")


_INT8_CHANNEL = TensorScheme(8, "channel", symmetric=True)

SCHEMES = MappingProxyType(
    {
        "w8a8_static": LinearScheme(_INT8_CHANNEL, TensorScheme(8, "tensor", symmetric=True)),
        "w8a8_dynamic": LinearScheme(
            _INT8_CHANNEL, TensorScheme(8, "token", symmetric=True, dynamic=True)
        ),
        "w8a16": LinearScheme(_INT8_CHANNEL, None),
        **{
            f"w4a16{suffix}": LinearScheme(
                TensorScheme(4, "group", symmetric=True, group_size=size), None
            )
            for suffix, size in (("", 128), ("_g64", 64), ("_g32", 32))
        },
    }
)
"""The schemes with a name. Activations of ``w8a8_static`` are symmetric because every engine that
reads compressed-tensors takes that form (vLLM also takes asymmetric static activations,
vLLM-Ascend does not). ``w4a16`` has groups of 128 inputs; ``_g64`` and ``_g32`` are for models
whose layers are not divisible by 128."""


def named_scheme(name: str) -> LinearScheme:
    """The scheme called ``name``. Raises ``ValueError`` listing the names when there is none."""
    if name not in SCHEMES:
        raise ValueError(f"no quantization scheme {name!r}; there are {', '.join(SCHEMES)}")
    return SCHEMES[name]
