"""The profiler's first tables: a line for each request of each batch, with the batch's own times.

Columns: batch_type, batch_size, forward_time, batch_end_time(ms), request_recv_token_size,
request_reply_token_size, need_blocks, request_execution_time(ms), first_token_latency(ms).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

from trainables.latency._records import IterationRecord
from trainables.latency.imports._members import Content, as_rid
from trainables.latency.imports._notes import MalformedError, Notes
from trainables.latency.imports._pairing import record
from trainables.latency.imports._tables import Row, as_count, read_table
from trainables.simulation import Chunk

COLUMNS = frozenset({"batch_type", "forward_time", "end_time", "recv_token_size"})
_REQUEST = ("recv_token_size", "reply_token_size", "execution_time", "first_token_latency")


def read_joined(path: Path, notes: Notes) -> tuple[list[IterationRecord], tuple[int, ...]]:
    """Iterations of a table, and the tokens of each request's answer.

    Lines with the same end and duration are one batch. A request is known by its identifier, or
    by its own columns, which are equal in all of its lines; how often it was there before is
    its iteration.
    """
    batches: dict[tuple[float, float], list[Row]] = defaultdict(list)
    replies: dict[tuple[str, ...], int] = {}
    for row in read_table(path, notes, COLUMNS):
        try:
            as_count(row.text("recv_token_size"), "column recv_token_size")
            batches[row.seconds("end_time"), row.seconds("forward_time")].append(row)
            if row.has("reply_token_size"):
                reply = as_count(row.text("reply_token_size"), "column reply_token_size")
                replies.setdefault(_request(row), reply)
        except MalformedError as error:
            notes.malformed(path, row.line, error)
    records: list[IterationRecord] = []
    seen: Counter[tuple[str, ...]] = Counter()
    for (end, seconds), rows in sorted(batches.items()):
        content = _content(rows, seen)
        if _complete(rows):
            records += record(content, seconds, end - seconds, notes)
        else:
            notes.drop("a batch of which not all requests were recorded")
    return records, tuple(replies.values())


def _content(rows: list[Row], seen: Counter[tuple[str, ...]]) -> Content:
    prefills, decodes = [], []
    for row in rows:
        prompt, request = int(row.number("recv_token_size")), _request(row)
        if row.cells["batch_type"].lower().startswith("prefill"):
            prefills.append(Chunk(prompt))
            seen[request] = 0
        else:
            decodes.append(prompt + seen[request])
            seen[request] += 1
    return Content(tuple(prefills), tuple(decodes))


def _complete(rows: list[Row]) -> bool:
    size = rows[0].cells.get("batch_size", "")
    return not size or float(size) == len(rows)


def _request(row: Row) -> tuple[str, ...]:
    if row.has("http_rid"):
        return (as_rid(row.cells["http_rid"]),)
    return tuple(row.cells.get(name, "") for name in _REQUEST)
