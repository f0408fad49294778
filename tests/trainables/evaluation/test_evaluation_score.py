"""Log-likelihoods against direct computations on a tiny random model."""

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainables import StageError
from trainables.evaluation import ChoiceItem, metrics
from trainables.evaluation._score import (
    LanguageModel,
    _answers,
    _encode,
    score_choices,
    score_text,
)

PROMPT = "Q: {question}\nA:"
TEXT = "The quick brown fox jumps over the lazy dog, and then it sleeps. " * 12
ITEMS = [
    ChoiceItem(question="One?", choices=("yes", "no", "perhaps so"), answer=1),
    ChoiceItem(question="Which of these is it then?", choices=("a", "b", "c", "d"), answer=3),
    ChoiceItem(question="Two?", choices=("never", "x", "long, long ago", "é"), answer=0),
    ChoiceItem(question="Six?", choices=("first", "second"), answer=0),
]


@pytest.fixture(scope="module", autouse=True)
def _no_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def make(tiny_llama, byte_tokenizer):
    models = {seed: tiny_llama(seed) for seed in range(3)}

    def build(*, seed=0, context=128, batch_tokens=1024, **tokenizer):
        return LanguageModel(models[seed], byte_tokenizer(**tokenizer), context, batch_tokens)

    return build


def sum_of_losses(model, ids, first):
    """Loss of ``ids[first:]``, each from all that come before it, in one plain forward pass."""
    logits = model(input_ids=torch.tensor([ids])).logits[0]
    steps = range(first, len(ids))
    return -sum(float(torch.log_softmax(logits[n - 1], -1)[ids[n]]) for n in steps)


def plain_likelihoods(scorer, item, prompt=PROMPT):
    asked = prompt.replace("{question}", item.question)
    found = []
    for choice in item.choices:
        ids = scorer.beginning + scorer.encode(f"{asked} {choice}")
        found.append(-sum_of_losses(scorer.model, ids, len(ids) - len(scorer.encode(f" {choice}"))))
    return found


def test_perplexity_is_that_of_a_plain_loss(make):
    scorer = make()
    ids = scorer.encode(TEXT)
    windows = [ids[start : start + 50] for start in range(0, len(ids) - 49, 50)]
    losses = [sum_of_losses(scorer.model, window, 1) for window in windows]
    scored = score_text(scorer, TEXT, tokens=10_000, window=50)
    assert scored.record["nll"] == pytest.approx(losses, rel=1e-5)
    assert scored.tokens == 50 * len(windows)
    expected = math.exp(sum(losses) / (49 * len(windows)))
    assert metrics(scored.record)["perplexity"] == pytest.approx(expected, rel=1e-5)


def test_hits_are_the_likeliest_tokens(make):
    scorer = make()
    ids = scorer.encode(TEXT)[:100]
    likeliest = scorer.model(input_ids=torch.tensor([ids])).logits[0].argmax(-1).tolist()
    hits = sum(guess == token for guess, token in zip(likeliest, ids[1:], strict=False))
    assert score_text(scorer, TEXT, tokens=100, window=100).record["correct"] == [hits]


def test_few_windows_are_spread_over_the_text(make):
    scorer = make()
    ids = scorer.encode(TEXT)
    count = len(ids) // 40
    expected = [ids[n * 40 : n * 40 + 40] for n in (0, count // 3, 2 * count // 3)]
    scored = score_text(scorer, TEXT, tokens=120, window=40)
    losses = [sum_of_losses(scorer.model, window, 1) for window in expected]
    assert scored.record["nll"] == pytest.approx(losses, rel=1e-5)


def test_a_short_text_is_one_window(make):
    scored = score_text(make(), "short", tokens=4096, window=64)
    assert scored.record["tokens"] == [4]
    with pytest.raises(StageError, match="fewer than two tokens"):
        score_text(make(), "s", tokens=4096, window=64)


def test_a_window_must_fit_the_model(make):
    with pytest.raises(StageError, match="does not fit the model's 128"):
        score_text(make(), TEXT, tokens=4096, window=129)


def test_the_first_token_counts_where_there_is_a_bos_token(make):
    scorer = make(bos=True)
    ids = [0, *scorer.encode(TEXT)[:30]]
    scored = score_text(scorer, TEXT, tokens=30, window=30)
    assert scored.record["tokens"] == [30]
    assert scored.record["nll"] == pytest.approx([sum_of_losses(scorer.model, ids, 1)], rel=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("bos", [False, True])
def test_choices_are_answered_by_hand_computed_likelihoods(make, seed, bos):
    scorer = make(seed=seed, bos=bos)
    found = score_choices(scorer, ITEMS, PROMPT).record
    for index, item in enumerate(ITEMS):
        values = plain_likelihoods(scorer, item)
        scaled = [v / len(c.encode()) for v, c in zip(values, item.choices, strict=True)]
        assert found["correct"][index] == str(int(values.index(max(values)) == item.answer))
        right = scaled.index(max(scaled)) == item.answer
        assert found["correct_normalized"][index] == str(int(right))


def test_likelihoods_are_those_of_whole_sequences(make):
    scorer = make()
    for item in ITEMS:
        found = _answers(scorer, [_encode(scorer, item, PROMPT)])[0]
        assert found == pytest.approx(plain_likelihoods(scorer, item), rel=1e-4)


def test_tokens_that_join_prompt_and_choice_belong_to_the_choice(make):
    scorer = make(merges=[(":", "Ġ")])
    assert len(scorer.encode("A: x")) == 3
    found = score_choices(scorer, ITEMS, PROMPT).record
    for index, item in enumerate(ITEMS):
        asked = scorer.encode(PROMPT.replace("{question}", item.question))
        values = []
        for choice in item.choices:
            ids = scorer.encode(f"{PROMPT.replace('{question}', item.question)} {choice}")
            values.append(-sum_of_losses(scorer.model, ids, len(asked) - 1))
        assert found["correct"][index] == str(int(values.index(max(values)) == item.answer))


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(batch_tokens=st.integers(1, 2000), seed=st.integers(0, 2))
def test_results_do_not_depend_on_the_batch_size(make, batch_tokens, seed):
    small, other = make(seed=seed, batch_tokens=1), make(seed=seed, batch_tokens=batch_tokens)
    assert score_choices(small, ITEMS, PROMPT) == score_choices(other, ITEMS, PROMPT)
    one, two = (score_text(s, TEXT, tokens=400, window=30).record for s in (small, other))
    assert one["nll"] == pytest.approx(two["nll"], rel=1e-5)
    assert {**one, "nll": 0} == {**two, "nll": 0}


def test_likelihoods_do_not_depend_on_the_company(make):
    scorer = make()
    pair = [_encode(scorer, item, PROMPT) for item in (ITEMS[0], ITEMS[2])]
    assert len(pair[0].context) == len(pair[1].context)
    together = _answers(scorer, pair)
    for question, values in zip(pair, together, strict=True):
        assert _answers(scorer, [question])[0] == pytest.approx(values, rel=1e-5)


def test_a_question_that_is_too_long_loses_its_beginning(make):
    long = ChoiceItem(question="x" * 300 + " end?", choices=("yes", "no"), answer=0)
    scorer = make(context=40)
    asked = scorer.encode(PROMPT.replace("{question}", long.question))
    assert _encode(scorer, long, PROMPT).context == asked[-36:]
    scored = score_choices(scorer, [long, ITEMS[0]], PROMPT)
    assert (scored.truncated, scored.items) == (1, 2)


def test_choices_that_are_too_long_are_refused(make):
    item = ChoiceItem(question="Long?", choices=("no", "y" * 60), answer=0)
    with pytest.raises(StageError, match="'Long\\?' do not fit the model's 40 tokens"):
        score_choices(make(context=40), [item], PROMPT)


@pytest.fixture
def indifferent(make, tiny_llama):
    """Every token is equally likely to this model."""
    model = tiny_llama()
    for parameter in model.parameters():
        parameter.zero_()
    return LanguageModel(model, make().tokenizer, 128, 1024)


def test_the_first_of_equally_likely_choices_is_taken(indifferent):
    items = [ChoiceItem(question="?", choices=("a", "b"), answer=n) for n in (0, 1)]
    assert score_choices(indifferent, items, PROMPT).record["correct"] == "10"


def test_likelihoods_are_normalized_by_bytes(indifferent):
    """A token per byte, the space included: 4 for 3 bytes are worse than 5 for 4."""
    items = [ChoiceItem(question="?", choices=("aaa", "éé"), answer=1)]
    record = score_choices(indifferent, items, PROMPT).record
    assert (record["correct"], record["correct_normalized"]) == ("0", "1")


def test_a_model_without_finite_output_is_no_measurement(make, tiny_llama):
    model = tiny_llama()
    model.lm_head.weight.fill_(math.nan)
    scorer = LanguageModel(model, make().tokenizer, 128, 1024)
    with pytest.raises(StageError, match="not finite"):
        score_text(scorer, TEXT, tokens=64, window=32)
    with pytest.raises(StageError, match="not finite"):
        score_choices(scorer, ITEMS, PROMPT)
