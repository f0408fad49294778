"""Servers that receive notifications."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tuner.notify.sinks import HttpSink, SmtpSink, http_sink, smtp_sink


@pytest.fixture
def sink() -> Iterator[HttpSink]:
    with http_sink() as sink:
        yield sink


@pytest.fixture
def mail() -> Iterator[SmtpSink]:
    with smtp_sink() as sink:
        yield sink
