"""A disaggregated trial without engines: its pools on a virtual clock, and the link between them.

Nothing is placed on nodes, started or routed. Every instance has the settings that its real one
would have: its shape's and its role's arguments decide its parallelism, and with it how long its
iterations take. KV caches travel as the engine's ``link`` says. A decode instance alone gets
prompts that are computed and moved in no time, as the real one gets dummy values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from trainables._blocks import Problems, model_folder
from trainables._program import StageError
from trainables._trial import Result, Steps, TrialRun
from trainables.benchmarks import Benchmark
from trainables.disaggregated._options import DECODE, PREFILL, ROLES, DisaggregatedOptions, Role
from trainables.disaggregated._plan import Instance, Plan, fitting_shapes, plan
from trainables.engines import Deployment
from trainables.engines._simulated import SimulatedEngine
from trainables.models import is_builtin, is_complete
from trainables.serving._served import ServedTrial
from trainables.serving._simulated import simulated_pool, simulated_service, understand
from trainables.serving._simulated_checks import load_problems, sentence
from trainables.serving._simulated_service import SimulatedPool, SimulatedService
from trainables.simulation import Transfer

NODE = "simulated"
"""Where instances are said to run."""
_ADDRESS = ("127.0.0.1", 8000)


def simulated(
    served: ServedTrial, trial: TrialRun, engine: SimulatedEngine, split: Plan, *, layerwise: bool
) -> Steps:
    """Carry a disaggregated trial out on the virtual clock.

    Args:
        served: The trial's type, which knows the course of its runs.
        split: What the real trial would start.
        layerwise: Whether the trial's transfer pushes each layer as soon as it is computed.

    Returns:
        The metrics of the real trial, ``devices`` included. ``data`` has ``real_evaluation``
        false, ``simulation``, and ``instances`` as the real trial has them.

    Raises:
        TrialFailure: As :meth:`ServedTrial.play`.
    """
    memory = served.options.early_rejection.device_memory
    service = split_service(engine, split, memory, layerwise=layerwise)
    alone = trial.spec.kind == PREFILL
    found = yield from served.play(trial, service, split.load, prompts_only=alone)
    if not found.metrics:
        return found
    instances = {
        one.name: {"shape": one.shape, "devices": one.devices, "node": NODE}
        for one in split.instances
    }
    devices = float(sum(one.devices for one in split.instances))
    return Result(
        {**found.metrics, "devices": devices},
        {**found.data, "instances": instances},
        {},
        found.environment,
    )


def split_service(
    engine: SimulatedEngine, split: Plan, device_memory: int | None, *, layerwise: bool = False
) -> SimulatedService:
    """What stands for all instances of a split and their router.

    Raises:
        TrialFailure: A real engine could not be started so, or it cannot be simulated.
    """
    pools = [
        _pool(engine, split, role, instances, device_memory)
        for role in ROLES
        if (instances := split.of(role))
    ]
    service = simulated_service(engine, split.served_name, pools)
    if split.transfer is not None:
        service.transfer = _transfer(engine, pools[0], layerwise=layerwise)
        if pools[0].understood.kv_token_bytes is None:
            service.note("transfers take their latency only: the KV cache's size is not known")
    if engine.of.options.type == "mindie":
        service.first_token = "prefill"
    if not split.of(PREFILL) and split.of(DECODE):
        service.note("prompts are not computed: their KV cache is there at once")
    return service


def split_problems(
    options: DisaggregatedOptions, engine: SimulatedEngine, benchmark: Benchmark
) -> Problems:
    """Why instances of a shape in a role, or the load, cannot be simulated, as far as it can be
    told now. That one does not fit into memory is for the search to find out."""
    folder = model_folder(options.model)
    if is_builtin(options.model) and not is_complete(folder):
        return []
    memory = options.early_rejection.device_memory
    found: dict[str, str] = {}
    for role in ROLES:
        for shape in fitting_shapes(options, role):
            split = plan(options, {f"{role}_instances": 1, f"{role}_shape": shape}, role)
            try:
                understand(engine, _shown(split, split.instances[0]), memory)
            except StageError as error:
                if error.failure != "out_of_memory":
                    found.setdefault(sentence(error), f"{shape} as {role}")
    faults = [("trial.engine", f"{said} ({where})") for said, where in found.items()]
    return faults or load_problems(benchmark, folder)


def simulated_files(split: Plan) -> Mapping[str, str]:
    """What the real split needs to be deployed, marked as not measured; or why that is not known,
    as of MindIE, which can only be simulated."""
    from trainables.disaggregated._deploy import deployment_files

    try:
        return deployment_files(split)
    except StageError as error:
        return {"deployment.txt": f"How to deploy this split is not known: {sentence(error)}\n"}


def _shown(split: Plan, instance: Instance) -> Deployment:
    """An instance for reading, not for starting."""
    where = (split.model, split.served_name, *_ADDRESS)
    return Deployment(*where, instance.args, instance.env, instance.config)


def _pool(
    engine: SimulatedEngine,
    split: Plan,
    role: Role,
    instances: Sequence[Instance],
    device_memory: int | None,
) -> SimulatedPool:
    """Instances of one role, which are all alike."""
    one = simulated_pool(engine, _shown(split, instances[0]), device_memory)
    ranks = one.understood.replicas
    names = [
        instance.name if ranks == 1 else f"{instance.name} rank {rank}"
        for instance in instances
        for rank in range(ranks)
    ]
    return replace(one, names=names, role=role)


def _transfer(engine: SimulatedEngine, prefill: SimulatedPool, *, layerwise: bool) -> Transfer:
    link, understood = engine.options.link, prefill.understood
    layers = understood.served.config.get("num_hidden_layers")
    return Transfer(
        understood.kv_token_bytes or 0.0,
        link.bytes_per_s / 1e9,
        link.latency_s,
        layerwise=layerwise if link.layerwise is None else link.layerwise,
        layers=layers if isinstance(layers, int) else 1,
    )
