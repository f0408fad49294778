"""What msModelSlim will make of a model under a practice, known without loading either."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainables.quantization._calibration import BUILTIN, Calibration, shuffled_texts
from trainables.quantization._compressed import FORMAT as COMPRESSED
from trainables.quantization._patterns import engine_patterns, matches
from trainables.quantization._practice import LinearQConfig, LinearQuant, Practice, processes
from trainables.quantization._scheme import LinearScheme, TensorScheme

ASCEND = "ascendv1_saver"
SAVERS = (ASCEND, COMPRESSED)
DEFAULT_DATASET = "mix_calib.jsonl"
_CHARACTERS_PER_TOKEN = 4
_UNSAFE = re.compile(r"[^_A-Za-z0-9/.-]")
_BLOCK = re.compile(r"(.*?(?:^|\.))(\d+)\.")
_HEADS = ("lm_head", "output", "embed_out", "output_layer")
_NEVER = re.compile(r".*(?:gate|router|head|norm|embed[^.]*|embeddings?)$")
"""Last parts of names in decoder blocks that may stay in float although a practice covers them:
routers, norms and tables are linear layers for some models and none for others."""


def saver_problems(practice: Practice) -> list[str]:
    """Why the weights would not be written, or not be what the practice says."""
    savers = [saver.type for saver in practice.spec.save]
    if not savers:
        return [
            "spec.save: without a saver msModelSlim quantizes, writes nothing and reports success; "
            f"add {{type: {ASCEND}}} or {{type: {COMPRESSED}}}"
        ]
    found = [
        f"spec.save.{index}.type: {name} cannot be verified here, only {', '.join(SAVERS)}"
        for index, name in enumerate(savers)
        if name not in SAVERS
    ]
    if len(savers) > 1:
        found.append("spec.save: engines find one form of the weights in a folder; name one saver")
    if COMPRESSED in savers:
        found += [
            f"{path}.qconfig: {COMPRESSED} takes INT8 weights per channel (symmetric) with INT8 "
            f"activations per tensor or per token (symmetric); use {ASCEND} for anything else"
            for path, process in processes(practice)
            if isinstance(process, LinearQuant) and compressed_scheme(process.qconfig) is None
        ]
    return found


def compressed_scheme(qconfig: LinearQConfig) -> LinearScheme | None:
    """What the saver for compressed-tensors writes of a layer; None for what it cannot write.

    How ranges were found (``method``) is no part of it.
    """
    weight, act = qconfig.weight, qconfig.act
    if act is None or (weight.dtype, weight.scope, weight.symmetric) != (
        "int8",
        "per_channel",
        True,
    ):
        return None
    dynamic = act.scope == "per_token"
    if act.dtype != "int8" or not (act.scope == "per_tensor" or (dynamic and act.symmetric)):
        return None
    activation = TensorScheme(8, "token" if dynamic else "tensor", act.symmetric, dynamic)
    return LinearScheme(TensorScheme(8, "channel", symmetric=True), activation)


def path_problems(paths: Mapping[str, Path]) -> list[str]:
    """Paths, by what they are, that msModelSlim refuses."""
    found = []
    for what, path in paths.items():
        if bad := sorted(set(_UNSAFE.findall(str(path.resolve())))):
            found.append(
                f"{what} {path}: msModelSlim takes letters, digits, and _ - . / in paths, "
                f"no {' '.join(map(repr, bad))}"
            )
    return found


def engine_practice(practice: Practice, dataset: str) -> Practice:
    """The practice as msModelSlim has to read it: its matcher needs ``x`` beside ``x.*``."""
    document = practice.document()
    document["spec"]["dataset"] = dataset
    for path, process in processes(practice):
        if isinstance(process, LinearQuant):
            target: Any = document
            for step in path.split("."):
                target = target[int(step) if step.isdigit() else step]
            target["include"] = engine_patterns(process.include)
            target["exclude"] = engine_patterns(process.exclude)
    return Practice.model_validate(document)


def owns_dataset(practice: Practice, calibration: Calibration) -> bool:
    """Whether the practice names calibration data itself, so that the trial's do not count.

    A practice made from a scheme does not: it repeats the trial's dataset. Neither does one that
    leaves msModelSlim's default in place while the trial names a dataset of the user's.
    """
    named = practice.spec.dataset
    if named == DEFAULT_DATASET:
        return calibration.dataset in (BUILTIN, named)
    return not named.startswith("builtin:") and named != calibration.dataset


def calibration_lines(calibration: Calibration) -> str:
    """The trial's calibration data in the form msModelSlim reads: one JSON object a line.

    The shuffled texts end to end, cut into ``samples`` pieces, fewer when the texts do not
    suffice. msModelSlim cuts nothing, so ``length`` is counted here, at four characters a token.

    Raises:
        CalibrationError: The data cannot be read.
    """
    stream = "\n\n".join(shuffled_texts(calibration))
    size = min(len(stream), calibration.length * _CHARACTERS_PER_TOKEN)
    count = min(calibration.samples, len(stream) // size)
    pieces = (stream[index * size : (index + 1) * size] for index in range(count))
    return "".join(
        json.dumps({"inputs_pretokenized": piece}, ensure_ascii=False) + "\n" for piece in pieces
    )


@dataclass(frozen=True)
class LinearNames:
    """The linear layers of a float checkpoint, by the names and shapes of its tensors.

    Attributes:
        layers: All but the output head, in the order of the model.
        head: Name of the output head.
        blocks: Decoder blocks of the model; None when the configuration does not say.
    """

    layers: tuple[str, ...]
    head: str
    blocks: int | None

    @classmethod
    def of(cls, tensors: Mapping[str, Mapping[str, Any]], blocks: int | None) -> LinearNames:
        """From the headers of the weight files; files of other forms than safetensors have none."""
        names = [
            name.removesuffix(".weight")
            for name, tensor in tensors.items()
            if name.endswith(".weight") and len(tensor["shape"]) == 2
        ]
        linear = [name for name in names if "embed" not in name.rpartition(".")[2]]
        heads = [n for n in linear if _BLOCK.match(n) is None and n.rpartition(".")[2] in _HEADS]
        head = heads[0] if heads else "lm_head"
        layers = sorted((name for name in linear if name != head), key=_natural)
        return cls(tuple(layers), head, blocks)

    def is_spare(self, name: str) -> bool:
        """Whether a tensor belongs to a block behind the last one (multi-token prediction), which
        msModelSlim may leave out, or is computed by engines themselves."""
        found = _BLOCK.match(name)
        beyond = found is not None and self.blocks is not None and int(found[2]) >= self.blocks
        return beyond or name.endswith("inv_freq")

    def must_be_quantized(self, covered: Iterable[str], quantized: Iterable[str]) -> set[str]:
        """Those of the ``covered`` layers that may not be in float.

        All in stacks of blocks (``model.layers``) of which anything was ``quantized``: other
        stacks, such as a vision tower's, are not msModelSlim's to quantize.
        """
        covered = list(covered)
        stacks = {_stack(name) for name in list(quantized) or covered} - {None}
        return {
            name
            for name in covered
            if _stack(name) in stacks and not self.is_spare(name) and not _NEVER.fullmatch(name)
        }


def covered_by(practice: Practice, layers: Iterable[str]) -> dict[str, LinearQuant | None]:
    """The first ``linear_quant`` that takes each layer, or None."""
    targets = [process for _, process in processes(practice) if isinstance(process, LinearQuant)]
    return {
        layer: next(
            (
                target
                for target in targets
                if matches(layer, target.include) and not matches(layer, target.exclude)
            ),
            None,
        )
        for layer in layers
    }


def _stack(name: str) -> str | None:
    found = _BLOCK.match(name)
    return found[1] if found else None


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
