"""Schemes refuse what has no meaning, so that no quantizer has to."""

import pytest

from trainables.quantization import SCHEMES, LinearScheme, TensorScheme, named_scheme


def test_the_static_scheme_is_the_one_every_engine_loads():
    scheme = named_scheme("w8a8_static")
    assert scheme.weight == TensorScheme(8, "channel", symmetric=True)
    assert scheme.activation == TensorScheme(8, "tensor", symmetric=True, dynamic=False)


def test_four_bit_weights_come_in_three_group_sizes():
    sizes = {name: s.weight.group_size for name, s in SCHEMES.items() if name.startswith("w4a16")}
    assert sizes == {"w4a16": 128, "w4a16_g64": 64, "w4a16_g32": 32}


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"w9a9.*w8a8_static"):
        named_scheme("w9a9")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"bits": 1, "granularity": "tensor"}, "bits"),
        ({"bits": 8, "granularity": "group"}, "group_size"),
        ({"bits": 8, "granularity": "channel", "group_size": 64}, "group_size"),
        ({"bits": 8, "granularity": "group", "group_size": 0}, "positive"),
        ({"bits": 8, "granularity": "token"}, "dynamic"),
        ({"bits": 8, "granularity": "tensor", "dynamic": True}, "dynamic"),
        ({"bits": 8, "granularity": "token", "dynamic": True, "method": "mse"}, "minmax"),
    ],
)
def test_combinations_without_meaning_are_refused(arguments, complaint):
    with pytest.raises(ValueError, match=complaint):
        TensorScheme(symmetric=True, **arguments)


def test_weights_have_no_tokens_and_activations_no_channels():
    token = TensorScheme(8, "token", symmetric=True, dynamic=True)
    channel = TensorScheme(8, "channel", symmetric=True)
    with pytest.raises(ValueError, match="no tokens"):
        LinearScheme(token, None)
    with pytest.raises(ValueError, match="activation"):
        LinearScheme(channel, channel)
