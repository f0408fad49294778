"""The plug-ins of the guide: installed by their entry points, and kept to their contracts."""

from __future__ import annotations

import importlib
import random
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from searchers import Outcome, Proposal, make_strategy, strategy_types
from searchers.testing import check_strategy
from tests.docs.guides import ROOT
from tests.tiny_qwen3 import write_tiny_qwen3
from trainables.engines.testing import check_engine
from trainables.quantization import make_quantizer, practice_from_scheme

PLUGIN = ROOT / "docs" / "plugin"
STUB = ROOT / "tests" / "stubs" / "openai_engine.py"
REGISTRIES = ("searchers._registry", "trainables._registry")
MODULES = ("my_strategy", "my_engine", "my_benchmark", "my_quantizer")


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if ``pip install docs/plugin`` had been run."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    points = [
        EntryPoint(name, value, group)
        for group, named in project["entry-points"].items()
        for name, value in named.items()
    ]

    def entry_points(**wanted: Any) -> EntryPoints:
        return EntryPoints(points).select(**wanted)

    monkeypatch.syspath_prepend(str(PLUGIN))
    for module in REGISTRIES:
        monkeypatch.setattr(importlib.import_module(module), "entry_points", entry_points)
    yield
    for module in MODULES:
        sys.modules.pop(module, None)
    importlib.import_module("searchers._registry")._REGISTRY.pop("listed", None)


def test_the_strategy_keeps_the_contract() -> None:
    assert "listed" in strategy_types()
    points = [{"a": number} for number in range(6)]
    world = {number: random.Random(number).random() for number in range(6)}

    def answer(proposal: Proposal) -> Outcome:
        value = world[proposal.parameters["a"]]
        return Outcome("measured", {"value": value}, satisfied=value > 0.2, objective=value)

    check_strategy(
        lambda: make_strategy("listed", {"points": points}, space=None, seed=0),
        answer,
        inside=lambda proposal: dict(proposal.parameters) in points,
    )


def test_the_engine_keeps_the_contract(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    program = tmp_path / "my-server"
    program.write_text(
        f"#!{sys.executable}\nimport runpy, sys\n"
        "at = sys.argv.index('--threads'); del sys.argv[at:at + 2]\n"
        f"runpy.run_path({str(STUB)!r}, run_name='__main__')\n"
    )
    program.chmod(0o755)
    check_engine(
        {"type": "my-engine", "program": [str(program)]},
        model=model,
        folder=tmp_path / "trials",
        matters=[{"threads": 8}],
    )


def test_the_quantizer_is_found_and_says_what_it_cannot_do(tmp_path: Path) -> None:
    write_tiny_qwen3(tmp_path / "model")
    quantizer = make_quantizer({"type": "my-quantizer"})
    assert quantizer.problems(practice_from_scheme("w8a8_dynamic")) == []
    assert quantizer.problems(practice_from_scheme("w4a16"))


def test_what_the_guide_prints_is_this_code() -> None:
    for guide in ("plugins.md", "plugins.zh.md"):
        text = (ROOT / "docs" / guide).read_text(encoding="utf-8")
        code = [(PLUGIN / f"{module}.py").read_text() for module in MODULES]
        code.append((PLUGIN / "pyproject.toml").read_text())
        printed = re.findall(r"```(?:python|toml)\n(.*?)```", text, re.DOTALL)
        assert printed and all(any(part in whole for whole in code) for part in printed), guide
