"""What one node of a cluster finds out about itself, asked by :mod:`tuner._doctor_nodes`."""

from __future__ import annotations

import platform
import shutil
import socket
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cluster import Chip, ascend_versions, chips, hccn

_OURS = ("ray", "npu-tuner", "torch-npu")
_TOOLS = ("ais_bench_benchmark", "msmodelslim", "vllm", "vllm-ascend", "torch-npu", "mindie-llm")
"""Packages that results depend on, wherever a block's command leads to them."""
_LEAST_FREE = 5 * 2**30
_SHARED_S = 15.0
"""How long a network file system may take to show a new file."""


class NodeExaminer:
    """An actor of Ray on one node. Every method is quick, or bounded."""

    def clock(self) -> float:
        """Seconds since the epoch, here."""
        return time.time()

    def examine(self, npus: float, needs: Mapping[str, Any] | None) -> dict[str, Any]:
        """Everything but the shared storage.

        Args:
            npus: NPUs that Ray gives out here.
            needs: Of an experiment whose trials may come here: ``type``, ``settings`` (those of
                the trial type), ``devices_linked``; None for other nodes.

        Returns:
            ``versions``, which should be equal on all nodes, ``facts``, ``problems`` and
            ``notes``.
        """
        problems: list[str] = []
        notes: list[str] = []
        found = chips()
        versions = {"python": platform.python_version(), **_own_versions(), **ascend_versions()}
        facts = {"host": socket.gethostname(), "interpreter": sys.executable}
        facts["NPUs"] = describe_chips(found)
        if found:
            facts["HCCN"] = _links(found, needs, problems, notes)
        chip_problems(found, npus, problems, notes)
        if needs is not None:
            tools, wrong = _examine_trial(str(needs["type"]), needs["settings"])
            versions |= tools
            problems += wrong
        return {"versions": versions, "facts": facts, "problems": problems, "notes": notes}

    def free(self, folders: Mapping[str, str]) -> dict[str, int]:
        """Bytes that are free where ``{what: folder}`` are, or will be."""
        return {what: free_bytes(Path(folder)) for what, folder in folders.items()}

    def answer(self, question: str, answer: str) -> str | None:
        """Read the file ``question`` and copy it to ``answer``; what was wrong, if anything."""
        deadline = time.monotonic() + _SHARED_S
        while True:
            try:
                text = Path(question).read_text()
                Path(answer).write_text(text)
                return None
            except OSError as error:
                if time.monotonic() > deadline or not isinstance(error, FileNotFoundError):
                    return f"{error.strerror} ({error.filename})"
            time.sleep(0.5)


def free_bytes(folder: Path) -> int:
    """Free bytes where ``folder`` is or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def enough(free: int) -> bool:
    """Whether a trial can work with so many free bytes."""
    return free >= _LEAST_FREE


def describe_chips(found: list[Chip]) -> str:
    """As ``8 x 910B4, 32 GiB``."""
    sorts: dict[tuple[str, int], int] = {}
    for chip in found:
        sort = chip.name, round(chip.memory_mib / 1024)
        sorts[sort] = sorts.get(sort, 0) + 1
    return "; ".join(f"{n} x {name}, {gib} GiB" for (name, gib), n in sorts.items()) or "none"


def chip_problems(found: list[Chip], npus: float, problems: list[str], notes: list[str]) -> None:
    """Note what the chips cannot do that Ray promises."""
    if not found:
        if npus:
            notes.append(f"Ray gives out {npus:g} NPUs here, but npu-smi shows none")
        return
    if npus > len(found):
        problems.append(f"Ray gives out {npus:g} NPUs here, but npu-smi shows {len(found)}")
    for chip in found:
        if chip.health != "OK":
            # What npu-smi calls a warning still computes.
            (notes if chip.health == "Warning" else problems).append(
                f"NPU {chip.card} chip {chip.number} is in health {chip.health}: see "
                f"`npu-smi info -t health -i {chip.card} -c {chip.number}`"
            )
        elif chip.used_mib > chip.memory_mib // 2:
            notes.append(
                f"NPU {chip.card} chip {chip.number} has {chip.used_mib} of {chip.memory_mib} MiB "
                "in use"
            )


def _links(
    found: list[Chip], needs: Mapping[str, Any] | None, problems: list[str], notes: list[str]
) -> str:
    """The network ports of the NPUs. Only trials over several nodes cannot do without."""
    ports = hccn(chip.device for chip in found)
    if not ports:
        return "no hccn_tool"
    down = [device for device, port in ports.items() if port["link"] != "UP"]
    bare = [device for device, port in ports.items() if not port["address"]]
    needed = needs is not None and needs["devices_linked"]
    for devices, what in ((down, "link is not up"), (bare, "have no IP address")):
        if devices:
            text = f"HCCN: {what}: devices {', '.join(map(str, devices))}"
            (problems if needed else notes).append(text)
    return f"{len(ports) - len(down)} of {len(ports)} links up"


def _own_versions() -> dict[str, str]:
    found = {}
    for name in _OURS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            if name == "npu-tuner":
                found[name] = "from a folder"
    return found


def _examine_trial(name: str, settings: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """Versions of the tools of a trial, and what of it this node lacks."""
    from trainables import trial_type
    from trainables.engines import make_engine, package_versions

    versions: dict[str, str] = {}
    try:
        trial = trial_type(name).from_settings(settings)
        wrong = [f"{path}: {message}" for path, message in trial.problems()]
        for what, block in dict(settings["options"]).items():
            if not isinstance(block, dict) or "type" not in block:
                continue
            if what == "engine":
                versions |= {f"engine {k}": v for k, v in make_engine(block).versions().items()}
            elif command := block.get("command"):
                tools = package_versions(str(command[0]), _TOOLS)
                versions |= {f"{what} {name}": found for name, found in tools.items()}
    except Exception as error:
        return versions, [f"the trial cannot be made here: {type(error).__name__}: {error}"]
    return versions, wrong
