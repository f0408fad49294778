"""Strategies by name, ours and those of installed third parties."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

from searchers import (
    RandomSearch,
    Space,
    _registry,
    make_strategy,
    register_strategy,
    strategy_options,
    strategy_types,
)

SPACE = Space.model_validate({"x": {"type": "bool"}})
PLUGIN = """
from pydantic import BaseModel
from searchers import RandomSearch, register_strategy

class Options(BaseModel):
    trials: int = 2

@register_strategy("{type}", Options)
class Annealing(RandomSearch):
    pass
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str) -> None:
    """Put a distribution with one strategy plug-in on the path."""
    module = f"plugin_{name}"
    (folder / f"{module}.py").write_text(source)
    info = folder / f"acme_{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: acme-{name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[npu_tuner.strategies]\n{name} = {module}\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(_registry, "_REGISTRY", dict(_registry._REGISTRY))


def test_our_strategies_are_listed() -> None:
    assert {"binary_fallback", "grid", "random"} <= set(strategy_types())


def test_options_are_checked() -> None:
    strategy = make_strategy("random", {"trials": 2}, space=SPACE, seed=0, width=3)
    assert isinstance(strategy, RandomSearch)
    assert strategy.width == 3
    same = make_strategy("random", strategy_options("random")(trials=2), space=SPACE, seed=0)
    assert same.ask() == strategy.ask()
    with pytest.raises(ValidationError, match="trails"):
        make_strategy("random", {"trials": 2, "trails": 3}, space=SPACE, seed=0)
    with pytest.raises(ValueError, match="random needs a space"):
        make_strategy("random", {"trials": 2}, space=None, seed=0)


def test_an_unknown_type_names_the_known_ones() -> None:
    with pytest.raises(KeyError, match=r"'annealing'.*random"):
        make_strategy("annealing", {}, space=SPACE, seed=0)


def test_a_type_cannot_be_taken_twice() -> None:
    with pytest.raises(ValueError, match="'random' is registered already"):
        register_strategy("random", BaseModel)(RandomSearch)


def test_a_third_party_strategy_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "annealing", PLUGIN.format(type="annealing"))
    assert "annealing" in strategy_types()
    assert strategy_options("annealing").model_fields.keys() == {"trials"}
    strategy = make_strategy("annealing", {}, space=SPACE, seed=0)
    assert type(strategy).__name__ == "Annealing"


@pytest.mark.parametrize(
    ("name", "source", "said"),
    [
        ("exploding", "raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("misnamed", PLUGIN.format(type="another"), "registers no strategy type 'misnamed'"),
        ("greedy", PLUGIN.format(type="random"), "'random' is registered already"),
    ],
)
def test_a_broken_plug_in_is_named_only_when_it_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, source: str, said: str
) -> None:
    install(tmp_path, monkeypatch, name, source)
    assert name in strategy_types()
    make_strategy("random", {"trials": 2}, space=SPACE, seed=0)
    with pytest.raises(ImportError) as caught:
        strategy_options(name)
    for part in (f"'{name}'", f"plugin_{name}", f"acme-{name} 1.2", said):
        assert part in str(caught.value)


def test_strategies_need_no_ray() -> None:
    program = "import sys, searchers, searchers.testing; sys.exit('ray' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=root).returncode == 0
