"""The guides as their readers use them: blocks of commands, and what is promised about each.

A comment in front of a block says what the tests do with it::

    <!-- commands: run -->                     executed, in a folder of its own
    <!-- commands: not run: needs an NPU -->   only read
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"(?:<!-- commands: (?P<mark>.+?) -->\n)?```bash\n(?P<text>.*?)```", re.DOTALL)
_LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)(?:#[^)]*)?\)")


@dataclass(frozen=True)
class Block:
    """Commands of a guide.

    Attributes:
        place: ``docs/x.md:12``.
        mark: ``run`` or ``not run: REASON``; empty where the guide says nothing.
        text: As printed.
    """

    place: str
    mark: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """Words of each line, lines that go on joined, comments gone."""
        lines = self.text.replace("\\\n", " ").splitlines()
        found = [shlex.split(line, comments=True) for line in lines]
        return [words for words in found if words]

    @property
    def tuner_calls(self) -> list[list[str]]:
        """What follows ``python -m tuner`` in each command, to the end of the simple command."""
        calls = []
        for words in self.commands:
            for index in range(len(words) - 2):
                if words[index : index + 3] == ["python", "-m", "tuner"]:
                    calls.append(_simple(words[index + 3 :]))
        return calls


def _simple(words: list[str]) -> list[str]:
    ends = [index for index, word in enumerate(words) if word in ("|", ">", "&&", ";", "&", "2>&1")]
    return words[: ends[0]] if ends else words


def guides() -> list[Path]:
    """All of them, Chinese ones included."""
    return [*sorted(ROOT.glob("README*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def blocks(guide: Path) -> list[Block]:
    """Its blocks of commands."""
    text = guide.read_text(encoding="utf-8")
    name = guide.relative_to(ROOT)
    return [
        Block(
            f"{name}:{text.count(chr(10), 0, match.start('text'))}",
            match["mark"] or "",
            match["text"],
        )
        for match in _BLOCK.finditer(text)
    ]


def links(guide: Path) -> list[str]:
    """Files it refers to, relative to itself."""
    return _LINK.findall(guide.read_text(encoding="utf-8"))
