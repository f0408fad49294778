"""What NPUs a machine has, read from the programs and files of the Ascend driver.

Shapes of the output: https://www.hiascend.com, npu-smi and HCCN Tool reference. Nothing of the
vendor's is imported: a process that has once opened a device keeps it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_BOUND_S = 30.0
_TOOLS = Path("/usr/local/Ascend/driver/tools")
_CELL = re.compile(r"\|(.*?)\|(.*?)\|(.*?)\|?\s*$")
_USAGE = re.compile(r"(\d+)\s*/\s*(\d+)")
_BUS = re.compile(r"[0-9A-Fa-f]{4}:[0-9A-Fa-f]{2}:[0-9A-Fa-f]{2}\.[0-9A-Fa-f]")
_FAMILIES = (
    (r"910_?93|910C", "910c"),
    (r"910B\d", "910b"),
    (r"910", "910a"),
    (r"310P", "310p"),
    (r"310B", "310b"),
    (r"310", "310"),
)
"""``Ascend910B`` without a number is of the first generation, ``910B1`` to ``910B4`` the second."""


@dataclass(frozen=True)
class Chip:
    """One device as ``npu-smi info`` shows it, in the order of the table.

    Attributes:
        card: The card's number.
        number: Of the chip on its card.
        device: What ``/dev/davinciN`` and ``hccn_tool -i N`` count.
        name: As written, such as ``910B4`` or ``310P3``.
        health: ``OK``, ``Warning``, ``Alarm``, ``Critical``, ``UNKNOWN``.
        used_mib: Device memory in use, in MiB; HBM where it has some.
        memory_mib: Device memory it has, in MiB.
    """

    card: int
    number: int
    device: int
    name: str
    health: str
    used_mib: int
    memory_mib: int


def chips() -> list[Chip]:
    """The chips of this machine; none where there is no ``npu-smi`` or it fails."""
    return parse_npu_smi(_output("npu-smi", "info") or "")


def device_memory() -> list[int]:
    """Bytes of memory of each chip of this machine, as ``npu-smi info`` tells."""
    return [chip.memory_mib * 2**20 for chip in chips()]


def parse_npu_smi(text: str) -> list[Chip]:
    """The chips in the output of ``npu-smi info``; its table of processes is left out.

    A chip takes two lines: card, name, health; then chip, bus address, memory. Chips of the 310
    series have one sort of memory; those of the 910 series have ``Memory-Usage`` and after it
    ``HBM-Usage``, which is what models live in.
    """
    found: list[Chip] = []
    above: tuple[int, str, str] | None = None
    for line in text.splitlines():
        match = _CELL.match(line.strip())
        cells = [cell.strip() for cell in match.groups()] if match else []
        words = cells[0].split() if cells else []
        if not words or not words[0].isdigit():
            above = None
        elif _BUS.fullmatch(cells[1]) and above is not None:
            used, memory = _memory(cells[2])
            card, name, health = above
            device = int(words[1]) if len(words) > 1 and words[1].isdigit() else card
            found.append(Chip(card, int(words[0]), device, name, health, used, memory))
            above = None
        elif len(words) == 2 and len(cells[1].split()) == 1:
            above = int(words[0]), words[1], cells[1]
        else:
            above = None
    return found


def _memory(text: str) -> tuple[int, int]:
    usages = [(int(used), int(total)) for used, total in _USAGE.findall(text)]
    return usages[-1] if usages else (0, 0)


def chip_tag(name: str, chips_of_card: int = 1) -> str | None:
    """The family of a chip, such as ``910b``, from what ``npu-smi`` or ``acl`` calls it.

    The third 910 is ``Ascend910_93xx`` to ``acl`` but ``Ascend910`` to ``npu-smi``, which shows
    two chips on each of its cards.
    """
    if name == "Ascend910" and chips_of_card == 2:
        return "910c"
    return next((tag for part, tag in _FAMILIES if re.search(part, name)), None)


def soc_name() -> str | None:
    """What ``acl`` calls the chips here, asked in an interpreter of its own; None without it."""
    said = _output(sys.executable, "-c", "import acl; print(acl.get_soc_name())")
    return said.strip().splitlines()[-1] if said and said.strip() else None


def describe_chips() -> tuple[str | None, int]:
    """Family of the chips here (None where there are none) and memory of one in whole GiB."""
    found = chips()
    name = soc_name()
    if not found:
        return (chip_tag(name) if name else None), 0
    first = [chip for chip in found if chip.card == found[0].card]
    tag = chip_tag(name) if name else None
    return tag or chip_tag(found[0].name, len(first)), round(found[0].memory_mib / 1024)


def visible_npus() -> int:
    """NPUs that Ray will find here by itself; ASCEND_RT_VISIBLE_DEVICES leaves some out."""
    from ray._private.accelerators import NPUAcceleratorManager

    devices: int = NPUAcceleratorManager.get_current_node_num_accelerators()
    visible = NPUAcceleratorManager.get_current_process_visible_accelerator_ids()
    return devices if visible is None else min(devices, len(visible))


def hccn(devices: Iterable[int]) -> dict[int, dict[str, str]]:
    """``{device: {link, address}}`` of the network ports of the NPUs; empty without hccn_tool."""
    if _program("hccn_tool") is None:
        return {}
    return {
        device: {
            "link": parse_link(_output("hccn_tool", "-i", str(device), "-link", "-g") or ""),
            "address": parse_address(_output("hccn_tool", "-i", str(device), "-ip", "-g") or ""),
        }
        for device in devices
    }


def parse_link(text: str) -> str:
    """``UP`` or ``DOWN`` from ``hccn_tool -i N -link -g``; ``unknown`` from anything else."""
    match = re.search(r"link status:\s*(UP|DOWN)\b", text, re.IGNORECASE)
    return match[1].upper() if match else "unknown"


def parse_address(text: str) -> str:
    """The port's IP address from ``hccn_tool -i N -ip -g``; empty where it has none."""
    match = re.search(r"ipaddr\s*:\s*([0-9a-fA-F.:]+)", text)
    return match[1] if match else ""


def ascend_versions(root: Path = Path("/usr/local/Ascend")) -> dict[str, str]:
    """Versions of driver, firmware and CANN, from the files that their installers write."""
    architecture = f"{os.uname().machine}-linux"
    given = [os.environ.get("ASCEND_HOME_PATH"), os.environ.get("ASCEND_TOOLKIT_HOME")]
    toolkits = [Path(path) for path in given if path]
    toolkits += [root / "cann", root / "ascend-toolkit" / "latest"]
    files = {
        "driver": [root / "driver" / "version.info"],
        "firmware": [root / "firmware" / "version.info"],
        "cann": [folder / architecture / "ascend_toolkit_install.info" for folder in toolkits],
    }
    found = {}
    for name, candidates in files.items():
        for file in candidates:
            if version := _version(file):
                found[name] = version
                break
    return found


def _version(file: Path) -> str | None:
    """From a file of ``key=value`` lines; ``Version`` in some, ``version`` in others."""
    try:
        text = file.read_text(errors="replace")
    except OSError:
        return None
    match = re.search(r"^\s*version\s*=\s*(\S+)", text, re.IGNORECASE | re.MULTILINE)
    return match[1] if match else None


def _program(name: str) -> str | None:
    found = shutil.which(name)
    if found is None and (_TOOLS / name).exists():
        return str(_TOOLS / name)
    return found


def _output(name: str, *arguments: str) -> str | None:
    """What a program prints; None where it is not there, fails or hangs."""
    program = _program(name)
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=_BOUND_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
