"""Views are chosen by name in an experiment, and third parties add theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from tests.tuner.views.stories import evaluation, story
from tuner.views import Story, View, make_view, register_view, view_type, view_types
from tuner.views.msmodelslim import MsModelSlimView


def test_a_block_makes_its_view(tmp_path: Path) -> None:
    block = {"type": "msmodelslim", "folder": "save", "evaluation": evaluation("standing_high")}
    made = make_view(block)
    assert isinstance(made, MsModelSlimView)
    assert made.options.folder == str(Path("save").absolute())
    assert "msmodelslim" in view_types()


def test_a_wrong_block_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="there are auto_tune, msmodelslim"):
        make_view({"type": "msmodelslm"})
    with pytest.raises(ValidationError) as refused:
        make_view({"type": "msmodelslim", "evaluation": {"demand": {}}, "fodler": "x"})
    places = {fault["loc"] for fault in refused.value.errors()}
    assert places == {("folder",), ("evaluation",), ("fodler",)}


def test_a_view_of_somebody_else_is_told_the_story(tmp_path: Path) -> None:
    class CountOptions(BaseModel):
        type: str

    class Count(View):
        Options = CountOptions

        def update(self, story: Story) -> tuple[str, ...]:
            return (f"{len(story.finished)} trials",)

    register_view("count-for-test")(Count)
    assert view_type("count-for-test") is Count
    assert make_view({"type": "count-for-test"}).update(story(tmp_path)) == ("3 trials",)
