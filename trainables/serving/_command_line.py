"""What an engine's command line says. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from trainables._sizes import size
from trainables._trial import Json


class CommandLine:
    """Options and their values, by name with dashes; of an option given twice the last counts.

    Args:
        argv: The command line.
        short: Names of short options.
    """

    def __init__(self, argv: Sequence[str], short: Mapping[str, str]) -> None:
        self._values: dict[str, list[str]] = {}
        self._places: dict[str, int] = {}
        name = ""
        for place, word in enumerate(argv):
            given, equals, value = word.partition("=")
            stem, dot, rest = given.partition(".")
            if word.startswith("--") or stem in short:
                name = f"{short.get(stem, stem.lstrip('-'))}{dot}{rest}".replace("_", "-")
                self._values[name] = [value] if equals else []
                self._places[name] = place
            elif name:
                self._values[name].append(word)

    @property
    def names(self) -> Sequence[str]:
        """All options there are, in the order in which they were first given."""
        return tuple(self._values)

    def text(self, name: str) -> str | None:
        """Its first value; None where it is not given or has none."""
        return next(iter(self._values.get(name, [])), None)

    def number(self, name: str) -> int | None:
        """Its value, such as ``16k``. Raises ``ValueError`` for what is no number."""
        text = self.text(name)
        return None if text is None else size(text)

    def share(self, name: str, default: float) -> float:
        """Its value as a fraction. Raises ``ValueError``."""
        text = self.text(name)
        return default if text is None else float(text)

    def switch(self, name: str) -> bool | None:
        """Whether ``--name`` or ``--no-name`` was said last; None: neither."""
        yes, no = self._places.get(name, -1), self._places.get(f"no-{name}", -1)
        if yes == no:
            return None
        text = self.text(name)
        return yes > no and (text is None or text.lower() not in ("false", "0"))

    def numbers(self, name: str) -> tuple[int, ...]:
        """Its values, as several words, with commas, or as a JSON list. Raises ``ValueError``."""
        words = " ".join(self._values.get(name, [])).strip("[]").replace(",", " ").split()
        return tuple(int(word) for word in words)

    def mapping(self, name: str) -> dict[str, Json]:
        """Its value as a JSON object, with what ``--name.key value`` adds. Raises
        ``ValueError``."""
        text = self.text(name)
        document = json.loads(text) if text and text.startswith("{") else {}
        prefix = f"{name}."
        for other in self._values:
            if other.startswith(prefix):
                value = self.text(other) or "true"
                key = other.removeprefix(prefix).replace("-", "_")
                try:
                    document[key] = json.loads(value)
                except ValueError:
                    document[key] = value
        return document
