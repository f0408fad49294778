"""From the parameters of a proposal to the practice that a quantization trial carries out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import yaml

from trainables._quantization_options import QuantizationOptions, QuantizationSearch
from trainables._trial import Json
from trainables.quantization import (
    LinearQuant,
    Practice,
    PracticeError,
    check_rollback_path,
    default_rollback_path,
    parse_practice,
    practice_from_scheme,
    processes,
    with_added_fallback,
    with_fallback,
)

PARAMETERS = frozenset({"fallback", "scheme", "smoothquant", "anti_outlier", "process"})


class Practices:
    """The practices of one experiment.

    A proposal may choose the shorthand (``scheme``, ``smoothquant``), put processors in front of
    the practice's own (``anti_outlier``), or replace them (``process``). ``fallback`` layers join
    what every ``linear_quant`` leaves out where processors are proposed; otherwise they are the
    whole content of the list at ``search.rollback_path``.
    """

    def __init__(self, options: QuantizationOptions, search: QuantizationSearch) -> None:
        self._options = options
        self._search = search

    def of(self, parameters: Mapping[str, Json]) -> Practice:
        """The practice that a proposal stands for.

        Raises:
            PracticeError: The parameters and the experiment's practice do not fit together.
        """
        practice = self._shorthand(parameters) if self._chooses(parameters) else self.base
        fallback = parameters.get("fallback") or []
        if not parameters.keys() & {"anti_outlier", "process"}:
            path = self._rollback_path(practice)
            return with_fallback(practice, path, fallback) if fallback else practice
        document = practice.document()
        process = parameters.get("process", document["spec"]["process"])
        document["spec"]["process"] = [*parameters.get("anti_outlier", ()), *process]
        return with_added_fallback(parse_practice(document), fallback)

    @cached_property
    def base(self) -> Practice:
        """The experiment's own practice, before any proposal.

        Raises:
            OSError, yaml.YAMLError: Its file cannot be read.
            PracticeError: It is not valid.
        """
        given = self._options.practice
        if given.template is not None:
            return parse_practice(given.template)
        if given.file is not None:
            return parse_practice(yaml.safe_load(Path(given.file).read_text(encoding="utf-8")))
        return self._shorthand({})

    @property
    def rollback_path(self) -> str | None:
        """Where fallback layers go; None while the practice has no processor that takes any."""
        given = self._search.rollback_path
        return self._rollback_path(self.base) if given or _quantizes(self.base) else None

    def check(self) -> None:
        """Raises as :attr:`base`, and ``PracticeError`` for a rollback path that leads nowhere."""
        if self.rollback_path is not None:
            check_rollback_path(self.base, self.rollback_path)

    def _rollback_path(self, practice: Practice) -> str:
        given = self._search.rollback_path
        return default_rollback_path(practice) if given is None else given

    def _chooses(self, parameters: Mapping[str, Json]) -> bool:
        return not parameters.keys().isdisjoint({"scheme", "smoothquant"})

    def _shorthand(self, parameters: Mapping[str, Json]) -> Practice:
        given = self._options.practice
        scheme = parameters.get("scheme", given.scheme)
        if scheme is None:
            raise PracticeError("smoothquant goes with a scheme; the practice is a template")
        return practice_from_scheme(
            scheme,
            parameters.get("smoothquant", given.smoothquant),
            dataset=self._options.calibration.dataset,
        )


def _quantizes(practice: Practice) -> bool:
    return any(isinstance(process, LinearQuant) for _, process in processes(practice))
