"""What MindIE's manifest says: its pods, their environment, mounts and devices, its port. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, TypeAlias

import yaml

Json: TypeAlias = Any

_DEVICE = "huawei.com/"


@dataclass(frozen=True)
class Manifest:
    """What of the manifest is needed here.

    Attributes:
        documents: The YAML documents.
        node_ports: Ports at which a node answers for the pods.
        labels: Labels of the pods, one mapping for each template.
        namespaces: Those that its documents name.
        variables: Environment of the containers, as far as it is written as text.
        mounts: Folders of the node by the path where containers see them.
        devices: NPUs that all its containers ask for.
    """

    documents: Sequence[Json]
    node_ports: tuple[int, ...] = ()
    labels: tuple[Mapping[str, str], ...] = ()
    namespaces: frozenset[str] = frozenset()
    variables: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, str] = field(default_factory=dict)
    devices: int = 0

    def has(self, labels: Mapping[str, str]) -> bool:
        """Whether a pod with these labels is one of its own."""
        return any(wanted.items() <= labels.items() for wanted in self.labels)

    def on_node(self, path: str) -> str | None:
        """The node's own path of one that containers see; None where it is no folder of a node."""
        inside = PurePosixPath(path)
        for mount in sorted(self.mounts, key=len, reverse=True):
            if inside.is_relative_to(mount):
                return str(PurePosixPath(self.mounts[mount], inside.relative_to(mount)))
        return None


def read_manifest(text: str) -> Manifest:
    """The manifest of ``text``. Raises ``ValueError`` saying what is wrong with it."""
    try:
        documents = [one for one in yaml.safe_load_all(text) if one is not None]
    except yaml.YAMLError as error:
        raise ValueError(f"is no YAML: {' '.join(str(error).split())}") from None
    objects = [one for one in documents if isinstance(one, dict)]
    templates = [found for one in objects for found in _templates(one)]
    labels = [_mapping(_mapping(template, "metadata"), "labels") for template in templates]
    specs = [_mapping(template, "spec") for template in templates]
    if not any(labels):
        raise ValueError("has no template of pods with labels, so nobody can tell its pods")
    return Manifest(
        documents,
        tuple(_node_ports(objects)),
        tuple({str(k): str(v) for k, v in each.items()} for each in labels if each),
        frozenset(_namespaces(objects)),
        {name: value for spec in specs for name, value in _variables(spec)},
        {inside: outside for spec in specs for inside, outside in _mounts(spec)},
        sum(_devices(container) for spec in specs for container in _containers(spec)),
    )


def _templates(node: Json) -> Iterator[dict[str, Json]]:
    """Templates of pods, at whatever depth a workload has them."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    if isinstance(node, dict) and isinstance(template := node.get("template"), dict):
        yield template
        children = [child for child in children if child is not template]
    for child in children:
        yield from _templates(child)


def _node_ports(objects: Sequence[dict[str, Json]]) -> Iterator[int]:
    for one in objects:
        for port in _listed(_mapping(one, "spec"), "ports"):
            if isinstance(number := port.get("nodePort"), int):
                yield number


def _namespaces(objects: Sequence[dict[str, Json]]) -> Iterator[str]:
    for one in objects:
        if isinstance(name := _mapping(one, "metadata").get("namespace"), str):
            yield name


def _containers(spec: Mapping[str, Json]) -> list[dict[str, Json]]:
    return _listed(spec, "containers")


def _variables(spec: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    for container in _containers(spec):
        for entry in _listed(container, "env"):
            if entry.get("value") is not None:
                yield str(entry.get("name")), str(entry["value"])


def _mounts(spec: Mapping[str, Json]) -> Iterator[tuple[str, str]]:
    paths = {
        volume.get("name"): _mapping(volume, "hostPath").get("path")
        for volume in _listed(spec, "volumes")
    }
    for container in _containers(spec):
        for mount in _listed(container, "volumeMounts"):
            path, inside = paths.get(mount.get("name")), mount.get("mountPath")
            if isinstance(path, str) and isinstance(inside, str):
                yield inside, str(PurePosixPath(path, str(mount.get("subPath", ""))))


def _devices(container: Mapping[str, Json]) -> int:
    resources = _mapping(container, "resources")
    asked = {**_mapping(resources, "requests"), **_mapping(resources, "limits")}
    counts = [str(count) for name, count in asked.items() if str(name).startswith(_DEVICE)]
    return sum(int(count) for count in counts if count.isdecimal())


def _mapping(holder: Mapping[str, Json], key: str) -> dict[str, Json]:
    found = holder.get(key)
    return found if isinstance(found, dict) else {}


def _listed(holder: Mapping[str, Json], key: str) -> list[dict[str, Json]]:
    found = holder.get(key)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
