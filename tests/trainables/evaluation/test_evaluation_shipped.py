"""The shipped datasets on the built-in model, which knows most of what they ask."""

import pytest

from trainables.evaluation.evaluate import evaluate
from trainables.models.convert import convert

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def model():
    pytest.importorskip("gguf")
    return convert({"model": "builtin:smollm2-135m-instruct"})["folder"]


def test_the_built_in_model_is_far_better_than_chance(model):
    result = evaluate(
        {
            "model": model,
            "evaluation": {
                "type": "transformers",
                "datasets": {
                    "prose": {
                        "kind": "text",
                        "path": "builtin:prose",
                        "tokens": 2048,
                        "window": 256,
                    },
                    "choice": {"kind": "multiple_choice", "path": "builtin:choice"},
                },
            },
        }
    )
    found = result["metrics"]
    assert found["choice/accuracy"] - 0.25 > 10 * found["choice/accuracy_se"]
    assert found["choice/accuracy_normalized"] - 0.25 > 10 * found["choice/accuracy_normalized_se"]
    assert 10 < found["prose/perplexity"] < 40
