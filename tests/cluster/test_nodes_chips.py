"""NPUs are read from what the driver's own programs print and its installers write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cluster import ascend_versions, chips, describe_chips, device_memory, hccn
from cluster._nodes_chips import chip_tag, parse_address, parse_link, parse_npu_smi

A2 = """
+------------------------------------------------------------------------------------------------+
| npu-smi 24.1.rc2                 Version: 24.1.rc2                                             |
+---------------------------+---------------+----------------------------------------------------+
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip                      | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 0     910B4               | OK            | 88.9        39                0    / 0             |
| 0                         | 0000:C2:00.0  | 0           0    / 0          2858 / 32768         |
+===========================+===============+====================================================+
| 5     910B4               | Alarm         | 86.0        41                0    / 0             |
| 0                         | 0000:01:00.0  | 97          0    / 0          31000/ 32768         |
+===========================+===============+====================================================+
+---------------------------+---------------+----------------------------------------------------+
| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |
+===========================+===============+====================================================+
| 5       0                 | 3122          | python                   | 28012                   |
+===========================+===============+====================================================+
"""
A3 = """
| npu-smi 25.2.0                   Version: 25.2.0                                               |
| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|
| Chip  Phy-ID              | Bus-Id        | AICore(%)   Memory-Usage(MB)  HBM-Usage(MB)        |
+===========================+===============+====================================================+
| 1     Ascend910           | OK            | 185.4       36                0    / 0             |
| 0     2                   | 0000:99:00.0  | 0           0    / 0          3414 / 65536         |
+------------------------------------------------------------------------------------------------+
| 1     Ascend910           | Warning       | -           36                0    / 0             |
| 1     3                   | 0000:9B:00.0  | 0           0    / 0          3193 / 65536         |
"""
DUO = """
+--------------------------------------------------------------------------------------------------------+
| NPU     Name                  | Health          | Power(W)     Temp(C)           Hugepages-Usage(page) |
| Chip    Device                | Bus-Id          | AICore(%)    Memory-Usage(MB)                        |
+===============================+=================+======================================================+
| 6       310P3                 | OK              | NA           50                0     / 0             |
| 0       0                     | 0000:84:00.0    | 0            1839 / 21525                            |
+===============================+=================+======================================================+
| No running processes found in NPU 6                                                                    |
"""  # noqa: E501
FIRST = """
| 0     910B                | OK            | 70.0        34                0    / 0             |
| 0                         | 0000:C1:00.0  | 0           1197 / 13553      1365 / 32768         |
"""


def test_a_chip_has_a_card_a_device_a_health_and_memory() -> None:
    one, other = parse_npu_smi(A2)
    assert (one.card, one.device, one.name, one.health) == (0, 0, "910B4", "OK")
    assert (other.card, other.device, other.health) == (5, 5, "Alarm")
    assert [one.used_mib, other.used_mib, other.memory_mib] == [2858, 31000, 32768]


def test_two_chips_of_a_card_are_two_devices() -> None:
    found = parse_npu_smi(A3)
    assert [(chip.card, chip.number, chip.device) for chip in found] == [(1, 0, 2), (1, 1, 3)]
    assert [chip.health for chip in found] == ["OK", "Warning"]


def test_where_there_is_no_hbm_the_memory_counts_and_where_there_is_both_hbm() -> None:
    (inference,), (first,) = parse_npu_smi(DUO), parse_npu_smi(FIRST)
    assert (inference.name, inference.memory_mib) == ("310P3", 21525)
    assert (first.used_mib, first.memory_mib) == (1365, 32768)


@pytest.mark.parametrize("text", ["", "dcmi model initialized failed", "| 0 x | OK |", A2[:700]])
def test_anything_else_is_no_chip(text: str) -> None:
    assert parse_npu_smi(text) == []


@pytest.mark.parametrize(
    ("name", "chips_of_card", "tag"),
    [
        ("910B4", 1, "910b"),
        ("Ascend910B2C", 1, "910b"),
        ("Ascend910_9391", 2, "910c"),
        ("Ascend910", 2, "910c"),
        ("Ascend910", 1, "910a"),
        ("Ascend910B", 1, "910a"),
        ("Ascend910ProB", 1, "910a"),
        ("310P3", 1, "310p"),
        ("Ascend310B4", 1, "310b"),
        ("Ascend310", 1, "310"),
        ("H100", 1, None),
    ],
)
def test_the_family_follows_from_the_name(name: str, chips_of_card: int, tag: str | None) -> None:
    assert chip_tag(name, chips_of_card) == tag


def program(folder: Path, name: str, text: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}")
    file.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand-ins of the driver's programs on PATH."""
    (tmp_path / "output").write_text(A2)
    program(tmp_path, "npu-smi", f'[ "$1" = info ] && cat {tmp_path}/output\n')
    program(
        tmp_path,
        "hccn_tool",
        'case "$2$3$4" in\n'
        "0-link-g) echo 'link status: UP';;\n"
        "5-link-g) echo 'link status: DOWN';;\n"
        "0-ip-g) printf 'ipaddr:10.20.0.2\\nnetmask:255.255.255.0\\n';;\n"
        "*) echo 'hccn_tool: no ip'; exit 1;;\nesac\n",
    )
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def test_the_machine_is_asked_through_its_programs(tools: Path) -> None:
    assert [chip.card for chip in chips()] == [0, 5]
    assert device_memory() == [32768 * 2**20] * 2
    assert describe_chips() == ("910b", 32)
    assert hccn(chip.device for chip in chips()) == {
        0: {"link": "UP", "address": "10.20.0.2"},
        5: {"link": "DOWN", "address": ""},
    }


def test_programs_that_fail_or_are_not_there_are_no_chips(
    tools: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tools, "npu-smi", "echo drv not loaded; exit 1\n")
    assert (chips(), device_memory()) == ([], [])
    monkeypatch.setenv("PATH", "/nowhere")
    assert (chips(), hccn([0]), describe_chips()) == ([], {}, (None, 0))


def test_links_and_addresses() -> None:
    assert parse_link("link status: UP\n") == "UP"
    assert parse_link("get link failed, ret 4") == "unknown"
    assert parse_address("ipaddr:10.30.12.9 netmask:255.255.255.0") == "10.30.12.9"
    assert parse_address("") == ""


def test_versions_are_those_of_the_installed_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASCEND_HOME_PATH", raising=False)
    monkeypatch.delenv("ASCEND_TOOLKIT_HOME", raising=False)
    assert ascend_versions(tmp_path) == {}
    info = f"{os.uname().machine}-linux/ascend_toolkit_install.info"
    files = {
        "driver/version.info": "Version=24.1.rc2\nascendhal_version=7.35.19\n",
        "firmware/version.info": "Version=7.3.0.1.231\n",
        f"ascend-toolkit/latest/{info}": "package_name=Ascend-cann-toolkit\nversion=8.1.RC1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    expected = {"driver": "24.1.rc2", "firmware": "7.3.0.1.231", "cann": "8.1.RC1"}
    assert ascend_versions(tmp_path) == expected
    newer = tmp_path / "elsewhere" / info
    newer.parent.mkdir(parents=True)
    newer.write_text("version=8.5.0\n")
    monkeypatch.setenv("ASCEND_HOME_PATH", str(tmp_path / "elsewhere"))
    assert ascend_versions(tmp_path)["cann"] == "8.5.0"
