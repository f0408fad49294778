"""Plug-ins written for the serving-parameter optimizer of msServiceProfiler, as engines.

Such a plug-in is a package with an entry point in the group ``ms_serviceparam_optimizer.plugins``
or ``optix.plugins``: a function that calls ``register_simulator(name, class)`` of the optimizer,
which has to be installed as well. Nothing is loaded until an experiment names a plug-in.

Of an object of the class these are used: ``data_field`` (fields with ``name``, ``config_position``
and ``value``; the tuned values are put in), ``update_config(fields)``, ``update_command()``,
``command``, ``env``, ``work_path`` and ``base_url``. Its ``run``, ``health`` and ``get_log`` are
not: the program is started, watched and ended here, with its whole tree and nothing else. Its
``before_run(fields)`` and ``stop()`` are called only where ``hooks`` says so, because those of the
optimizer's own classes end processes by name, anybody's. Not used either: ``register_settings``,
which a plug-in may still call, and its benchmarks, which have their own adapter.
"""

from __future__ import annotations

import copy
import importlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field

from trainables._program import StageError
from trainables._trial import Json
from trainables.engines._engine import Deployment, Launch, register_engine
from trainables.engines._foreign import ForeignEngine, ForeignOptions
from trainables.engines._options import private_host
from trainables.engines._substitution import in_list, variables

_GROUPS = {
    "ms_serviceparam_optimizer.plugins": "ms_serviceparam_optimizer.optimizer.register",
    "optix.plugins": "optix.optimizer.register",
}
_LOG_VARIABLE = re.compile(r"LOG(GING)?_")


class PluginOptions(ForeignOptions):
    """Options of ``plugin``.

    Attributes:
        name: What the plug-in has registered its class as.
        hooks: Which of its methods are called around each start beside those that are needed.
    """

    type: Literal["plugin"] = "plugin"
    name: str = Field(min_length=1)
    hooks: list[Literal["before_run", "stop"]] = Field(default_factory=list)


@register_engine("plugin")
class PluginEngine(ForeignEngine):
    """A service as a plug-in describes it.

    The plug-in's own settings decide which model is served and where; ``served_model_name`` has to
    say what it calls the model. Its health path is that of its ``base_url``.
    """

    Options = PluginOptions
    configurable = True
    options: PluginOptions

    def __init__(self, options: Any) -> None:
        super().__init__(options)
        self._made: Any = None

    def launch(self, deployment: Deployment) -> Launch:
        simulator = self._simulator()
        self._fields(simulator, deployment)
        simulator.update_command()
        command = getattr(simulator, "command", None)
        if not isinstance(command, list | tuple) or not command:
            raise StageError(
                "input",
                f"the plug-in {self.options.name} has no list of arguments as its command, so its "
                "program cannot be supervised",
                "use engine type script with a command of your own",
            )
        try:
            argv = in_list([str(word) for word in command], deployment.env)
        except ValueError as error:
            raise StageError("input", str(error)) from None
        added = {k: v for k, v in _environment(simulator).items() if os.environ.get(k) != v}
        env, unset = variables({**added, **self.options.env_vars}, deployment.env)
        place = getattr(simulator, "work_path", None)
        folder = Path(place).absolute() if place else None
        return Launch(tuple(argv), env, unset, folder, self.unproven())

    @contextmanager
    def prepared(self, deployment: Deployment) -> Iterator[None]:
        simulator, hooks = self._simulator(), self.options.hooks
        fields = self._fields(simulator, deployment)
        try:
            if simulator.update_config(fields) is False:
                said = f"the plug-in {self.options.name} could not update its configuration"
                raise StageError("tool", said)
            if "before_run" in hooks:
                simulator.before_run(fields)
            yield
        finally:
            if "stop" in hooks:
                simulator.stop()

    def identity(self) -> Json:
        options = self.options
        return {
            "type": options.type,
            "name": options.name,
            "packages": sorted({_package(point) for point in _points()}),
            "env_vars": {
                name: value
                for name, value in sorted(options.env_vars.items())
                if not _LOG_VARIABLE.search(name)
            },
        }

    def problems(self) -> list[tuple[str, str]]:
        if next(_points(), None) is not None:
            return []
        said = "no package is installed here that has plug-ins: none has an entry point in"
        return [("name", f"{said} {' or '.join(_GROUPS)}")]

    @property
    def host(self) -> str:
        """That of the plug-in's address, which has to be private."""
        found = urlsplit(self._base_url()).hostname
        if found is None:
            return super().host
        try:
            return private_host(found)
        except ValueError as error:
            said = f"the plug-in {self.options.name} serves at {found}: {error}"
            raise StageError("input", said) from None

    @property
    def port(self) -> int | None:
        return super().port or urlsplit(self._base_url()).port

    @property
    def health_path(self) -> str:
        if "health_check_endpoint" in self.options.model_fields_set:
            return super().health_path
        return urlsplit(self._base_url()).path or super().health_path

    def _base_url(self) -> str:
        return str(getattr(self._simulator(), "base_url", None) or "")

    def _simulator(self) -> Any:
        """The plug-in's object, made when it is needed first."""
        if self._made is None:
            self._made = _registered(self.options.name)()
        return self._made

    def _fields(self, simulator: Any, deployment: Deployment) -> tuple[Any, ...]:
        """The object's fields with the tuned values, which it has afterwards."""
        tuned = {**deployment.options, **deployment.env, **deployment.config}
        used: set[str] = set()
        fields = []
        for field in getattr(simulator, "data_field", None) or ():
            key = next((key for key in _keys(field) if key in tuned), None)
            given = copy.copy(field)
            if key is not None:
                given.value = tuned[key]
                used.add(key)
            fields.append(given)
        # Any variable may be set, but what it does not know it cannot write into anything.
        if unknown := sorted(tuned.keys() - used - deployment.env.keys()):
            known = ", ".join(str(field.name) for field in fields) or "none"
            said = f"has no field {', '.join(unknown)}; it has {known}"
            raise StageError("input", f"the plug-in {self.options.name} {said}")
        simulator.data_field = tuple(fields)
        return tuple(fields)


def _keys(field: Any) -> tuple[str, ...]:
    """What a tuned parameter may be called that a field stands for."""
    return (str(field.config_position), str(field.name), str(field.name).upper())


def _environment(simulator: Any) -> dict[str, str]:
    given = getattr(simulator, "env", None) or {}
    return {str(name): str(value) for name, value in given.items()}


def _points() -> Iterator[EntryPoint]:
    for group in _GROUPS:
        yield from entry_points(group=group)


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _registered(name: str) -> Any:
    """The class that a plug-in has registered under ``name``; those that are not needed are left
    alone. Raises ``StageError``."""
    faults = []
    for group, module in _GROUPS.items():
        points = sorted(entry_points(group=group), key=lambda point: point.name != name)
        for point in points:
            try:
                registry = importlib.import_module(module)
                if name not in registry.simulates:
                    point.load()()
            except Exception as error:
                faults.append(f"{point.value}: {type(error).__name__}: {error}")
                continue
            if name in registry.simulates:
                return registry.simulates[name]
    said = "; ".join(faults) or "those that are installed register other names"
    raise StageError(
        "input",
        f"no plug-in has registered a simulator {name!r}: {said}",
        "install the plug-in, and the optimizer it was written for, where trials run",
    )
