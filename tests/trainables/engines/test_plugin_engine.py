"""Plug-ins of msServiceProfiler's optimizer as engines: a tiny optimizer, and a plug-in for it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster import lease_ports
from trainables import StageError, TrialFailure, TrialRun
from trainables.engines import Deployment, Service, make_engine, start_service
from trainables.engines.testing import check_engine, drive

STUB = Path(__file__).parents[2] / "stubs" / "openai_engine.py"
OPTIMIZER = "ms_serviceparam_optimizer"
REGISTER = """
simulates, benchmarks = {}, {}
def register_simulator(model_arch, model_cls):
    simulates[model_arch] = model_cls
def register_benchmarks(model_arch, model_cls):
    benchmarks[model_arch] = model_cls
"""
PLUGIN = """
import os, sys
from pathlib import Path
from types import SimpleNamespace
from ms_serviceparam_optimizer.optimizer.register import register_simulator

class Simulator:
    base_url = "http://localhost:@PORT@/health"
    def __init__(self):
        self.env = {**os.environ, "FROM_PLUGIN": "yes"}
        self.work_path = "@FOLDER@"
        self.command = []
        self.data_field = (
            SimpleNamespace(name="max_seqs", config_position="env", value=1),
            SimpleNamespace(name="batch", config_position="A.b", value=2),
        )
    def update_config(self, params=None):
        Path("@FOLDER@/config").write_text(repr([(f.name, f.value) for f in params]))
        return True
    def update_command(self):
        self.command = [
            sys.executable, "@STUB@", "serve", "@MODEL@", "--port", "@PORT@",
            "--served-model-name", "theirs", "--max-seqs", "$MAX_SEQS",
        ]
    def before_run(self, params=None):
        Path("@FOLDER@/hooks").write_text("before_run ")
    def stop(self, del_log=True):
        with Path("@FOLDER@/hooks").open("a") as file:
            file.write("stop")
    def run(self, params=None):
        raise AssertionError("it would end processes by name")

class Silent(Simulator):
    def update_command(self):
        self.command = None

class Public(Simulator):
    base_url = "http://0.0.0.0:8000/health"

def register():
    for name, cls in (("theirs", Simulator), ("silent", Silent), ("public", Public)):
        register_simulator(name, cls)
"""
BROKEN = 'raise RuntimeError("this package is broken")'


@pytest.fixture
def packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], None]]:
    """Install packages with plug-ins, beside a tiny optimizer."""
    site = tmp_path / "site"
    files = {
        f"{OPTIMIZER}/__init__.py": "",
        f"{OPTIMIZER}/optimizer/__init__.py": "",
        f"{OPTIMIZER}/optimizer/register.py": REGISTER,
    }
    for name, text in files.items():
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text(text)
    monkeypatch.syspath_prepend(str(site))
    installed = [OPTIMIZER]

    def install(name: str, text: str) -> None:
        installed.append(name)
        (site / f"{name}.py").write_text(text)
        info = site / f"{name}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        points = f"[{OPTIMIZER}.plugins]\n{name} = {name}:register\n"
        (info / "entry_points.txt").write_text(points)

    yield install
    for loaded in [name for name in sys.modules if name.split(".")[0] in installed]:
        del sys.modules[loaded]


@pytest.fixture
def theirs(
    packages: Callable[[str, str], None], tmp_path: Path, model: Callable[..., Path]
) -> Path:
    """The plug-in, installed; the folder it writes to."""
    folder = tmp_path / "work"
    folder.mkdir()
    with lease_ports() as lease:
        values = {"PORT": lease.ports[0], "FOLDER": folder, "STUB": STUB, "MODEL": model()}
    text = PLUGIN
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    packages("their_plugin", text)
    return folder


def block(**keys: Any) -> dict[str, Any]:
    named = {"type": "plugin", "name": "theirs", "served_model_name": "theirs"}
    return {**named, "startup_timeout": 300, **keys}


@pytest.mark.usefixtures("theirs")
def test_a_plug_in_is_started_watched_and_ended_as_our_own_engines(
    start: Callable[..., Service], theirs: Path, model: Callable[..., Path]
) -> None:
    service = start(
        make_engine(block()), model(), env={"MAX_SEQS": 9}, config={"A.b": 3}, options={}
    )
    service.check()
    log = service.log.read_text()
    assert "'--max-seqs', '9'" in log
    assert (theirs / "config").read_text() == "[('max_seqs', 9), ('batch', 3)]"
    assert not (theirs / "hooks").exists()
    service.stop()
    assert not (theirs / "hooks").exists()


def test_its_hooks_are_called_where_the_user_says_so(
    start: Callable[..., Service], theirs: Path, model: Callable[..., Path]
) -> None:
    service = start(make_engine(block(hooks=["before_run", "stop"])), model())
    assert (theirs / "hooks").read_text() == "before_run "
    service.stop()
    assert (theirs / "hooks").read_text() == "before_run stop"


@pytest.mark.usefixtures("theirs")
def test_its_settings_say_where_it_serves() -> None:
    engine = make_engine(block())
    assert (engine.host, engine.health_path) == ("localhost", "/health")
    assert engine.port is not None
    own = make_engine(block(health_check_endpoint="/v1/models", port=3000))
    assert (own.port, own.health_path) == (3000, "/v1/models")
    launch = engine.launch(Deployment(Path("/m"), "theirs", "localhost", 1, env={"MAX_SEQS": ""}))
    assert launch.argv[-2:] == ("--served-model-name", "theirs")
    assert launch.env == {"FROM_PLUGIN": "yes"}


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("silent", "cannot be supervised"),
        ("public", "serves at 0.0.0.0: .* reached from outside"),
        ("nobody", "no plug-in has registered a simulator 'nobody'"),
    ],
)
def test_plug_ins_that_cannot_be_used(trial: TrialRun, name: str, said: str) -> None:
    with pytest.raises(TrialFailure, match=said) as caught:
        drive(start_service(trial, make_engine(block(name=name)), model=Path("/m")))
    assert caught.value.failure == "input"


@pytest.mark.usefixtures("theirs")
def test_a_parameter_it_does_not_know_is_refused() -> None:
    engine = make_engine(block())
    place = (Path("/m"), "theirs", "localhost", 1)
    with pytest.raises(StageError, match=r"has no field C\.d; it has max_seqs, batch"):
        engine.launch(Deployment(*place, config={"C.d": 1}))
    engine.launch(Deployment(*place, options={"batch": 4}, env={"CONCURRENCY": 1}))


def test_nothing_is_loaded_before_it_is_named(
    packages: Callable[[str, str], None], theirs: Path
) -> None:
    packages("a_broken_plugin", BROKEN)
    engine = make_engine(block())
    assert engine.problems() == []
    identity = engine.identity()
    assert identity["packages"] == ["a_broken_plugin 1.2", "their_plugin 1.2"]
    json.dumps(identity, allow_nan=False)
    assert not {"their_plugin", "a_broken_plugin"} & sys.modules.keys()


def test_a_broken_package_is_told_where_nobody_else_has_the_name(
    packages: Callable[[str, str], None], theirs: Path
) -> None:
    packages("a_broken_plugin", BROKEN)
    assert make_engine(block()).port is not None
    with pytest.raises(StageError, match=r"a_broken_plugin:register.*this package is broken"):
        _ = make_engine(block(name="nobody")).port


def test_without_plug_ins_there_is_a_problem() -> None:
    assert "no package is installed" in dict(make_engine(block()).problems())["name"]


@pytest.mark.usefixtures("theirs")
def test_a_plug_in_keeps_the_contract_of_engines_but_for_its_port(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Callable[..., Path]
) -> None:
    """Its address is its own: two instances have the same, and cannot run at once."""
    monkeypatch.setattr("trainables.engines.testing._check_launch", lambda *_: None)
    check_engine(
        block(), model=model(), folder=tmp_path / "trials", matters=[{"env_vars": {"A": 1}}]
    )
