"""msModelSlim's console script is called faster, and to the same effect."""

import json
import os
import sys
from pathlib import Path

import pytest

from trainables import StageError
from trainables.quantization import MsModelSlimOptions
from trainables.quantization._msmodelslim_call import run_msmodelslim

PIP = """\
#!{python}
# -*- coding: utf-8 -*-
import re
import sys
from msmodelslim.cli.__main__ import main
if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])
    sys.exit(main())
"""
UV = """\
#!{python}
# -*- coding: utf-8 -*-
import sys
from msmodelslim.cli.__main__ import main
if __name__ == "__main__":
    if sys.argv[0].endswith("-script.pyw"):
        sys.argv[0] = sys.argv[0][:-11]
    elif sys.argv[0].endswith(".exe"):
        sys.argv[0] = sys.argv[0][:-4]
    sys.exit(main())
"""
CLI = """\
import gc, json, multiprocessing, os, sys

def state():
    return {
        "frozen": gc.get_freeze_count() > 0,
        "collects": gc.isenabled(),
        "adapter": "msmodelslim.model.qwen3.model_adapter" in sys.modules,
    }

def main():
    before = worker = state()
    if "SPAWN" in os.environ:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            worker = pool.apply(state)
    import msmodelslim.model.qwen3.model_adapter
    print(json.dumps({
        "arguments": sys.argv[1:],
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": [entry for entry in sys.path if os.path.basename(entry) != "bin"],
        "input": sys.stdin.read(),
        "state": before,
        "worker": worker,
    }))
    return int(os.environ.get("EXIT", "0"))
"""
ARGUMENTS = ["quant", "--model_path", "/m", "--model_type", "Qwen3-32B"]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Packages with a command line of msModelSlim's layout, which says how it was called."""
    site = tmp_path / "site-packages"
    adapter = "msmodelslim/model/qwen3"
    sources = {
        "msmodelslim/cli/__main__.py": CLI,
        "msmodelslim/cli/naive_quantization/__main__.py": "",
        f"{adapter}/loader.py": (
            "class Loader:\n"
            "    ADAPTER_CLASS_PATH = 'msmodelslim.model.qwen3.model_adapter:Adapter'\n"
        ),
        f"{adapter}/model_adapter.py": "",
        "msmodelslim-26.1.0.dist-info/METADATA": "Name: msmodelslim\nVersion: 26.1.0\n",
        "msmodelslim-26.1.0.dist-info/entry_points.txt": (
            "[msmodelslim.model_adapter.plugins]\n"
            "Qwen3-32B = msmodelslim.model.qwen3.loader:Loader\n"
            "default = msmodelslim.model.qwen3.loader:Loader\n"
        ),
    }
    for name, source in sources.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(source)
    return site


@pytest.fixture
def options(tmp_path: Path, site: Path):
    def options(script=PIP, command=("{}",), **env):
        program = tmp_path / "bin" / "msmodelslim"
        program.parent.mkdir(exist_ok=True)
        program.write_text(script.format(python=sys.executable))
        program.chmod(0o755)
        given = [word.format(program) for word in command]
        return MsModelSlimOptions(command=given, env={"PYTHONPATH": str(site), **env})

    return options


def told(options: MsModelSlimOptions, arguments: list[str] = ARGUMENTS):
    document = json.loads(run_msmodelslim(options, arguments, threads=3)[-1])
    document["environment"].pop("LC_CTYPE", None)  # Python's own, where there is no locale
    return document


@pytest.mark.parametrize("script", [PIP, UV])
def test_it_finds_nothing_changed_but_what_is_imported_and_frozen(
    options, script, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    env = {"ASCEND_RT_VISIBLE_DEVICES": "3", "SPAWN": "a process for each device"}
    plain = told(options(script, command=(sys.executable, "{}"), **env))
    launched = told(options(script, **env))
    fresh = {"frozen": False, "collects": True, "adapter": False}
    ready = {"frozen": True, "collects": True, "adapter": True}
    assert (plain.pop("state"), plain.pop("worker")) == (fresh, fresh)
    assert (launched.pop("state"), launched.pop("worker")) == (ready, ready)
    assert launched == plain
    assert launched["arguments"] == ARGUMENTS
    assert launched["environment"]["ASCEND_RT_VISIBLE_DEVICES"] == "3"
    assert launched["environment"]["OMP_NUM_THREADS"] == "3"
    assert launched["folder"] == str(tmp_path)


def test_models_of_no_name_are_the_default_adapters(options):
    assert told(options(), ["quant", "--model_type", "never-heard-of"])["state"]["adapter"]


@pytest.mark.parametrize("arguments", [["quant", "--model_type"], ["convert"]])
def test_arguments_that_say_nothing_of_imports_are_msmodelslims_business(options, arguments):
    assert told(options(), arguments)["arguments"] == arguments


def test_its_exit_status_counts(options):
    with pytest.raises(StageError, match="exit code 9"):
        run_msmodelslim(options(EXIT="9"), ARGUMENTS, threads=None)


@pytest.mark.parametrize(
    "broken", ["cli/__main__.py", "model/qwen3/model_adapter.py", "cli/naive_quantization/x.py"]
)
def test_what_cannot_be_imported_is_reported_where_it_is_needed(options, site, broken):
    """A module that nobody needs is no failure."""
    (site / "msmodelslim" / broken).write_text("import no_such_module\n")
    if broken.endswith("x.py"):
        assert told(options())["state"]["adapter"]
        return
    with pytest.raises(StageError, match="No module named 'no_such_module'"):
        run_msmodelslim(options(), ARGUMENTS, threads=None)


def test_without_adapters_it_is_called_all_the_same(options, site):
    (site / "msmodelslim-26.1.0.dist-info" / "entry_points.txt").write_text("")
    said = told(options())
    assert said["state"] == {"frozen": True, "collects": True, "adapter": False}


@pytest.mark.parametrize(
    "script",
    [
        PIP.replace("import re", "import os, re; os.environ['MINE'] = '1'"),
        PIP.replace("    sys.exit", "    sys.argv.append('--debug')\n    sys.exit"),
        PIP.replace("msmodelslim.cli.__main__", "mine"),
        '#!/bin/sh\nexec {python} -m msmodelslim.cli "$@"\n',
        PIP + "#" * 5000,
    ],
)
def test_a_script_that_may_do_more_is_run_as_it_stands(options, script):
    given = options(script)
    assert given.program() == given.command


def test_so_is_a_command_that_is_not_there_or_has_arguments(options, tmp_path):
    for command in (("/nowhere/msmodelslim",), ("{}", "--debug"), (sys.executable, "{}")):
        given = options(command=command)
        assert given.program() == given.command


def test_the_command_is_searched_where_it_will_run(options, tmp_path):
    path = os.pathsep.join([str(tmp_path / "bin"), os.environ["PATH"]])
    given = options(command=("msmodelslim",), PATH=path)
    assert given.program()[0] == sys.executable
