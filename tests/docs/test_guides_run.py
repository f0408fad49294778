"""The guides, followed literally."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.guides import ROOT, blocks, guides

FOLLOWED = [
    guide
    for guide in guides()
    if not guide.name.endswith(".zh.md") and any(block.mark == "run" for block in blocks(guide))
]
_SHOWN = ("configs", "benchmarks", "tests", ".tools")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("guide", FOLLOWED, ids=lambda guide: str(guide.relative_to(ROOT)))
def test_its_commands_work_one_after_another(guide: Path, tmp_path: Path) -> None:
    for shown in _SHOWN:
        (tmp_path / shown).symlink_to(ROOT / shown)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    for block in blocks(guide):
        if block.mark == "run":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", block.text],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=3000,
                check=False,
            )
            assert done.returncode == 0, f"{block.place}\n{done.stdout}\n{done.stderr}"
