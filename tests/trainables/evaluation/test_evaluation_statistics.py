"""Metrics from records, and how far their standard errors can be trusted."""

import math
import random
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.evaluation import metrics, paired_difference

T_975 = {7: 2.365, 15: 2.131, 31: 2.040}
"""Quantile of Student's t, by degrees of freedom."""


def text_record(losses, tokens=None, correct=None, digest="a"):
    tokens = tokens or [100] * len(losses)
    return {
        "kind": "text",
        "digest": digest,
        "tokens": tokens,
        "nll": losses,
        "correct": correct or [0] * len(losses),
    }


def choice_record(correct, normalized=None, digest="a"):
    return {
        "kind": "multiple_choice",
        "digest": digest,
        "correct": correct,
        "correct_normalized": normalized or correct,
    }


def test_metrics_of_text():
    found = metrics(text_record([100.0, 300.0], tokens=[50, 150], correct=[5, 25]))
    assert found["nll"] == 2.0
    assert found["perplexity"] == pytest.approx(math.exp(2))
    assert found["next_token_accuracy"] == 0.15


def test_metrics_of_choices():
    found = metrics(choice_record("1100", "1110"))
    assert (found["accuracy"], found["accuracy_normalized"]) == (0.5, 0.75)
    assert found["accuracy_se"] == pytest.approx(math.sqrt(0.25 / 3))


@given(st.lists(st.floats(10, 1000), min_size=2, max_size=40))
def test_error_of_equal_windows_is_that_of_a_mean(losses):
    found = metrics(text_record(losses))
    means = [loss / 100 for loss in losses]
    expected = statistics.stdev(means) / math.sqrt(len(means))
    assert found["nll_se"] == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert found["perplexity_se"] == pytest.approx(found["perplexity"] * found["nll_se"])


def test_one_item_has_no_standard_error():
    assert set(metrics(text_record([5.0]))) == {"perplexity", "nll", "next_token_accuracy"}


def test_a_destroyed_model_has_a_finite_perplexity():
    assert math.isfinite(metrics(text_record([1e9, 1e9]))["perplexity"])


def simulated_losses(rng, windows, shift=0.0):
    """Windows of 64 tokens whose losses hang together, in windows of differing difficulty."""
    losses = []
    for _ in range(windows):
        difficulty, state, total = rng.gauss(3, 0.2), 0.0, 0.0
        for _ in range(64):
            state = 0.8 * state + rng.gauss(0, 0.5)
            total += difficulty + state + shift
        losses.append(total)
    return losses


@pytest.mark.parametrize("windows", [8, 32])
def test_intervals_cover_the_truth_as_often_as_they_say(windows):
    rng = random.Random(windows)
    runs, inside = 600, 0
    for _ in range(runs):
        found = metrics(text_record(simulated_losses(rng, windows), tokens=[64] * windows))
        half = T_975[windows - 1] * found["perplexity_se"]
        inside += abs(found["perplexity"] - math.exp(3)) < half
    assert 0.91 < inside / runs < 0.98


def test_paired_intervals_cover_the_truth_and_are_much_tighter():
    rng = random.Random(3)
    runs, inside, ratios = 400, 0, []
    truth = math.exp(3.05) - math.exp(3)
    for _ in range(runs):
        before = simulated_losses(rng, 32)
        after = [loss + 64 * (0.05 + rng.gauss(0, 0.02)) for loss in before]
        first = text_record(before, tokens=[64] * 32)
        second = text_record(after, tokens=[64] * 32)
        change = paired_difference(first, second)["perplexity"]
        assert change.standard_error is not None
        inside += abs(change.value - truth) < T_975[31] * change.standard_error
        alone = math.hypot(metrics(first)["perplexity_se"], metrics(second)["perplexity_se"])
        ratios.append(alone / change.standard_error)
    assert 0.90 < inside / runs < 0.985
    assert statistics.median(ratios) > 5


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=2, max_size=60))
def test_difference_of_accuracies_is_that_of_paired_answers(pairs):
    before = choice_record("".join(str(int(a)) for a, _ in pairs))
    after = choice_record("".join(str(int(b)) for _, b in pairs))
    change = paired_difference(before, after)["accuracy"]
    changes = [b - a for a, b in pairs]
    assert change.value == pytest.approx(statistics.mean(changes))
    expected = statistics.stdev(changes) / math.sqrt(len(changes))
    assert change.standard_error == pytest.approx(expected, abs=1e-12)
    assert change.items == len(pairs)


def test_other_items_are_not_compared():
    with pytest.raises(ValueError, match="different items"):
        paired_difference(choice_record("10"), choice_record("10", digest="b"))
    with pytest.raises(ValueError, match="different items"):
        paired_difference(choice_record("10"), text_record([1.0, 2.0]))


def test_unknown_records_are_refused():
    with pytest.raises(ValueError, match="unknown kind"):
        metrics({"kind": "video", "digest": "a"})
