"""Calibration data: three file forms, and ours."""

import json

import pytest
from pydantic import ValidationError

from trainables.quantization import Calibration, CalibrationError, calibration_digest
from trainables.quantization._calibration import calibration_texts, shuffled_texts


def test_the_builtin_texts_are_varied():
    texts = calibration_texts("builtin:calibration")
    assert len(texts) == len(set(texts)) > 50
    assert any("def " in text for text in texts)
    assert any("的" in text for text in texts)
    assert sum(map(len, texts)) > 8000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"text": "one"}\n\n{"inputs_pretokenized": "two"}\n{"text": " "}\n'),
        ("a.json", '["one", "two", ""]'),
        ("a.txt", "one\n\ntwo\n\n\n"),
    ],
)
def test_three_forms_are_read(tmp_path, name, content):
    (tmp_path / name).write_text(content)
    assert [text.strip() for text in calibration_texts(str(tmp_path / name))] == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.jsonl", '{"text": "one"}\n{"body": "two"}\n', "line 2"),
        ("a.jsonl", "{not json}\n", "line 1"),
        ("a.json", '{"text": "one"}', "list of strings"),
        ("a.csv", "one", r"\.jsonl, \.json or \.txt"),
        ("a.txt", "\n\n", "no text"),
    ],
)
def test_faults_are_named(tmp_path, name, content, complaint):
    (tmp_path / name).write_text(content)
    with pytest.raises(CalibrationError, match=complaint):
        calibration_texts(str(tmp_path / name))


def test_a_missing_file_is_named():
    with pytest.raises(CalibrationError, match=r"mix_calib\.jsonl.*builtin:calibration"):
        calibration_digest("mix_calib.jsonl")


def test_the_digest_follows_the_content(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(["one"]))
    before = calibration_digest(str(file))
    file.write_text(json.dumps(["two"]))
    assert calibration_digest(str(file)) != before


def test_the_seed_decides_the_order():
    orders = [shuffled_texts(Calibration(seed=seed)) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


def test_amounts_are_positive():
    with pytest.raises(ValidationError):
        Calibration(samples=0)
