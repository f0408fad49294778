"""Quantization arithmetic on float tensors, number for number that of compressed-tensors.

A scale maps a range [low, high], widened to contain 0, to the integers -2^(b-1) .. 2^(b-1)-1:

* symmetric: ``scale = max(|low|, |high|) / ((2^b - 1) / 2)``, zero point 0;
* asymmetric: ``scale = (high - low) / (2^b - 1)``, ``zero_point = q_min - low / scale``, rounded
  and held inside the integer range.

Values become ``clamp(x / scale + zero_point)``, rounded half to even, and return as
``(q - zero_point) * scale``. Everything is computed in the dtype of the tensor that was given,
as the library does; a zero range gets the dtype's epsilon as scale. Source: ``calculate_qparams``
and ``fake_quantize`` of compressed-tensors 0.19.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor

from trainables.quantization._scheme import LinearScheme, TensorScheme

Parameters: TypeAlias = tuple[Tensor, Tensor]
"""Scale (dtype of the tensor it was made from) and zero point (int8), of equal shape: ``(1,)``
per tensor, ``(out, 1)`` per channel, ``(out, in / group_size)`` per group, ``(..., 1)`` per
token."""

_SHRINK_STEPS = 20
_SHRINK_GRID = 100
_ERROR_NORM = 2.4
_PATIENCE = 5


def integer_range(bits: int) -> tuple[int, int]:
    """Smallest and largest signed integer of ``bits`` bits."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def parameters_from_range(low: Tensor, high: Tensor, scheme: TensorScheme) -> Parameters:
    """Scale and zero point for values between ``low`` and ``high`` (tensors of equal shape)."""
    low = torch.minimum(low, torch.zeros_like(low))
    high = torch.maximum(high, torch.zeros_like(high))
    q_min, q_max = integer_range(scheme.bits)
    if scheme.symmetric:
        scale = torch.maximum(low.abs(), high.abs()) / ((q_max - q_min) / 2)
        zero_point = torch.zeros_like(scale)
    else:
        scale = (high - low) / (q_max - q_min)
        zero_point = (q_min - low / scale).clamp(q_min, q_max).nan_to_num()
    epsilon = torch.finfo(scale.dtype).eps
    scale = torch.where(scale == 0, torch.full_like(scale, epsilon), scale)
    return scale, zero_point.round().to(torch.int8)


def weight_parameters(weight: Tensor, scheme: TensorScheme) -> Parameters:
    """Scale and zero point of a weight of shape ``(out, in)``.

    Raises:
        ValueError: ``in`` is not a multiple of the group size.
    """
    values = _in_groups(weight, scheme)
    low, high = values.amin(-1), values.amax(-1)
    if scheme.method == "mse":
        low, high = _smallest_error_range(values, low, high, scheme)
    return parameters_from_range(low, high, scheme)


def token_parameters(activation: Tensor, scheme: TensorScheme) -> Parameters:
    """Scale and zero point of every token of an activation of shape ``(..., hidden)``."""
    low, high = activation.aminmax(dim=-1, keepdim=True)
    return parameters_from_range(low, high, scheme)


def quantize(tensor: Tensor, scheme: TensorScheme, scale: Tensor, zero_point: Tensor) -> Tensor:
    """The int8 numbers ``tensor`` becomes, in its shape."""
    aligned = _aligned(tensor, scheme, scale, zero_point)
    return _integers(scheme.bits, *aligned).to(torch.int8).reshape(tensor.shape)


def quantize_dequantize(
    tensor: Tensor, scheme: TensorScheme, scale: Tensor, zero_point: Tensor
) -> Tensor:
    """``tensor`` after the loss that quantization brings, same shape and dtype."""
    aligned = _aligned(tensor, scheme, scale, zero_point)
    return _lossy(scheme.bits, *aligned).reshape(tensor.shape)


def _aligned(tensor: Tensor, scheme: TensorScheme, scale: Tensor, zero_point: Tensor) -> Any:
    """The three tensors in shapes that broadcast against each other."""
    if scheme.granularity != "group":
        return tensor, scale, zero_point
    return _in_groups(tensor, scheme), scale.unsqueeze(-1), zero_point.unsqueeze(-1)


def _integers(bits: int, values: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return (values / scale + zero_point.to(values.dtype)).clamp(*integer_range(bits)).round()


def _lossy(bits: int, values: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    return (_integers(bits, values, scale, zero_point) - zero_point.to(values.dtype)) * scale


class RangeObserver:
    """Running smallest and largest value of all the activations it is shown.

    The range of a static per-tensor scale; ``low`` and ``high`` have shape ``(1,)``.
    """

    def __init__(self) -> None:
        self.low: Tensor | None = None
        self.high: Tensor | None = None

    def update(self, activation: Tensor) -> None:
        """Take in an activation of any shape; an empty one changes nothing."""
        if activation.numel() == 0:
            return
        low, high = (bound.detach().reshape(1) for bound in activation.aminmax())
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)

    def parameters(self, scheme: TensorScheme) -> Parameters:
        """Scale and zero point of what was seen. Raises ``ValueError`` when nothing was."""
        if self.low is None or self.high is None:
            raise ValueError("no activation was observed, so there is no range to quantize to")
        return parameters_from_range(self.low, self.high, scheme)


def fake_linear(
    activation: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    scheme: LinearScheme,
    *,
    weight_qparams: Parameters | None = None,
    activation_qparams: Parameters | None = None,
) -> Tensor:
    """Output of a linear layer under ``scheme``, from its float weight.

    Args:
        activation: ``(..., in)``.
        weight: ``(out, in)``, not quantized yet.
        bias: ``(out,)`` or None; stays in float.
        scheme: How the layer is quantized.
        weight_qparams: From :func:`weight_parameters`; computed here when None.
        activation_qparams: From :class:`RangeObserver`, needed for a static activation.

    Raises:
        ValueError: A static activation without its parameters.
    """
    scale, zero_point = weight_qparams or weight_parameters(weight, scheme.weight)
    quantized = quantize_dequantize(weight, scheme.weight, scale, zero_point)
    return torch.nn.functional.linear(
        fake_activation(activation, scheme.activation, activation_qparams), quantized, bias
    )


def fake_activation(
    activation: Tensor, scheme: TensorScheme | None, parameters: Parameters | None = None
) -> Tensor:
    """``activation`` as the layer's integer product sees it; unchanged without a scheme.

    Raises:
        ValueError: A static activation without its parameters.
    """
    if scheme is None:
        return activation
    if scheme.dynamic:
        parameters = token_parameters(activation, scheme)
    elif parameters is None:
        raise ValueError("a static activation needs the scale and zero point of calibration")
    return quantize_dequantize(activation, scheme, *parameters)


def _in_groups(weight: Tensor, scheme: TensorScheme) -> Tensor:
    """``weight`` seen as ``(*shape of its scale, values that share it)``."""
    if scheme.granularity == "tensor":
        return weight.reshape(1, -1)
    size = scheme.group_size or weight.shape[-1]
    if weight.shape[-1] % size:
        raise ValueError(
            f"a layer with {weight.shape[-1]} inputs cannot be cut into groups of {size}"
        )
    return weight.unflatten(-1, (-1, size))


def _smallest_error_range(
    values: Tensor, low: Tensor, high: Tensor, scheme: TensorScheme
) -> Parameters:
    """The range, 0.81 to 1.0 times the whole, with the least error per scale.

    Sum of ``|error|^2.4``; the search ends when no scale improved for five steps, as llm-compressor
    does with its ``memoryless_mse`` observer.
    """
    best = torch.full_like(low, torch.finfo(low.dtype).max)
    best_low, best_high = low.clone(), high.clone()
    stale = 0
    for step in range(_SHRINK_STEPS):
        shrink = 1 - step / _SHRINK_GRID
        parameters = parameters_from_range(low * shrink, high * shrink, scheme)
        restored = _lossy(scheme.bits, values, *(p.unsqueeze(-1) for p in parameters))
        error = (restored - values).abs().pow(_ERROR_NORM).sum(-1)
        better = error < best
        best = torch.where(better, error, best)
        best_low = torch.where(better, low * shrink, best_low)
        best_high = torch.where(better, high * shrink, best_high)
        stale = 0 if bool(better.any()) else stale + 1
        if stale == _PATIENCE:
            break
    return best_low, best_high
