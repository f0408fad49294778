"""The arithmetic: error bounds, and equality with the library that defines the format."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainables.quantization import SCHEMES, LinearScheme, TensorScheme
from trainables.quantization._fake import (
    RangeObserver,
    fake_linear,
    integer_range,
    quantize,
    quantize_dequantize,
    token_parameters,
    weight_parameters,
)

SHAPES = st.tuples(st.integers(1, 5), st.sampled_from([8, 16, 32]))
SCALES = st.floats(1e-3, 1e3)
SEEDS = st.integers(0, 2**31)


def _weight(seed: int, shape: tuple[int, int], scale: float, shift: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=generator) + shift) * scale


@st.composite
def weight_schemes(draw: st.DrawFn) -> TensorScheme:
    granularity = draw(st.sampled_from(["tensor", "channel", "group"]))
    return TensorScheme(
        draw(st.integers(2, 8)),
        granularity,
        symmetric=draw(st.booleans()),
        group_size=8 if granularity == "group" else None,
    )


@settings(deadline=None)
@given(weight_schemes(), SEEDS, SHAPES, SCALES, st.floats(-3, 3))
def test_values_move_by_half_a_step_at_most(scheme, seed, shape, size, shift):
    weight = _weight(seed, shape, size, shift)
    scale, zero_point = weight_parameters(weight, scheme)
    error = (quantize_dequantize(weight, scheme, scale, zero_point) - weight).abs()
    if scheme.granularity == "group":
        error, scale = error.unflatten(-1, (-1, 8)), scale.unsqueeze(-1)
    # A zero point is rounded too, which can push the end of the range out by half a step more.
    assert (error <= scale * (0.5001 if scheme.symmetric else 1.0001)).all()


@settings(deadline=None)
@given(weight_schemes(), SEEDS, SHAPES, SCALES, st.floats(-3, 3))
def test_integers_stay_in_their_range_and_zero_stays_zero(scheme, seed, shape, size, shift):
    weight = _weight(seed, shape, size, shift)
    weight[0, 0] = 0
    scale, zero_point = weight_parameters(weight, scheme)
    integers = quantize(weight, scheme, scale, zero_point)
    q_min, q_max = integer_range(scheme.bits)
    assert integers.shape == weight.shape and integers.dtype == torch.int8
    assert integers.min() >= q_min and integers.max() <= q_max
    assert quantize_dequantize(weight, scheme, scale, zero_point)[0, 0] == 0
    if scheme.symmetric:
        assert not zero_point.any()


@settings(deadline=None)
@given(weight_schemes(), SEEDS, SHAPES, SCALES)
def test_quantizing_twice_changes_nothing_more(scheme, seed, shape, size):
    weight = _weight(seed, shape, size, 0.3)
    parameters = weight_parameters(weight, scheme)
    once = quantize_dequantize(weight, scheme, *parameters)
    assert torch.allclose(quantize_dequantize(once, scheme, *parameters), once, rtol=1e-6, atol=0)


def test_a_shrunken_range_never_has_the_larger_error():
    weight = _weight(1, (64, 64), 1.0, 0.0)
    for bits in (3, 4, 8):
        errors = []
        for method in ("minmax", "mse"):
            scheme = TensorScheme(bits, "channel", symmetric=True, method=method)
            restored = quantize_dequantize(weight, scheme, *weight_parameters(weight, scheme))
            errors.append((restored - weight).abs().pow(2.4).sum(-1))
        assert (errors[1] <= errors[0]).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("method", ["minmax", "mse"])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_weights_equal_those_of_compressed_tensors(dtype, method, granularity, symmetric):
    from compressed_tensors.quantization import QuantizationArgs, fake_quantize
    from llmcompressor.observers import Observer

    weight = (torch.randn(48, 128) * torch.rand(48, 1)).to(dtype)
    weight[3] = 0
    for bits in (4, 8):
        group = 32 if granularity == "group" else None
        scheme = TensorScheme(bits, granularity, symmetric, group_size=group, method=method)
        arguments = QuantizationArgs(
            num_bits=bits, strategy=granularity, symmetric=symmetric, group_size=group
        )
        observer = Observer.load_from_registry(
            f"memoryless_{method}", base_name="weight", args=arguments
        )
        theirs = observer(weight).get_qparams()
        scale, zero_point = weight_parameters(weight, scheme)
        assert torch.equal(scale, theirs["scale"])
        assert torch.equal(zero_point, theirs["zero_point"])
        ours = quantize_dequantize(weight, scheme, scale, zero_point)
        assert torch.equal(ours, fake_quantize(weight, scale, zero_point, arguments))


@pytest.mark.parametrize("symmetric", [True, False])
def test_tokens_equal_those_of_compressed_tensors(symmetric):
    from compressed_tensors.quantization import QuantizationArgs
    from compressed_tensors.quantization.utils import compute_dynamic_scales_and_zp

    activation = torch.randn(2, 5, 16) * torch.rand(2, 5, 1) * 50
    arguments = QuantizationArgs(num_bits=8, strategy="token", symmetric=symmetric, dynamic=True)
    theirs = compute_dynamic_scales_and_zp(activation, arguments, torch.nn.Module())
    ours = token_parameters(activation, TensorScheme(8, "token", symmetric, dynamic=True))
    assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


def test_a_static_range_covers_all_that_was_observed():
    observer = RangeObserver()
    observer.update(torch.tensor([[-1.0, 2.0]]))
    observer.update(torch.empty(0, 2))
    observer.update(torch.tensor([[0.5, -5.0]]))
    scale, zero_point = observer.parameters(TensorScheme(8, "tensor", symmetric=True))
    assert scale.item() == pytest.approx(5 / 127.5) and zero_point.item() == 0
    scale, zero_point = observer.parameters(TensorScheme(8, "tensor", symmetric=False))
    assert scale.item() == pytest.approx(7 / 255) and zero_point.item() == round(
        -128 + 5 / scale.item()
    )


def test_an_observer_that_saw_nothing_gives_no_range():
    with pytest.raises(ValueError, match="no activation was observed"):
        RangeObserver().parameters(TensorScheme(8, "tensor", symmetric=True))


@pytest.mark.parametrize("name", ["w8a8_static", "w8a8_dynamic", "w8a16"])
def test_eight_bits_stay_close_to_the_float_layer(name):
    activation, weight, bias = torch.randn(2, 6, 32), torch.randn(16, 32), torch.randn(16)
    observer = RangeObserver()
    observer.update(activation)
    scheme = SCHEMES[name]
    qparams = observer.parameters(scheme.activation) if name == "w8a8_static" else None
    output = fake_linear(activation, weight, bias, scheme, activation_qparams=qparams)
    exact = torch.nn.functional.linear(activation, weight, bias)
    assert 0 < (output - exact).norm() < 0.03 * exact.norm()


def test_a_static_activation_needs_calibration():
    scheme = SCHEMES["w8a8_static"]
    with pytest.raises(ValueError, match="calibration"):
        fake_linear(torch.randn(1, 8), torch.randn(4, 8), None, scheme)


def test_groups_must_divide_the_inputs():
    scheme = LinearScheme(TensorScheme(4, "group", symmetric=True, group_size=32), None)
    with pytest.raises(ValueError, match=r"48 inputs.*groups of 32"):
        weight_parameters(torch.randn(4, 48), scheme.weight)
