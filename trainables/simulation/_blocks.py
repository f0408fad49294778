"""The KV cache of one instance, in blocks.

Rules of vLLM V1 (``v1/core/block_pool.py``, ``kv_cache_manager.py``, 0.32): a block that nobody
uses stays findable by its content until it is taken again. Taken first are blocks whose content
cannot be found, those that were never full; then those that never had any; then the one that was
free the longest. A sequence gives its blocks back with its last one first, so that the beginnings
of prompts stay the longest.
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
        self._empty: list[int] = []
        self._free: OrderedDict[int, None] = OrderedDict()
        self._users = [0] * count
        self._keys: list[Hashable | None] = [None] * count
        self._found: dict[Hashable, dict[int, None]] = {}

    @property
    def free(self) -> int:
        """Blocks that nobody uses."""
        return len(self._free) + len(self._empty) + self.count - self._fresh

    @property
    def used(self) -> int:
        return self._fresh - len(self._free) - len(self._empty)

    def hit(self, keys: Iterable[Hashable]) -> list[int]:
        """The blocks of the longest beginning of ``keys`` that is in the cache."""
        blocks: list[int] = []
        if not self._caching:
            return blocks
        for key in keys:
            same = self._found.get(key)
            if same is None:
                break
            blocks.append(next(iter(same)))
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

    def take(self, count: int) -> list[int]:
        """So many blocks for new content; they have to be free."""
        blocks = [self._empty.pop() for _ in range(min(count, len(self._empty)))]
        fresh = min(count - len(blocks), self.count - self._fresh)
        blocks += range(self._fresh, self._fresh + fresh)
        self._fresh += fresh
        users, keys, oldest = self._users, self._keys, self._free.popitem
        for _ in range(count - len(blocks)):
            block = oldest(last=False)[0]
            if (key := keys[block]) is not None:
                self._forget(block, key)
            blocks.append(block)
        for block in blocks:
            users[block] = 1
        return blocks

    def name(self, block: int, key: Hashable) -> None:
        """Make a full block findable; of several with the same content, the first that is left is
        the one found."""
        if self._caching:
            self._found.setdefault(key, {})[block] = None
            self._keys[block] = key

    def give_back(self, blocks: Sequence[int], full: int) -> None:
        """End one sequence's use of its blocks, in the order of its tokens; the first ``full`` of
        them are full of tokens that are known."""
        users, kept = self._users, full if self._caching else 0
        for place in range(len(blocks) - 1, -1, -1):
            block = blocks[place]
            users[block] -= 1
            if users[block]:
                continue
            if place < kept:
                self._free[block] = None
            else:
                self._empty.append(block)

    def _forget(self, block: int, key: Hashable) -> None:
        same = self._found[key]
        del same[block]
        if not same:
            del self._found[key]
        self._keys[block] = None
