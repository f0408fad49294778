"""No variable of auto_tune.sh from outside, none left behind."""

from __future__ import annotations

import os

import pytest

from tuner.compat.autotune import SETTINGS

_NAMES = [name for setting in SETTINGS for name in setting.variables]


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    known = [name for name in os.environ if name.startswith("TUNE_")]
    for name in {*_NAMES, *known, "AUTO_TUNE_MAIL_URL"}:
        # Set first, so that what the command itself sets is taken back as well.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
