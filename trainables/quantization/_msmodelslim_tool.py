"""msModelSlim where it is installed: an environment of its own, asked but never imported.

Importing msModelSlim replaces classes of pydantic and torch for the whole process, so all that is
known of it here comes from its interpreter's package index and from its files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

_QUESTION_BOUND_S = 60.0
_PACKAGES = ("msmodelslim", "torch", "torch-npu", "transformers")
_QUESTION = """
import importlib.metadata as metadata, importlib.util, json, sys
versions = {}
for name in sys.argv[1:]:
    try: versions[name] = metadata.version(name)
    except metadata.PackageNotFoundError: pass
spec = importlib.util.find_spec("msmodelslim")
folders = list(spec.submodule_search_locations or ()) if spec else []
group = "msmodelslim.model_adapter.plugins"
try: adapters = metadata.entry_points(group=group)
except TypeError: adapters = metadata.entry_points().get(group, ())  # before Python 3.10
print(json.dumps({"versions": versions, "root": folders[0] if folders else None,
                  "adapters": {point.name: point.value for point in adapters}}))
"""
_INTERPRETER = re.compile(r"python[0-9.]*")
_LAUNCH = Path(__file__).with_name("_msmodelslim_launch.py")
_CONSOLE_SCRIPT = re.compile(
    r"import (?:re|sys)|from msmodelslim\.cli\.__main__ import main|if __name__ == .__main__.:"
    r"|(?:el)?if sys\.argv\[0\]\.endswith\(.*\):|sys\.argv\[0\] = .*|sys\.exit\(main\(\)\)"
)
"""A line of what pip or uv installs as the command."""
_SCRIPT_BYTES = 4096
_PEDIGREE = re.compile(r"def get_model_pedigree\b.*?return\s+['\"]([^'\"]+)['\"]", re.DOTALL)


class MsModelSlimOptions(BaseModel):
    """How msModelSlim is called.

    Attributes:
        command: Program and first arguments, such as ``[/opt/msmodelslim/bin/msmodelslim]``. The
            script that pip installs is called by way of ``_msmodelslim_launch.py``; what else is
            given here (also ``[python, msmodelslim]``) is run just as it stands.
        model_type: The model by msModelSlim's name for it, such as ``Qwen3-32B``; it decides
            which adapter loads the model. ``default`` suits most decoders.
        env: Added to the environment of the command.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: list[str] = Field(default=["msmodelslim"], min_length=1)
    model_type: str = Field(default="default", min_length=1)
    env: dict[str, str] = {}

    def environment(self, threads: int | None = None) -> dict[str, str]:
        """The environment for the command.

        Our own checkout, which stage programs find by ``PYTHONPATH``, is not put before the
        packages of another interpreter.
        """
        ours = str(Path(__file__).resolve().parents[2])
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        paths = environment.pop("PYTHONPATH", "").split(os.pathsep)
        if others := [path for path in paths if path and path != ours]:
            environment["PYTHONPATH"] = os.pathsep.join(others)
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        return environment | self.env

    def program(self) -> list[str]:
        """What to run for the command: ``_msmodelslim_launch.py`` in its interpreter, which takes
        less time, if the command is msModelSlim's console script and nothing else."""
        script = shutil.which(self.command[0], path=self.environment().get("PATH"))
        if len(self.command) > 1 or script is None or not _is_console_script(Path(script)):
            return self.command
        interpreter = _interpreter(Path(script))
        return self.command if interpreter is None else [*interpreter, str(_LAUNCH)]


@dataclass(frozen=True)
class Installation:
    """What is known of an installed msModelSlim.

    Attributes:
        versions: Package to version, of msModelSlim and what it computes with.
        root: Folder of the package; None when it was not found.
        adapters: Model type to ``module:class`` of its adapter's loader.
        unknown: Why nothing is known; empty when something is.
    """

    versions: Mapping[str, str] = field(default_factory=dict)
    root: Path | None = None
    adapters: Mapping[str, str] = field(default_factory=dict)
    unknown: str = ""


def missing_command(options: MsModelSlimOptions) -> str | None:
    """Why the command cannot be run; None when it can."""
    program = options.command[0]
    if shutil.which(program, path=options.environment().get("PATH")) is None:
        return (
            f"the command {program!r} is not there or not executable; install msmodelslim and "
            "name its program in command"
        )
    return None


def installation(command: Sequence[str]) -> Installation:
    """The installation that ``command`` belongs to, asked once for each state of its file."""
    program = shutil.which(command[0])
    if program is None:
        return Installation(unknown=f"there is no command {command[0]!r}")
    return _installation(tuple(command), program, Path(program).stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _installation(command: tuple[str, ...], program: str, _changed: int) -> Installation:
    interpreter = _interpreter(Path(program))
    if interpreter is None:
        return Installation(unknown=f"{program} does not say which Python runs it")
    try:
        answer = subprocess.run(
            [*interpreter, "-c", _QUESTION, *_PACKAGES],
            env=MsModelSlimOptions(command=list(command)).environment(),
            cwd="/",  # a folder of that name in ours is no package
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_QUESTION_BOUND_S,
            check=True,
        )
        found = json.loads(answer.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        return Installation(unknown=f"{interpreter[0]} does not answer: {error}")
    if found["root"] is None:
        return Installation(unknown=f"{interpreter[0]} has no package msmodelslim")
    return Installation(found["versions"], Path(found["root"]), found["adapters"])


def _interpreter(program: Path) -> list[str] | None:
    """The Python that runs ``program``: itself, or the one its first line names."""
    if _INTERPRETER.fullmatch(program.name):
        return [str(program)]
    with program.open("rb") as stream:
        first = stream.readline(4096)
    words = first[2:].decode(errors="replace").split() if first.startswith(b"#!") else []
    python = any(_INTERPRETER.fullmatch(Path(word).name) for word in words[:2])
    return words if python else None


def _is_console_script(program: Path) -> bool:
    """Whether ``program`` does nothing but call msModelSlim: a user's own may do more."""
    if program.stat().st_size > _SCRIPT_BYTES:
        return False
    lines = program.read_text(encoding="utf-8", errors="replace").splitlines()
    code = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return "sys.exit(main())" in code and all(map(_CONSOLE_SCRIPT.fullmatch, code))


def dataset_file(command: Sequence[str], name: str) -> Path | None:
    """The file that msModelSlim means by a calibration dataset: a path, or one of those it comes
    with, such as ``mix_calib.jsonl``; None when there is no such file."""
    if Path(name).is_file():
        return Path(name)
    root = installation(command).root
    file = None if root is None else root / "lab_calib" / name
    return file if file is not None and file.is_file() else None


def pedigree(command: Sequence[str], model_type: str) -> tuple[str | None, str]:
    """Folder of msModelSlim's practice repository for a model type, such as ``qwen3``.

    Returns:
        The name and an empty reason, or None and why it cannot be known. A type that msModelSlim
        does not know is handled by its adapter ``default``, whose pedigree is ``default``.
    """
    found = installation(command)
    if found.root is None:
        return None, found.unknown
    loader = found.adapters.get(model_type, found.adapters.get("default", ""))
    module = loader.partition(":")[0]
    package, _, inner = module.partition(".")
    if package != "msmodelslim":
        return None, f"the adapter of {model_type!r} is a third party's: {loader or 'none'}"
    source = found.root.joinpath(*inner.split(".")[:-1], "model_adapter.py")
    if source.is_file() and (said := _PEDIGREE.search(source.read_text(encoding="utf-8"))):
        return said[1], ""
    return None, f"{source} does not say which pedigree {model_type!r} has"
