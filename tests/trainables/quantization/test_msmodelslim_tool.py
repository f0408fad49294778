"""An installed msModelSlim is asked through its own interpreter, and never imported."""

import os
import sys
from pathlib import Path

import pytest

from trainables.quantization import make_quantizer, parse_practice, pedigree, practice_from_scheme
from trainables.quantization._msmodelslim_tool import installation

ADAPTERS = {
    "default": "msmodelslim.model.default.loader:DefaultAdapterLoader",
    "Qwen3-32B": "msmodelslim.model.qwen3.loader:Qwen3AdapterLoader",
    "Video-1": "msmodelslim.model.video.loader:VideoLoader",
    "Ours-1": "our_adapters.loader:Loader",
}


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A program with a Python of its own, whose packages hold an msModelSlim that cannot even be
    imported."""
    site = tmp_path / "site-packages"
    package = site / "msmodelslim"
    for name in ("default", "qwen3"):
        source = package / "model" / name / "model_adapter.py"
        source.parent.mkdir(parents=True)
        source.write_text(
            f"class A(B):\n  def get_model_pedigree(self) -> str:\n    return '{name}'"
        )
    (package / "model" / "video").mkdir()
    (package / "model" / "video" / "model_adapter.py").write_text("class Video(Base): ...")
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "lab_calib").mkdir()
    (package / "lab_calib" / "mix_calib.jsonl").write_text('{"inputs_pretokenized": "x"}\n')
    index = site / "msmodelslim-26.1.0.dist-info"
    index.mkdir()
    (index / "METADATA").write_text("Name: msmodelslim\nVersion: 26.1.0\n")
    points = "".join(f"{name} = {value}\n" for name, value in ADAPTERS.items())
    (index / "entry_points.txt").write_text(f"[msmodelslim.model_adapter.plugins]\n{points}")
    program = tmp_path / "bin" / "msmodelslim"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nimport msmodelslim\n")
    program.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", str(site))
    return [str(program)]


def test_versions_are_those_of_its_environment(command):
    quantizer = make_quantizer({"type": "msmodelslim", "command": command})
    assert quantizer.versions()["msmodelslim"] == "26.1.0"
    assert quantizer.identity()["versions"] == quantizer.versions()


def test_it_is_asked_once_until_its_program_changes(command, monkeypatch):
    first = installation(command)
    asked = []
    monkeypatch.setattr("subprocess.run", lambda *args, **options: asked.append(args))
    assert installation(command) is first
    os.utime(command[0], ns=(1, 1))
    with pytest.raises(AttributeError):
        installation(command)
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("model_type", "name", "reason"),
    [
        ("default", "default", ""),
        ("Qwen3-32B", "qwen3", ""),
        ("qwen3-32b", "default", ""),
        ("Never-Heard-Of", "default", ""),
        ("Video-1", None, "does not say"),
        ("Ours-1", None, "a third party's: our_adapters.loader:Loader"),
    ],
)
def test_the_pedigree_is_what_the_adapter_says(command, model_type, name, reason):
    found, said = pedigree(command, model_type)
    assert found == name
    assert reason in said


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (["/nowhere/msmodelslim"], "there is no command"),
        ([sys.executable], "has no package msmodelslim"),
        (["/bin/sh"], "does not say which Python"),
    ],
)
def test_what_cannot_be_known_has_a_reason(program, reason):
    name, said = pedigree(program, "default")
    assert name is None
    assert reason in said


def test_datasets_that_come_with_it_are_known_and_count_with_their_content(command):
    quantizer = make_quantizer({"type": "msmodelslim", "command": command})
    document = practice_from_scheme("w8a8_static").document()
    document["spec"]["dataset"] = "mix_calib.jsonl"
    practice = parse_practice(document)
    assert quantizer.problems(practice) == []
    document["spec"]["dataset"] = "mxi_calib.jsonl"
    (problem,) = quantizer.problems(parse_practice(document))
    assert "'mxi_calib.jsonl' is no file, and no dataset" in problem


def test_a_folder_of_that_name_where_we_are_is_no_package(command, tmp_path, monkeypatch):
    monkeypatch.delenv("PYTHONPATH")
    (tmp_path / "here" / "msmodelslim").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert "has no package" in installation(command).unknown
