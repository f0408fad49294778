"""Fingerprints tell checkpoints apart; digests tell delivered weights from others."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainables.models import checkpoint_digest, model_fingerprint, verify_digest
from trainables.models.verify import verify

LARGE = 24 << 20


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"hidden_size": 64}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "README.md").write_text("A model.")
    (folder / "model-1.safetensors").write_bytes(b"small" * 100)
    with (folder / "model-2.safetensors").open("wb") as stream:
        stream.truncate(LARGE)
    return folder


def _flip(file: Path, offset: int) -> None:
    """Change one byte and nothing else: neither size nor time of modification."""
    state = file.stat()
    with file.open("r+b") as stream:
        stream.seek(offset)
        byte = stream.read(1)
        stream.seek(offset)
        stream.write(bytes([byte[0] ^ 1]))
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns + 1))


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(block=st.integers(0, 63), within=st.integers(0, (64 << 10) - 1))
def test_any_byte_of_a_sampled_block_counts(checkpoint, block, within):
    before = model_fingerprint(checkpoint)
    _flip(checkpoint / "model-2.safetensors", block * (LARGE - (64 << 10)) // 63 + within)
    assert model_fingerprint(checkpoint) != before


@given(offset=st.integers(0, 499))
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_every_byte_of_a_small_file_counts(checkpoint, offset):
    before = model_fingerprint(checkpoint)
    _flip(checkpoint / "model-1.safetensors", offset)
    assert model_fingerprint(checkpoint) != before


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "config.json").write_text('{"hidden_size": 65}'),
        lambda folder: (folder / "tokenizer.json").write_text("[]"),
        lambda folder: (folder / "chat_template.jinja").write_text("{{ x }}"),
        lambda folder: (folder / "modeling.py").write_text("x = 1"),
        lambda folder: (folder / "model-1.safetensors").rename(folder / "model-3.safetensors"),
        lambda folder: os.truncate(folder / "model-2.safetensors", LARGE + 1),
        lambda folder: (folder / "model-1.safetensors").unlink(),
    ],
)
def test_what_gives_weights_their_meaning_counts(checkpoint, change):
    before = model_fingerprint(checkpoint)
    change(checkpoint)
    assert model_fingerprint(checkpoint) != before


def test_place_time_and_prose_do_not_count(checkpoint, tmp_path):
    before = model_fingerprint(checkpoint)
    (checkpoint / "README.md").write_text("The same model.")
    (checkpoint / ".complete.json").write_text("{}")
    os.utime(checkpoint / "model-2.safetensors", (1, 1))
    assert model_fingerprint(checkpoint) == before
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    assert model_fingerprint(copy) == before


def test_a_digest_covers_every_byte(checkpoint):
    digest = checkpoint_digest(checkpoint)
    assert verify_digest(checkpoint, digest) == []
    _flip(checkpoint / "model-2.safetensors", (64 << 10) + 7)
    (checkpoint / "tokenizer.json").unlink()
    (checkpoint / "model-9.safetensors").write_bytes(b"x")
    (checkpoint / "notes.md").write_text("harmless")
    faults = [
        "tokenizer.json is missing",
        "model-2.safetensors has other content",
        "model-9.safetensors was not there before",
    ]
    assert verify_digest(checkpoint, digest) == faults
    assert verify({"folder": str(checkpoint), "files": digest}) == {"faults": faults}
