"""Scores of groups of layers on a loaded model. Larger is more sensitive."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trainables._program import StageError
from trainables.analysis._distribution import Distribution
from trainables.analysis._groups import fused_groups
from trainables.analysis._ranking import Scored
from trainables.quantization import LinearScheme
from trainables.quantization._fake import (
    Parameters,
    RangeObserver,
    fake_linear,
    weight_parameters,
)

_BACKWARD_TOKENS = 512
"""Tokens of one backward pass; the errors of all layers for so many tokens are in memory."""

Group = tuple[str, ...]


@dataclass(frozen=True)
class Subject:
    """What is analyzed.

    Attributes:
        model: A float causal model in evaluation mode whose parameters need no gradients.
        schemes: Every candidate layer and the scheme it would get.
        groups: The candidates, in groups that share a score.
        batches: Calibration tokens, each (sequences, length).
    """

    model: Any
    schemes: Mapping[str, LinearScheme]
    groups: Sequence[Group]
    batches: Sequence[Tensor]

    def layer(self, name: str) -> Any:
        return self.model.get_submodule(name)

    def run(self, **hooks: Callable[[str], Callable[..., None]]) -> None:
        """Show the model all batches. ``pre=make`` and ``post=make`` put ``make(name)`` as hook
        before or behind every candidate."""
        with hooked(self, **hooks), torch.inference_mode():
            for ids in self.batches:
                self.model(input_ids=ids, use_cache=False, logits_to_keep=1)


@contextmanager
def hooked(subject: Subject, **hooks: Callable[[str], Callable[..., None]]) -> Any:
    """Hooks on every candidate layer, for as long as the block runs."""
    with ExitStack() as stack:
        for kind, make in hooks.items():
            for name in subject.schemes:
                layer = subject.layer(name)
                register = {
                    "pre": layer.register_forward_pre_hook,
                    "post": layer.register_forward_hook,
                }[kind]
                stack.callback(register(make(name)).remove)
        yield


def distribution_scores(subject: Subject, metric: str, on: str) -> list[Scored]:
    """Groups by how outliers stretch their inputs, or their weights (rows are channels).

    Layers that are fused mostly have the same input, which then counts once. Of several inputs,
    and of weights, the worst decides.
    """
    if on == "weights":
        found = [
            [_weight_scores(subject.layer(name)) for name in group] for group in subject.groups
        ]
    else:
        parts = [fused_groups(group) for group in subject.groups]
        scores = _activation_scores(subject, [part for own in parts for part in own])
        found = [[scores[part] for part in own] for own in parts]
    chosen = [max(each, key=lambda scores: scores[metric]) for each in found]
    return [
        Scored(group, scores[metric], scores)
        for group, scores in zip(subject.groups, chosen, strict=True)
    ]


def _weight_scores(layer: Any) -> dict[str, float]:
    distribution = Distribution()
    distribution.update(layer.weight.T)
    return distribution.scores()


def _activation_scores(subject: Subject, parts: Sequence[Group]) -> dict[Group, dict[str, float]]:
    found = [Distribution() for _ in parts]
    owner = {name: index for index, part in enumerate(parts) for name in part}
    seen: tuple[int, Tensor] | None = None

    def watch(name: str) -> Callable[..., None]:
        index = owner[name]

        def hook(_layer: Any, inputs: tuple[Tensor, ...]) -> None:
            nonlocal seen
            if seen is None or seen[0] != index or seen[1] is not inputs[0]:
                found[index].update(inputs[0])
            seen = index, inputs[0]

        return hook

    subject.run(pre=watch)
    return {part: each.scores() for part, each in zip(parts, found, strict=True)}


@dataclass
class OutputError:
    """Sums over all output values of a module, in float64."""

    squares: float = 0.0
    outputs: float = 0.0
    values: int = 0

    def add(self, error: Tensor, output: Tensor) -> None:
        self.squares += float(error.double().square().sum())
        self.outputs += float(output.double().square().sum())
        self.values += output.numel()


def mse_scores(subject: Subject) -> list[Scored]:
    """Groups by the mean squared error of their outputs, from the same inputs as in float.

    The detail ``relative`` is the squared error by the squared output.
    """
    errors = {name: OutputError() for name in subject.schemes}
    fake = FakeLayers(subject)

    def watch(name: str) -> Callable[..., None]:
        def hook(_layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            errors[name].add(fake.error(name, inputs[0], output), output)

        return hook

    subject.run(post=watch)
    return [mean_error(group, [errors[name] for name in group]) for group in subject.groups]


def mean_error(group: Group, errors: Sequence[OutputError]) -> Scored:
    """A group by the mean of all its squared errors."""
    squares = sum(error.squares for error in errors)
    outputs = sum(error.outputs for error in errors)
    mean = squares / max(1, sum(error.values for error in errors))
    return Scored(group, mean, {"relative": squares / outputs if outputs else 0.0})


class FakeLayers:
    """Outputs of the candidates under their schemes, with ranges from the calibration tokens."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._weights = {
            name: weight_parameters(subject.layer(name).weight, scheme.weight)
            for name, scheme in subject.schemes.items()
        }
        self._ranges = _static_ranges(subject)

    def error(self, name: str, inputs: Tensor, output: Tensor) -> Tensor:
        """Quantized output minus ``output``, the float one, of a layer."""
        layer = self._subject.layer(name)
        quantized = fake_linear(
            inputs,
            layer.weight,
            layer.bias,
            self._subject.schemes[name],
            weight_qparams=self._weights[name],
            activation_qparams=self._ranges.get(name),
        )
        return quantized - output


def _static_ranges(subject: Subject) -> dict[str, Parameters]:
    """Scale and zero point of every static activation, as the quantizer would take them."""
    static = {
        name: scheme.activation
        for name, scheme in subject.schemes.items()
        if scheme.activation is not None and not scheme.activation.dynamic
    }
    if not static:
        return {}
    observers = {name: RangeObserver() for name in subject.schemes}

    def watch(name: str) -> Callable[..., None]:
        return lambda _layer, inputs: observers[name].update(inputs[0])

    subject.run(pre=watch)
    try:
        return {name: observers[name].parameters(scheme) for name, scheme in static.items()}
    except ValueError as error:
        message = "a layer was never reached by the calibration data"
        raise StageError("input", f"{message}: {error}", "use more calibration samples") from error


@dataclass
class _Projections:
    """Per layer, the inner product of output error and loss gradient at each token."""

    found: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, name: str, error: Tensor, gradient: Tensor) -> None:
        product = (error.double() * gradient.double()).sum(-1).flatten()
        self.found.setdefault(name, []).append(product)

    def square(self, group: Iterable[str]) -> float:
        """Sum over tokens of the squared sum over the group's layers; layers that saw different
        tokens, as experts do, add their squares."""
        own = [torch.cat(self.found[name]) for name in group if name in self.found]
        if len({each.shape for each in own}) > 1:
            return sum(float(each.square().sum()) for each in own)
        return float(torch.stack(own).sum(0).square().sum()) if own else 0.0


def fisher_scores(subject: Subject, seed: int) -> list[Scored]:
    """Groups by the estimated divergence of the model's predictions, in nats per token.

    To second order, an error ``d`` of a layer's output changes the next-token distributions by a
    Kullback-Leibler divergence of ``d' F d / 2``, with ``F = E[g g']`` the Fisher information of
    that output: ``g`` is the gradient of the loss at it for a label drawn from the model's own
    distribution (Amari, Natural Gradient Works Efficiently in Learning, 1998; Kunstner, Balles and
    Hennig, arXiv:1905.12558, on why the label must be drawn). So one backward pass gives all groups
    at once. Errors at different tokens are taken as independent, those within a group at one token
    together.
    """
    fake = FakeLayers(subject)
    generator = torch.Generator().manual_seed(seed)
    totals = dict.fromkeys(subject.groups, 0.0)
    tokens = 0
    for ids in _small_batches(subject.batches):
        projections = _backward(subject, fake, ids, generator)
        for group in subject.groups:
            totals[group] += projections.square(group)
        tokens += ids.numel()
    return [Scored(group, total / 2 / tokens) for group, total in totals.items()]


def _small_batches(batches: Iterable[Tensor]) -> Iterable[Tensor]:
    for ids in batches:
        yield from ids.split(max(1, _BACKWARD_TOKENS // ids.shape[1]))


def _backward(
    subject: Subject, fake: FakeLayers, ids: Tensor, generator: torch.Generator
) -> _Projections:
    """One forward and backward pass, with labels drawn from the predicted distributions."""
    projections = _Projections()

    def watch(name: str) -> Callable[..., None]:
        def hook(_layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            with torch.no_grad():
                error = fake.error(name, inputs[0], output)
            output.register_hook(lambda gradient: projections.add(name, error, gradient))

        return hook

    def begin(_layer: Any, _inputs: Any, output: Tensor) -> Tensor:
        return output.detach().requires_grad_()

    embedding = subject.model.get_input_embeddings().register_forward_hook(begin)
    try:
        with hooked(subject, post=watch), torch.enable_grad():
            logits = subject.model(input_ids=ids, use_cache=False).logits.flatten(0, 1).float()
            with torch.no_grad():
                chances = torch.softmax(logits, -1).cpu()
                labels = torch.multinomial(chances, 1, generator=generator).flatten()
            torch.nn.functional.cross_entropy(
                logits, labels.to(logits.device), reduction="sum"
            ).backward()
    finally:
        embedding.remove()
    return projections
