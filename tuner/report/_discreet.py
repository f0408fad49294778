"""Keeping secrets out of what is shown."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

_MASK = "***"
_KEY = re.compile(
    r"(?:^|[._-])(?:auth|authorization|cookie|credential|passw(?:or)?d|pwd|secret|token|webhook"
    r"|(?:api|access|private|secret)[._-]?key)s?$",
    re.IGNORECASE,
)
_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-[^}]*)?\}")
_IN_TEXT = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?P<before>://[^/\s:@]*:)[^/\s@]+(?=@)",
        r"(?P<before>\bbearer\s+)[A-Za-z0-9._~+/=-]{6,}",
        r"(?P<before>)\b(?-i:hf_[A-Za-z0-9]{8,}|(?:sk-|ghp_|xox[abp]-|AKIA)[A-Za-z0-9_-]{8,})",
        r"(?P<before>\b[\w-]*(?:api[_-]?key|access[_-]?key|secret|passwd|password|auth[_-]?token|"
        r"_token)[\"']?\s*[=:]\s*[\"']?)(?!\*\*\*)[^\s\"',;&]+",
    )
)
_SHORTEST = 6


class Discretion:
    """Masks secrets in what a run has left behind.

    Of the experiment ``document``, values whose key says that they are secret are masked, and
    wherever they come up in other texts, so are they, and so are the present values of the
    environment variables that such keys refer to. In any text, what looks like a token or a
    password is masked too. References to the environment stay readable.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._known: set[str] = set()
        self._learn(document, secret=False)
        self._known = {text for text in self._known if len(text) >= _SHORTEST}

    def __call__(self, value: Any, key: str = "") -> Any:
        """The same value, texts in it masked; ``key`` is the name it stands under."""
        if isinstance(value, Mapping):
            return {self.text(str(name)): self(item, str(name)) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return [self(item, key) for item in value]
        if not isinstance(value, str):
            return value
        if _KEY.search(key) and not _REFERENCE.fullmatch(value):
            return _MASK
        return self.text(value)

    def text(self, text: str) -> str:
        """``text`` without secrets."""
        for secret in sorted(self._known, key=len, reverse=True):
            text = text.replace(secret, _MASK)
        for pattern in _IN_TEXT:
            text = pattern.sub(lambda match: match["before"] + _MASK, text)
        return text

    def _learn(self, value: Any, *, secret: bool) -> None:
        if isinstance(value, Mapping):
            for key, item in value.items():
                self._learn(item, secret=secret or key == "notify" or bool(_KEY.search(str(key))))
        elif isinstance(value, list | tuple):
            for item in value:
                self._learn(item, secret=secret)
        elif isinstance(value, str) and secret:
            names = _REFERENCE.findall(value)
            self._known.update(os.environ[name] for name in names if os.environ.get(name))
            if not names and not value.isalpha():
                self._known.add(value)
