"""Which data a dataset's configuration of AISBench is about."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trainables._aisbench_data import data_digest

Digest = Callable[..., str | None]
ABSOLUTE = "d_datasets = [dict(abbr='a', path={path!r})]"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed AISBench with nothing in it; returns the folder of its packages."""
    monkeypatch.delenv("AIS_BENCH_DATASETS_CACHE", raising=False)
    packages = tmp_path / "tool/lib/python3.11/site-packages"
    (packages / "ais_bench/benchmark/configs/datasets").mkdir(parents=True)
    (tmp_path / "tool/bin").mkdir()
    (tmp_path / "tool/bin/ais_bench").touch(mode=0o755)
    return packages


@pytest.fixture
def digest(tmp_path: Path, program: Path) -> Digest:
    """The digest of a configuration of the user's, which is written first."""

    def of(source: str = "") -> str | None:
        file = tmp_path / "mine/datasets/d_gen.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        if source:
            file.write_text(source)
        command = str(tmp_path / "tool/bin/ais_bench")
        return data_digest(command, str(tmp_path / "mine"), "d_gen/d_datasets")

    return of


@pytest.mark.parametrize(
    "source",
    [
        "d = [dict(path='PLACE/test.jsonl')]",
        "d = [dict(path='PLACE')]",
        "d = [{'data_path': 'PLACE'}]",
        "d = [dict(data_files=['PLACE/test.jsonl'])]",
        "where = 'PLACE'\nd = [dict(path=where + '/' + part) for part in PARTS]",
        "where = 'PLACE'\nd = [dict(path=f'{where}/{part}{n}.jsonl') for part, n in PARTS]",
        "d = [dict(path=os.path.join('PLACE', part)) for part in PARTS]",
        "d = [dict(path=Path('PLACE') / part) for part in PARTS] + [dict(path='PLACE')]",
    ],
)
@pytest.mark.parametrize("relative", [False, True])
def test_data_counts_with_its_content_wherever_it_is_named(
    source: str, relative: bool, tmp_path: Path, program: Path, digest: Digest
) -> None:
    folder = (program if relative else tmp_path) / "ais_bench" / "datasets" / "mine"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text("1")
    text = source.replace("PLACE", "ais_bench/datasets/mine" if relative else str(folder))
    before = digest(text)
    assert before is not None
    (folder / "test.jsonl").write_text("2")
    assert digest() not in (before, None)
    (folder / "test.jsonl").write_text("1")
    (folder / ".cache").write_text("left by a tool")
    assert digest() == before


def test_relative_data_is_where_the_environment_says(
    tmp_path: Path, digest: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert digest("d = [dict(path='gsm8k')]") is None
    (tmp_path / "cache" / "gsm8k").mkdir(parents=True)
    monkeypatch.setenv("AIS_BENCH_DATASETS_CACHE", str(tmp_path / "cache"))
    assert digest() is not None


def test_its_place_does_not_count(tmp_path: Path, digest: Digest) -> None:
    found = set()
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "test.jsonl").write_text("1")
        found.add(digest(ABSOLUTE.format(path=str(tmp_path / place / "test.jsonl"))))
    assert len(found) == 1


def test_configurations_that_it_reads_count_too(
    tmp_path: Path, program: Path, digest: Digest
) -> None:
    data = tmp_path / "test.jsonl"
    data.write_text("1")
    theirs = program / "ais_bench/benchmark/configs/datasets/base.py"
    theirs.write_text(ABSOLUTE.format(path=str(data)))
    own = tmp_path / "mine/datasets/between.py"
    own.parent.mkdir(parents=True)
    full = "ais_bench.benchmark.configs.datasets.base"
    own.write_text(f"with read_base():\n    from {full} import d_datasets\n")
    found = [digest("with read_base():\n    from .between import d_datasets\n")]
    data.write_text("2")
    found.append(digest())
    own.write_text(own.read_text() + "d_datasets[0]['abbr'] = 'b'\n")
    found.append(digest())
    assert None not in found
    assert len(set(found)) == 3


@pytest.mark.parametrize(
    "source",
    [
        "d = [dict(path='')]",
        "d = [dict(path='/')]",
        "d = [dict(path=f'/{any}')]",
        "d = [dict(path=f'{any}/test.jsonl')]",
        "d = [dict(path='..')]",
        "d = [dict(path='/x\\0y')]",
        "d = [dict(path='/' + 'x' * 5000)]",
        "with read_base():\n    from " + 99 * "." + "x import d",
        "d = [dict(path=None)]",
        "d = [dict(prompt='lib')]",
        "no python",
    ],
)
def test_what_may_be_anything_is_not_looked_for(source: str, digest: Digest) -> None:
    assert digest(source) is None
