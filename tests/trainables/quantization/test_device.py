"""Device names as msModelSlim's command line takes them, and those it would trip over later."""

import pytest

from trainables.quantization import Device, parse_device


@pytest.mark.parametrize(
    ("text", "device"),
    [
        ("npu", Device("npu")),
        ("npu:", Device("npu")),
        ("cpu", Device("cpu")),
        (" npu : 0 , 1 ", Device("npu", (0, 1))),
        ("npu:0,,1", Device("npu", (0, 1))),
        ("npu:3", Device("npu", (3,))),
        ("npu:2,0", Device("npu", (2, 0))),
        ("cpu:0", Device("cpu", (0,))),
    ],
)
def test_what_the_tool_accepts(text, device):
    assert parse_device(text) == device
    assert parse_device(str(device)) == device


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "names no device"),
        ("  ", "names no device"),
        ("gpu", "npu and cpu"),
        ("NPU", "lower case"),
        ("cuda:0", "npu and cpu"),
        ("npu:,", "no device after the colon"),
        ("npu:a", "device numbers"),
        ("npu:0:1", "device numbers"),
        ("npu:1.0", "device numbers"),
        ("npu:-1", "negative"),
        ("npu:0,0", "twice"),
        ("cpu:0,1", "one: cpu"),
    ],
)
def test_what_is_refused_with_a_reason(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        parse_device(text)
