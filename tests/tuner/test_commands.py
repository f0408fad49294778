"""Commands that only look."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.tuner.runs import write_experiment
from tuner._doctor import examine
from tuner.experiment import experiment_schema, load_experiment

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


def tuner(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tuner", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.stem)
def test_every_shipped_experiment_is_valid_and_fits_the_schema(file: Path) -> None:
    """Its engine may not be installed yet; an interpreter stands in for that of ``make tools``."""
    engine = yaml.safe_load(file.read_text())["trial"].get("engine")
    real = engine is not None and engine["type"] != "simulated"
    load_experiment(file, [f"trial.engine.command=[{sys.executable}]"] if real else [])
    document, schema = yaml.safe_load(file.read_text()), experiment_schema()
    assert set(document) <= set(schema["properties"])
    types = {
        key: {block["properties"]["type"]["const"] for block in schema["properties"][key]["oneOf"]}
        for key in ("trial", "search")
    }
    assert document["trial"]["type"] in types["trial"]
    assert document["search"]["type"] in types["search"]


def test_the_schema_knows_every_key_of_every_plug_in() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = experiment_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for file in CONFIGS:
        document = yaml.safe_load(file.read_text())
        assert not list(validator.iter_errors(document)), file
        document["trial"]["no_such_key"] = 1
        assert list(validator.iter_errors(document)), file


def test_the_doctor_says_what_is_missing_and_how_to_get_it() -> None:
    findings = examine()
    assert all(finding.ok or finding.remedy for finding in findings)
    assert {"Python", "ray", "watch NPUs", "machine"} <= {finding.feature for finding in findings}
    done = tuner("doctor", "--json")
    assert done.returncode == 0
    assert len(json.loads(done.stdout)) == len(findings)


def test_status_of_a_folder_without_a_run_is_a_plain_error(tmp_path: Path) -> None:
    done = tuner("status", tmp_path)
    assert done.returncode == 2
    assert "no run is stored here" in done.stderr


def test_status_of_a_run_that_never_started(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    folder.mkdir()
    write_experiment(tmp_path).rename(folder / "experiment.yaml")
    done = tuner("status", tmp_path)
    assert done.returncode == 0
    assert "not started" in done.stdout


def test_help_names_every_command() -> None:
    said = tuner("--help").stdout
    for command in ("run", "resume", "status", "validate", "schema", "analyze", "doctor"):
        assert command in said
