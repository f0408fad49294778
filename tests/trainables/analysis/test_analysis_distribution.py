"""Metrics of a distribution against their closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from trainables.analysis._distribution import Distribution

arrays = hnp.arrays(
    np.float32,
    st.tuples(st.integers(2, 30), st.integers(1, 6)),
    elements=st.floats(-100, 100, width=32).map(lambda value: round(value, 2)),
)


def scores_of(*parts):
    distribution = Distribution()
    for part in parts:
        distribution.update(torch.from_numpy(np.ascontiguousarray(part)))
    return distribution.scores()


def closed_forms(values):
    values = values.astype(np.float64)
    largest = np.abs(values).max()
    deviation = (values - (values.max(0) + values.min(0)) / 2).std()
    first, third = np.quantile(values, [0.25, 0.75])
    standard = (values - values.mean()) / values.std()
    return {
        "std": largest / deviation if deviation > 0 else largest,
        "quantile": 2 * largest / 254 / (third - first + 1e-10),
        "kurtosis": (standard**4).mean() - 3,
    }


@given(arrays, st.integers(1, 29))
def test_metrics_are_their_closed_forms_however_the_values_arrive(values, cut):
    assume(values.std() > 0.1)
    centred = values - (values.max(0) + values.min(0)) / 2
    assume(centred.std() > 0.01)
    expected = closed_forms(values)
    cut = min(cut, len(values) - 1)
    for found in (scores_of(values), scores_of(values[:cut], values[cut:])):
        assert found["std"] == pytest.approx(expected["std"], rel=1e-4)
        assert found["quantile"] == pytest.approx(expected["quantile"], rel=1e-4)
        assert found["kurtosis"] == pytest.approx(expected["kurtosis"], rel=1e-4, abs=1e-5)


def test_known_values():
    found = scores_of(np.array([[-1.0], [1.0], [-1.0], [1.0]]))
    assert found["std"] == pytest.approx(1)
    assert found["quantile"] == pytest.approx(1 / 254)
    assert found["kurtosis"] == pytest.approx(-2)


def test_an_outlier_raises_every_metric():
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(400, 8))
    spiked = plain.copy()
    spiked[17, 3] = 60
    before, after = scores_of(plain), scores_of(spiked)
    assert after["std"] > 1.2 * before["std"]
    assert after["quantile"] > 3 * before["quantile"]
    assert after["kurtosis"] > 100 > before["kurtosis"]


def test_equal_values_have_finite_scores():
    found = scores_of(np.full((5, 3), 2.0))
    assert found == {"std": 2.0, "quantile": pytest.approx(4 / 254 / 1e-10), "kurtosis": 0.0}


def test_quartiles_of_many_values_come_from_a_fair_sample():
    rng = np.random.default_rng(1)
    found = scores_of(*(rng.normal(size=(4000, 50)) for _ in range(3)))
    largest = found["quantile"] * (2 * 0.6745) * 254 / 2
    assert 4 < largest < 7
    assert found["kurtosis"] == pytest.approx(0, abs=0.05)


def test_nothing_seen_is_no_score():
    distribution = Distribution()
    distribution.update(torch.empty(0, 4))
    with pytest.raises(ValueError, match="no values"):
        distribution.scores()
