"""The KV cache of one instance, in blocks.

Rules of vLLM V1 (``v1/core/block_pool.py``, ``kv_cache_manager.py``): a block that nobody uses
stays findable by its content until it is taken again; the one that was free the longest is taken
first; a sequence gives its blocks back with its last one first, so that the beginnings of prompts
stay the longest.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence


class BlockPool:
    """Blocks, each used by any number of sequences or free.

    Args:
        count: Blocks there are.
        caching: Whether blocks are found again by their content.
    """

    def __init__(self, count: int, *, caching: bool) -> None:
        self.count = count
        self._caching = caching
        self._fresh = 0
        self._free: OrderedDict[int, None] = OrderedDict()
        self._users = [0] * count
        self._keys: list[Hashable | None] = [None] * count
        self._found: dict[Hashable, int] = {}

    @property
    def free(self) -> int:
        """Blocks that nobody uses."""
        return len(self._free) + self.count - self._fresh

    @property
    def used(self) -> int:
        return self._fresh - len(self._free)

    def hit(self, keys: Iterable[Hashable]) -> list[int]:
        """The blocks of the longest beginning of ``keys`` that is in the cache."""
        blocks: list[int] = []
        if not self._caching:
            return blocks
        for key in keys:
            block = self._found.get(key)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def unused(self, blocks: Sequence[int]) -> int:
        """How many of these blocks are free, which using them changes."""
        return sum(1 for block in blocks if not self._users[block])

    def share(self, blocks: Iterable[int]) -> None:
        """Use blocks that were found by their content."""
        for block in blocks:
            if not self._users[block]:
                del self._free[block]
            self._users[block] += 1

    def take(self) -> int:
        """A block for new content; there has to be a free one."""
        if self._fresh < self.count:
            block = self._fresh
            self._fresh += 1
        else:
            block, _ = self._free.popitem(last=False)
            key = self._keys[block]
            if key is not None:
                del self._found[key]
                self._keys[block] = None
        self._users[block] = 1
        return block

    def name(self, block: int, key: Hashable) -> None:
        """Make a full block findable; the first one with the same content stays the one found."""
        if self._caching and key not in self._found:
            self._found[key] = block
            self._keys[block] = key

    def give_back(self, blocks: Sequence[int]) -> None:
        """End one sequence's use of its blocks, in the order of its tokens."""
        for block in reversed(blocks):
            self._users[block] -= 1
            if not self._users[block]:
                self._free[block] = None
