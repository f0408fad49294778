"""Delivered scripts hand on every variable, whatever it is called."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from trainables.engines import Launch
from trainables.engines._engine import serve_script

TELL = "import json, os; print(json.dumps(dict(os.environ)))"


def environment_of(script: str, tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "serve.sh"
    file.write_text(script, encoding="utf-8")
    there = {**os.environ, "GONE": "1", "gone-too": "1"}
    done = subprocess.run(["sh", file], env=there, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def test_names_that_no_shell_takes_reach_the_command(tmp_path: Path) -> None:
    env = {"PLAIN": "a b", "批大小": "8 '$HOME'", "max-num-seqs": "4", "9": ""}
    launch = Launch((sys.executable, "-c", TELL), env, unset=("GONE", "gone-too"))
    found = environment_of(serve_script(launch), tmp_path)
    assert {name: found[name] for name in env} == env
    assert not {"GONE", "gone-too"} & found.keys()


def test_without_them_the_command_stands_alone() -> None:
    script = serve_script(Launch(("vllm", "serve"), {"PLAIN": "1"}))
    assert script.splitlines() == ["#!/bin/sh", "export PLAIN=1", "exec vllm serve"]
