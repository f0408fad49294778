"""What the answer says of the winner's gain over the baseline."""

from __future__ import annotations

from tuner._gain import gain_note

RANKING = ("output_tokens_per_s", 1)


def run(value: float, error: float | None = None) -> dict[str, float]:
    metrics = {"output_tokens_per_s": value}
    return metrics if error is None else metrics | {"output_tokens_per_s_se": error}


def test_a_gain_within_noise_is_called_none() -> None:
    note = gain_note(RANKING, run(105, 3), run(100, 3))
    assert note is not None
    assert "no significant gain (+5.0 %, noise ±8.5 %)" in note


def test_a_gain_beyond_noise_is_given_with_its_error() -> None:
    note = gain_note(RANKING, run(150, 3), run(100, 4))
    assert note == ("output_tokens_per_s: 150 against 100 of the baseline, +50.0 % (±10.0 %)")


def test_single_runs_prove_nothing() -> None:
    note = gain_note(RANKING, run(150), run(100, 4))
    assert note is not None
    assert note.endswith("+50.0 % (single runs, so noise is not known)")


def test_where_small_is_good_less_is_a_gain() -> None:
    note = gain_note(("ttft_mean_s", -1), {"ttft_mean_s": 1.0}, {"ttft_mean_s": 2.0})
    assert note is not None
    assert "+50.0 %" in note


def test_without_a_value_nothing_is_said() -> None:
    assert gain_note(RANKING, {}, run(100)) is None
    assert gain_note(RANKING, run(100), {"output_tokens_per_s": 0.0}) is None
