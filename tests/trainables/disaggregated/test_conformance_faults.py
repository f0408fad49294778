"""The conformance suites catch transfers and routers that are broken, each for its reason."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import ConfigDict

from tests.trainables.disaggregated.test_conformance import MINDIE, RECOMPUTE, serve
from trainables.disaggregated import (
    Addition,
    Instance,
    Plan,
    Router,
    Transfer,
    TransferOptions,
    Where,
)
from trainables.disaggregated._router import _ROUTERS
from trainables.disaggregated._router_builtin import BuiltinOptions, BuiltinRouter
from trainables.disaggregated._transfer import _TRANSFERS
from trainables.disaggregated._transfer_vllm import NixlOptions, NixlTransfer
from trainables.disaggregated.testing import (
    ContractViolation,
    Stand,
    check_router,
    check_transfer,
)
from trainables.engines import Launch

ROUTER = str(Path(__file__).with_name("broken_router.py"))


class MineOptions(TransferOptions):
    type: Literal["mine"] = "mine"
    store: str = "10.0.0.9:6000"
    lossless: bool = True


class Mine(Transfer):
    """What a package of somebody else's would have."""

    Options = MineOptions
    options: MineOptions

    def configuration(self, instance: Instance, where: Where) -> Addition:
        role = "kv_producer" if instance.role == "prefill" else "kv_consumer"
        config = {"kv_connector": "Mine", "kv_role": role, "kv_port": where.ports[0]}
        return Addition({"kv-transfer-config": config}, {"MINE_STORE": self.options.store})

    def ports(self, instance: Instance) -> int:
        return 1

    def identity(self) -> Any:
        return {"type": "mine", "lossless": self.options.lossless}


def test_a_transfer_of_somebody_elses_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_TRANSFERS, "find", lambda _: Mine)
    matters, neutral = [{"lossless": False}], [{"store": "10.0.0.8:6000"}]
    check_transfer({"type": "mine"}, misfits=[MINDIE], matters=matters, neutral=neutral)


class SameChannel(NixlTransfer):
    def configuration(self, instance: Instance, where: Where) -> Addition:
        return super().configuration(instance, replace(where, ports=[5000] * len(where.ports)))


class OtherChannel(NixlTransfer):
    def configuration(self, instance: Instance, where: Where) -> Addition:
        moved = [port + 1 for port in where.ports]
        return super().configuration(instance, replace(where, ports=moved))


class Added(NixlTransfer):
    """With more arguments or variables."""

    args: Mapping[str, Any] = {}
    env: Mapping[str, Any] = {}

    def settings(self, instance: Instance, where: Where) -> Addition:
        found = super().settings(instance, where)
        return Addition({**found.args, **self.args}, {**found.env, **self.env})


class TakesAnyPorts(NixlTransfer):
    def _check_ports(self, instance: Instance, where: Where) -> None:
        return None

    def configuration(self, instance: Instance, where: Where) -> Addition:
        return super().configuration(instance, replace(where, ports=[*where.ports, 1]))


class TakesReservedPorts(TakesAnyPorts):
    reserved = range(20000, 20100)

    def _check_ports(self, instance: Instance, where: Where) -> None:
        if not where.ports:
            NixlTransfer._check_ports(self, instance, where)


class Silent(NixlTransfer):
    def misfits(self, plan: Plan) -> list[str]:
        return []


class Wordless(NixlTransfer):
    def misfits(self, plan: Plan) -> list[str]:
        return [" " for _ in super().misfits(plan)]


class StartsAnyway(NixlTransfer):
    starts = False

    def misfits(self, plan: Plan) -> list[str]:
        return [] if self.starts else super().misfits(plan)

    def settings(self, instance: Instance, where: Where) -> Addition:
        self.starts = True
        try:
            return super().settings(instance, where)
        finally:
            self.starts = False


class Refuses(NixlTransfer):
    def misfits(self, plan: Plan) -> list[str]:
        return ["I do not like it"]


class ProvesNothing(NixlTransfer):
    def transferred(self, metrics: str) -> float | None:
        return super().transferred(metrics) or 0.0


class Sideways(NixlTransfer):
    flow: Any = "sideways"


class Blind(NixlTransfer):
    def identity(self) -> Any:
        return "always the same"


class Counting(NixlTransfer):
    number = 0

    def identity(self) -> Any:
        Counting.number += 1
        return Counting.number


class Faulty(NixlTransfer):
    def problems(self) -> list[tuple[str, str]]:
        return [("config", "is wrong")]


class LooseOptions(NixlOptions):
    model_config = ConfigDict(extra="ignore")


class Loose(NixlTransfer):
    Options = LooseOptions


def added(name: str, **attributes: Any) -> type[Transfer]:
    return type(name, (Added,), attributes)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (SameChannel, "would use the same ports"),
        (OtherChannel, "do not have the leased port"),
        (added("A", args={"seen": {1: 2}}), "arguments are not JSON"),
        (added("B", args={"block-size": 32}), "argument block-size is set although"),
        (added("C", env={"LEVEL": "3"}), "variable LEVEL is set although"),
        (TakesAnyPorts, "takes fewer ports"),
        (TakesReservedPorts, "takes ports that it has reserved"),
        (Silent, r"says nothing of \{'engine'"),
        (Wordless, "gives no texts"),
        (StartsAnyway, "takes a split that cannot work"),
        (Refuses, "a split that it serves has misfits"),
        (ProvesNothing, "0.0 tokens have come where nothing is counted"),
        (Sideways, "flow is 'sideways'"),
        (Blind, "does not change the identity"),
        (Counting, "not always the same"),
        (Faulty, "a sound block has problems"),
        (Loose, "is not refused"),
    ],
)
def test_broken_transfers_are_caught(
    kind: type[Transfer], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_TRANSFERS, "find", lambda _: kind)
    block, matters = {"type": "nixl"}, [{"buffer_device": "cpu"}]
    with pytest.raises(ContractViolation, match=said):
        check_transfer(block, misfits=[MINDIE], matters=matters)


class Places(BuiltinRouter):
    """Starts what our own router's program is told, or another one."""

    program: tuple[str, ...] = ()

    def launch(
        self, host: str, port: int, instances: Sequence[Instance], flow: Any = "prefill_first"
    ) -> Launch:
        launch = super().launch(host, port, instances, flow)
        return replace(launch, argv=(*self.program, *launch.argv[3:])) if self.program else launch


class OnePort(Places):
    def launch(
        self, host: str, port: int, instances: Sequence[Instance], flow: Any = "prefill_first"
    ) -> Launch:
        return super().launch(host, 8000, instances, flow)


class FirstOnly(Places):
    def launch(
        self, host: str, port: int, instances: Sequence[Instance], flow: Any = "prefill_first"
    ) -> Launch:
        ones = {one.role: one for one in reversed(instances)}
        return super().launch(host, port, list(ones.values()), flow)


class NeverReady(Places):
    ready_path = "/nowhere"


class PatienceInIdentity(Places):
    def identity(self) -> Any:
        return {"type": "x", **self.options.model_dump()}


class Fits(Places):
    def misfits(self, plan: Plan, flow: Any = "prefill_first") -> list[str]:
        return []


def does(fault: str) -> type[Router]:
    return type(fault, (Places,), {"program": (sys.executable, ROUTER, fault)})


@contextmanager
def stand(role: Literal["prefill", "decode", "mixed"]) -> Iterator[Stand]:
    with serve(role, silent=True) as one:
        yield one


def check(kind: type[Router], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ROUTERS, "find", lambda _: kind)
    block, neutral = BuiltinOptions().model_dump(), [{"silence_timeout": 5}]
    check_router(block, stand, folder=folder, misfits=[RECOMPUTE], neutral=neutral)


@pytest.mark.slow
def test_a_sound_router_of_another_program_passes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check(does("nothing"), tmp_path / "trials", monkeypatch)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (OnePort, "would listen at the same port"),
        (FirstOnly, "not told where prefill-2 is"),
        (PatienceInIdentity, "changes the identity"),
        (Fits, "says nothing of"),
        (NeverReady, "/nowhere answers 404"),
        (does("favourite"), "was passed on to decode-2"),
        (does("twice"), "16 questions were answered 32 times"),
        (does("renames"), "asked for the model {'another'}"),
        (does("cached"), "a question is answered"),
        (does("mends"), "the answer looks whole"),
        pytest.param(does("lingers"), "the router died and nobody noticed", marks=pytest.mark.slow),
    ],
)
def test_broken_routers_are_caught(
    kind: type[Router], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainables.disaggregated._conformance_router._DEATH_NOTICED_S", 1.0)
    with pytest.raises(ContractViolation, match=said):
        check(kind, tmp_path / "trials", monkeypatch)
