"""What the flags of ``msmodelslim tune`` accept and refuse."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from trainables.quantization import Device, parse_device
from tuner.compat import (
    choose_device,
    parse_command,
    parse_engine_command,
    parse_log_level,
    parse_timeout,
    parse_truth,
)
from tuner.experiment import parse_duration


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("npu", Device("npu")),
        ("cpu", Device("cpu")),
        ("npu:", Device("npu")),
        ("npu:0", Device("npu", (0,))),
        ("npu:0,1,2,3", Device("npu", (0, 1, 2, 3))),
        (" npu : 0 , 1 ", Device("npu", (0, 1))),
        ("npu:0,,1", Device("npu", (0, 1))),
        ("npu:3,1", Device("npu", (3, 1))),
        ("cpu:0", Device("cpu", (0,))),
    ],
)
def test_devices_that_msmodelslim_accepts(text: str, device: Device) -> None:
    assert parse_device(text) == device


@pytest.mark.parametrize(
    "text", ["", " ", "gpu", "NPU", "Cpu", "npu:,", "npu:a", "npu:0:1", "npu:0.5", "npu0", ":0"]
)
def test_devices_that_msmodelslim_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"npu|lists no device"):
        parse_device(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [("npu:-1", "negative"), ("npu:0,0", "twice"), ("cpu:0,1", "several processors")],
)
def test_devices_that_only_we_refuse(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_device(text)


def test_ids_beside_the_device() -> None:
    assert choose_device("npu", ["0", "1"]) == Device("npu", (0, 1))
    assert choose_device("npu:0,1", ["0", "1"]) == Device("npu", (0, 1))
    assert choose_device("npu:4", None) == Device("npu", (4,))
    for device, ids in (("npu:0", ["1"]), ("npu", ["x"]), ("npu", ["-1"]), ("cpu", ["0", "1"])):
        with pytest.raises(ValueError, match="--device_id"):
            choose_device(device, ids)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1D", 86400),
        ("2H", 7200),
        ("3D4H", 273600),
        ("1D2H30M15S", 95415),
        ("30M", 1800),
        ("45S", 45),
        ("0S", 0),
        ("1D30M", 88200),
        ("60", 60),
        ("7200", 7200),
    ],
)
def test_timeouts(text: str, seconds: float) -> None:
    assert parse_duration(parse_timeout(text)) == seconds


@pytest.mark.parametrize(
    "text", ["", "D", "2h", "4H3D", "1.5H", " 2H", "2H ", "-1", "-2H", "1e3", "٣", "soon"]
)
def test_timeouts_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_timeout(text)


def test_trust_is_said_in_words() -> None:
    assert [parse_truth(word) for word in ("True", "true", "YES", "on")] == [True] * 4
    assert [parse_truth(word) for word in ("False", "false", "No", "off")] == [False] * 4
    for word in ("1", "0", "", "maybe"):
        with pytest.raises(ValueError, match="True or False"):
            parse_truth(word)


def test_commands_are_split_as_a_shell_does() -> None:
    assert parse_command("conda run -n 'my env' vllm") == ["conda", "run", "-n", "my env", "vllm"]
    assert parse_command("python tests/no.py") == ["python", "tests/no.py"]
    relative = os.path.relpath(__file__)
    assert parse_command(f"python {relative}") == ["python", str(Path(relative).absolute())]
    assert parse_engine_command("/opt/vllm/bin/vllm") == ["/opt/vllm/bin/vllm", "serve"]
    for words in ("/opt/vllm/bin/python", "vllm serve"):
        assert parse_engine_command(words) == words.split()
    for text in ("", "   ", "vllm 'serve"):
        with pytest.raises(ValueError, match=r"no program|[Qq]uotation"):
            parse_command(text)


def test_the_log_level_of_the_environment() -> None:
    assert parse_log_level({}) == "info"
    assert parse_log_level({"MSMODELSLIM_LOG_LEVEL": "Debug"}) == "debug"
    for level in ("warning", "", "2"):
        with pytest.raises(ValueError, match="info or debug"):
            parse_log_level({"MSMODELSLIM_LOG_LEVEL": level})
