"""Standing high with experience: the practice follows from what the model consists of."""

from __future__ import annotations

from copy import deepcopy
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from searchers._candidates import FallbackOptions
from searchers._contract import Json
from searchers._expert_table import ANTI_OUTLIER, QCONFIGS, QuantType, Structure
from searchers._registry import register_strategy
from searchers._space import Space
from searchers._standing_high import StandingHigh, StandingHighOptions

Pattern = Annotated[str, Field(min_length=1)]


class StructureConfig(BaseModel):
    """A part of the model.

    Attributes:
        type: What kind of part it is; the expert table says how that is quantized.
        include: Patterns of the names of its linear layers.
        exclude: Patterns of those among them that stay in float.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
    type: Structure
    include: list[Pattern] = Field(min_length=1)
    exclude: list[Pattern] | None = None


class ExperienceOptions(FallbackOptions):
    """Options of ``standing_high_with_experience``.

    Attributes:
        quant_type: How the bulk of the weights and activations is to be quantized.
        structure_configs: The parts of the model. No two may name the same pattern.
        candidates: As in ``binary_fallback``.
        max_failures: As in ``standing_high``.
    """

    quant_type: QuantType = "w8a8"
    structure_configs: list[StructureConfig] = Field(min_length=1)

    @model_validator(mode="after")
    def _supported(self) -> ExperienceOptions:
        faults = [*self._unsupported(), *self._overlapping()]
        qconfigs = QCONFIGS[self.quant_type]
        if not faults and all(qconfigs[each.type] is None for each in self.structure_configs):
            faults.append(
                "structure_configs: all of them stay in bfloat16, so nothing would be quantized; "
                "add those that make up the rest of the model, such as FFN or MoE"
            )
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def _unsupported(self) -> list[str]:
        known = QCONFIGS[self.quant_type]
        return [
            f"structure_configs.{index}.type: {self.quant_type} is not supported for {each.type}, "
            f"only for {', '.join(known)}; leave it out or choose another quant_type"
            for index, each in enumerate(self.structure_configs)
            if each.type not in known
        ]

    def _overlapping(self) -> list[str]:
        places: dict[str, list[str]] = {}
        for index, each in enumerate(self.structure_configs):
            for pattern in each.include:
                places.setdefault(pattern, []).append(f"structure_configs.{index}.include")
        return [
            f"{' and '.join(found)}: {pattern!r} stands there more than once, "
            "but a layer can be quantized in one way only"
            for pattern, found in places.items()
            if len(found) > 1
        ]

    def linear_quants(self) -> list[dict[str, Json]]:
        """One processor for each structure that is quantized, in the order given.

        What stays in bfloat16 is excluded from all of them, for their patterns may be wider.
        """
        qconfigs = QCONFIGS[self.quant_type]
        floats = [each for each in self.structure_configs if qconfigs[each.type] is None]
        kept = [pattern for each in floats for pattern in each.include]
        return [
            {
                "type": "linear_quant",
                "qconfig": deepcopy(qconfigs[each.type]),
                "include": each.include,
                "exclude": [*(each.exclude or ()), *kept],
            }
            for each in self.structure_configs
            if qconfigs[each.type] is not None
        ]


@register_strategy("standing_high_with_experience", ExperienceOptions)
class StandingHighWithExperience(StandingHigh):
    """``standing_high`` over the outlier strategies that suit the quantization type.

    A candidate proposal has the parameters ``{"process": [processor, ...], "fallback": [layer,
    ...]}``: one outlier strategy, then a ``linear_quant`` for each structure that is quantized.
    """

    def __init__(
        self, options: ExperienceOptions, *, space: Space | None = None, seed: int = 0
    ) -> None:
        standing_high = StandingHighOptions(
            anti_outlier_strategies=deepcopy(ANTI_OUTLIER[options.quant_type]),
            candidates=options.candidates,
            max_failures=options.max_failures,
        )
        super().__init__(standing_high, space=space, seed=seed)
        self._linear_quants = options.linear_quants()

    def _parameters(self, strategy: int, fallback: list[str]) -> dict[str, Json]:
        processors = self._strategies[strategy]
        return {"process": [*processors, *self._linear_quants], "fallback": fallback}
