"""What a guide shows exists: commands, flags, files, and the same in both languages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.guides import ROOT, blocks, guides, links
from tuner.cli._main import _parser
from tuner.cli._reference import reference

ALL = guides()
CHINESE = [guide for guide in ALL if guide.name.endswith(".zh.md")]


def name(guide: Path) -> str:
    return str(guide.relative_to(ROOT))


@pytest.mark.parametrize("guide", ALL, ids=name)
def test_every_command_is_run_or_says_why_not(guide: Path) -> None:
    silent = [
        block.place
        for block in blocks(guide)
        if block.mark != "run" and not block.mark.startswith("not run: ")
    ]
    assert silent == []


@pytest.mark.parametrize("guide", ALL, ids=name)
def test_every_command_of_ours_has_its_flags(
    guide: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for block in blocks(guide):
        for call in block.tuner_calls:
            try:
                _parser().parse_args(call)
            except SystemExit as end:
                assert end.code == 0, f"{block.place}: {call}: {capsys.readouterr().err}"


@pytest.mark.parametrize("guide", ALL, ids=name)
def test_every_link_leads_to_a_file(guide: Path) -> None:
    assert [link for link in links(guide) if not (guide.parent / link).exists()] == []


@pytest.mark.parametrize("guide", ALL, ids=name)
def test_every_configuration_named_exists(guide: Path) -> None:
    words = {word for block in blocks(guide) for words in block.commands for word in words}
    named = {word for word in words if word.startswith(("configs/", "benchmarks/"))}
    assert {word for word in named if not (ROOT / word).exists()} == set()


@pytest.mark.parametrize("guide", CHINESE, ids=name)
def test_the_chinese_guide_has_the_same_commands(guide: Path) -> None:
    english = guide.with_name(guide.name.replace(".zh.md", ".md"))
    theirs, ours = blocks(english), blocks(guide)
    assert [block.commands for block in ours] == [block.commands for block in theirs]
    assert [block.mark.partition(":")[0] for block in ours] == [
        block.mark.partition(":")[0] for block in theirs
    ]


def test_the_command_reference_is_up_to_date() -> None:
    written = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == reference(), "python -m tuner.cli._reference > docs/cli.md"
