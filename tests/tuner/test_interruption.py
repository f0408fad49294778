"""A signal that ends a session is known to whoever waited for the session."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from cluster import Storage
from tuner._interruption import Interrupted, Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_outside_of_rays_loop_leaves_with_its_number(number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as left, Signals():
        os.kill(os.getpid(), number)
    assert left.value.signal == number
    assert signal.getsignal(number) is before


def test_a_signal_that_ends_the_wait_for_a_storage_leaves_with_its_number(tmp_path: Path) -> None:
    signals = Signals()

    def terminated(_: float) -> None:
        signals.received = signal.SIGTERM

    storage = Storage(
        tmp_path / "gone",
        say=lambda _: None,
        interrupted=lambda: bool(signals.received),
        sleep=terminated,
    )
    with pytest.raises(Interrupted) as left, signals:
        storage.do((tmp_path / "gone" / "file").read_bytes)
    assert left.value.signal == signal.SIGTERM


def test_what_no_signal_interrupted_stays_what_it_is() -> None:
    with pytest.raises(KeyboardInterrupt) as left, Signals():
        raise KeyboardInterrupt
    assert not isinstance(left.value, Interrupted)
