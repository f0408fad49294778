"""Numbers in sentences for people."""

from __future__ import annotations

import pytest

from trainables import figure


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (16282.4, "16280"),
        (1234567.0, "1235000"),
        (0.0859, "0.0859"),
        (0.00361234, "0.003612"),
        (77.0, "77"),
        (0.0, "0"),
        (-2.5, "-2.5"),
        (float("inf"), "inf"),
        (float("nan"), "nan"),
    ],
)
def test_figures_have_four_digits_and_no_exponent(value: float, said: str) -> None:
    assert figure(value) == said
