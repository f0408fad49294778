"""Records every iteration of a live vLLM, without a changed file of it.

It is a plug-in of vLLM's group ``vllm.general_plugins`` (vLLM's documentation, "Plugin System"),
which every process of the engine loads before it makes a scheduler. Needs nothing but Python's
standard library, 3.9 or later, and no installation: a folder in ``PYTHONPATH`` is enough. By hand,
on a machine where only this file is::

    eval "$(python record_vllm.py /tmp/recorder /data/iterations.jsonl)"
    vllm serve ...

Why so: ``--scheduler-cls`` is overwritten by vLLM 0.10 with asynchronous scheduling and by
vllm-ascend whenever one of its own schedulers is on; ``--worker-extension-cls`` sees no scheduler;
the iteration details that recent versions can log lack the contexts. A plug-in sees whichever
scheduler is made, asynchronous or not, as long as it descends from vLLM's ``Scheduler``, and only
watches two methods of it: what ``schedule`` returns, and when ``update_from_output`` is called with
the outcome. The attributes that it reads are there in 0.8.4 as in 0.32.

Each start of an engine, and each data-parallel rank of it, writes a pair of files of its own, the
first of ``iterations.jsonl``, ``iterations-2.jsonl``, ... that is not there yet, and beside it
``iterations.json`` with the engine's settings (:func:`settings_of`). A line is one iteration::

    {"prefills": [[tokens, context], ...], "decodes": [context, ...], "seconds": 0.012,
     "at": 1764294231.25, "gap": 0.0004, "cpu": 0.0021, "running": 8, "waiting": 0}

``seconds`` go from when the batch was scheduled, or the outcome of the one before it had arrived if
that was later, to the arrival of its own outcome: with asynchronous scheduling, iterations overlap,
and this is the time that the device had for this one alone. ``at`` is its begin as Unix time, and
``gap`` what had passed since the end of the one before, null if the engine had nothing to do.
``cpu`` are the seconds of CPU that the process of the scheduler used meanwhile.
``running`` and ``waiting`` are sequences after it was scheduled. A part of a prompt, what is
computed again after a preemption, and the tokens of speculative decoding are ``prefills``.

Lines are written by a thread, once a second and when the engine has nothing to do any more: vLLM
kills its own engine process soon after it was asked to end. Whatever goes wrong ends the recording
with one line in the log, never the engine; so does a file of 256 MiB (or
``NPU_TUNER_ITERATIONS_BYTES``).
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import shlex
import shutil
import sys
import threading
import time
from collections import deque
from importlib import import_module
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FILE_VARIABLE = "NPU_TUNER_ITERATIONS"
BYTES_VARIABLE = "NPU_TUNER_ITERATIONS_BYTES"
PLUGIN = "npu_tuner_record_vllm"
"""Name of the plug-in, and of its module where it is installed."""

FLUSH_SECONDS = 1.0
MOST_BYTES = 256 * 1024 * 1024
MOST_PENDING = 10_000
"""Iterations that may wait for the disk."""
_MOST_IN_FLIGHT = 64
_LAST_WRITE_SECONDS = 5.0
_MOST_FILES = 10_000
_MARK = "_npu_tuner_records"
_GROUP = "vllm.general_plugins"
_WATCHED = ("schedule", "update_from_output", "shutdown")

_log = logging.getLogger("vllm." + PLUGIN)


class Recorder:
    """Turns what a scheduler decides, and when, into records.

    Args:
        write: Takes one record.
        clock: Seconds that never go backwards, and that records tell as ``at``.
        cpu: Seconds of CPU that the process has used.

    Attributes:
        busy: Whether the engine had work left after the last iteration.
    """

    def __init__(
        self,
        write: Callable[[dict[str, Any]], None],
        clock: Callable[[], float],
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self._write, self._clock, self._cpu = write, clock, cpu
        self._in_flight: deque[tuple[Any, float, float, dict[str, Any]]] = deque(
            maxlen=_MOST_IN_FLIGHT
        )
        self._ended = self._used = 0.0
        self.busy = False

    def scheduled(self, scheduler: Any, output: Any) -> None:
        """``schedule`` has returned ``output``."""
        if output.total_num_scheduled_tokens == 0:
            return
        prefills, decodes = composition(scheduler, output)
        record = {"prefills": prefills, "decodes": decodes}
        record["running"], record["waiting"] = len(scheduler.running), len(scheduler.waiting)
        self._in_flight.append((output, self._clock(), self._cpu(), record))

    def arrived(self, output: Any) -> None:
        """The outcome of ``output`` is there."""
        now, used = self._clock(), self._cpu()
        if all(output is not flying[0] for flying in self._in_flight):
            return
        candidate, scheduled, used_then, record = self._in_flight.popleft()
        while candidate is not output:
            candidate, scheduled, used_then, record = self._in_flight.popleft()
        begin = max(scheduled, self._ended)
        record["seconds"], record["at"] = round(now - begin, 7), round(begin, 6)
        record["gap"] = round(begin - self._ended, 7) if self.busy else None
        record["cpu"] = round(used - max(used_then, self._used), 7)
        self._ended, self._used = now, used
        self._write(record)

    def updated(self, scheduler: Any) -> None:
        """``update_from_output`` has returned."""
        self.busy = bool(scheduler.has_unfinished_requests())


def composition(scheduler: Any, output: Any) -> tuple[list[list[int]], list[int]]:
    """Chunks as [tokens, context], and contexts of decoding sequences, in the order in which they
    were scheduled."""
    prefills: list[list[int]] = []
    decodes: list[int] = []
    contexts = _contexts(output)
    for identity, tokens in output.num_scheduled_tokens.items():
        context = contexts[identity]
        if tokens == 1 and context >= scheduler.requests[identity].num_prompt_tokens:
            decodes.append(context)
        else:
            prefills.append([tokens, context])
    return prefills, decodes


def _contexts(output: Any) -> dict[str, int]:
    """Of each request of a batch, its tokens in the KV cache before it."""
    found = {one.req_id: one.num_computed_tokens for one in output.scheduled_new_reqs}
    cached = output.scheduled_cached_reqs
    if isinstance(cached, list):  # in old versions, one object for each request
        return {**found, **{one.req_id: one.num_computed_tokens for one in cached}}
    return {**found, **dict(zip(cached.req_ids, cached.num_computed_tokens))}  # noqa: B905


def settings_of(scheduler: Any) -> dict[str, Any]:
    """What decides how an engine schedules and how fast it is; None where it does not say."""
    config = scheduler.vllm_config

    def value(path: str) -> Any:
        found = config
        for name in path.split("."):
            found = getattr(found, name, None)
        return found

    blocks = value("cache_config.num_gpu_blocks")
    return {
        "model": value("model_config.model"),
        "architecture": (value("model_config.hf_config.architectures") or [None])[0],
        "dtype": _text(value("model_config.dtype")),
        "quantization": _text(value("model_config.quantization")),
        "kv_dtype": _text(value("cache_config.cache_dtype")),
        "tensor_parallel": value("parallel_config.tensor_parallel_size"),
        "pipeline_parallel": value("parallel_config.pipeline_parallel_size"),
        "data_parallel": value("parallel_config.data_parallel_size"),
        "data_parallel_rank": value("parallel_config.data_parallel_rank"),
        "expert_parallel": value("parallel_config.enable_expert_parallel"),
        "eager": value("model_config.enforce_eager"),
        "graph_sizes": value("compilation_config.cudagraph_capture_sizes"),
        "max_model_len": value("model_config.max_model_len"),
        "max_num_seqs": value("scheduler_config.max_num_seqs"),
        "max_num_batched_tokens": value("scheduler_config.max_num_batched_tokens"),
        "long_prefill_token_threshold": value("scheduler_config.long_prefill_token_threshold"),
        "chunked_prefill": value("scheduler_config.enable_chunked_prefill"),
        "reserve_full_prompt": value("scheduler_config.scheduler_reserve_full_isl"),
        "watermark": value("scheduler_config.watermark"),
        "policy": _text(value("scheduler_config.policy")),
        "async_scheduling": value("scheduler_config.async_scheduling"),
        "prefix_caching": value("cache_config.enable_prefix_caching"),
        "block_size": getattr(scheduler, "block_size", None) or value("cache_config.block_size"),
        # One of vLLM's blocks is never given to a sequence.
        "num_blocks": blocks - 1 if isinstance(blocks, int) else None,
        "speculative_tokens": value("speculative_config.num_speculative_tokens"),
        "device": value("device_config.device_type"),
        "scheduler": f"{type(scheduler).__module__}.{type(scheduler).__qualname__}",
        "version": getattr(sys.modules.get("vllm"), "__version__", None),
    }


def _text(value: Any) -> str | None:
    return None if value is None else str(getattr(value, "value", value)).replace("torch.", "")


class LineWriter:
    """Appends records to a file, as JSON lines, from a thread of its own.

    Args:
        stream: Open for appending, unbuffered; is closed in the end.
        most_bytes: Longer it never becomes.
    """

    def __init__(self, stream: IO[bytes], most_bytes: int) -> None:
        self._error = ""
        self._stream, self._left = stream, most_bytes
        self._pending: deque[dict[str, Any]] = deque()
        self._ends = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=PLUGIN, daemon=True)
        self._thread.start()

    def write(self, record: dict[str, Any]) -> None:
        """Take a record. Raises ``RuntimeError`` when the thread cannot write, or not so fast."""
        if not self._error and len(self._pending) >= MOST_PENDING:
            self._error = f"{MOST_PENDING} iterations wait to be written"
        if self._error:
            raise RuntimeError(self._error)
        self._pending.append(record)

    def hurry(self) -> None:
        """Have what there is written now."""
        self._wake.set()

    def close(self, wait: float) -> None:
        """Have what there is written and the file closed, and wait so many seconds for that."""
        self._ends = True
        self._wake.set()
        self._thread.join(wait)

    def _run(self) -> None:
        try:
            with self._stream:
                while not self._ends:
                    self._wake.wait(FLUSH_SECONDS)
                    self._wake.clear()
                    self._write_pending()
                self._write_pending()
        except Exception as error:
            self._error = f"{type(error).__name__}: {error}"

    def _write_pending(self) -> None:
        lines = []
        while self._pending:
            line = json.dumps(self._pending.popleft(), separators=(",", ":")) + "\n"
            self._left -= len(line)
            if self._left < 0:
                self._error = f"the file has reached its limit; {BYTES_VARIABLE} sets another one"
                self._pending.clear()
                break
            lines.append(line)
        data = "".join(lines).encode("ascii")
        if data and self._stream.write(data) != len(data):
            raise OSError("the disk took only a part of it")


class Watch:
    """Records one scheduler until it is shut down, or something goes wrong."""

    def __init__(self, scheduler: Any, file: Path, most_bytes: int) -> None:
        settings = json.dumps(settings_of(scheduler), indent=1)
        stream, self.file = _open_new(file)
        self.file.with_suffix(".json").write_text(settings + "\n", encoding="utf-8")
        self._writer = LineWriter(stream, most_bytes)
        offset = time.time() - time.perf_counter()
        self._recorder = Recorder(self._writer.write, lambda: time.perf_counter() + offset)
        self._scheduler = scheduler
        self._own: dict[str, Any] = {name: getattr(scheduler, name, None) for name in _WATCHED}
        for name in _WATCHED:
            if self._own[name] is not None:
                setattr(scheduler, name, getattr(self, name))
        atexit.register(self._writer.close, _LAST_WRITE_SECONDS)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        output = self._own["schedule"](*args, **kwargs)
        self._safely(self._recorder.scheduled, self._scheduler, output)
        return output

    def update_from_output(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        self._safely(self._recorder.arrived, scheduler_output)
        result = self._own["update_from_output"](scheduler_output, *args, **kwargs)
        self._safely(self._updated)
        return result

    def shutdown(self, *args: Any, **kwargs: Any) -> Any:
        self._end(_LAST_WRITE_SECONDS)
        return self._own["shutdown"](*args, **kwargs)

    def _updated(self) -> None:
        self._recorder.updated(self._scheduler)
        if not self._recorder.busy:
            self._writer.hurry()

    def _safely(self, do: Callable[..., None], *args: Any) -> None:
        try:
            do(*args)
        except Exception as error:
            if "schedule" in vars(self._scheduler):
                self._end(0)
                said = f"{type(error).__name__}: {error}"
                _log.warning("iterations are no longer recorded to %s: %s", self.file, said)

    def _end(self, wait: float) -> None:
        for name in _WATCHED:
            vars(self._scheduler).pop(name, None)
        self._writer.close(wait)


def _open_new(file: Path) -> tuple[IO[bytes], Path]:
    """A new file of that name, or of that name with a number."""
    for number in range(1, _MOST_FILES):
        name = file if number == 1 else file.with_name(f"{file.stem}-{number}{file.suffix}")
        try:
            return name.open("xb", buffering=0), name
        except FileExistsError:
            continue
    raise OSError(f"there are {_MOST_FILES} files beside {file}")


def register() -> None:
    """What vLLM calls in each of its processes: has schedulers watched that are made later on."""
    file = os.environ.get(FILE_VARIABLE)
    if not file:
        return
    try:
        most_bytes = int(os.environ.get(BYTES_VARIABLE) or MOST_BYTES)
        module = import_module("vllm.v1.core.sched.scheduler")
        watch_schedulers(_root(module.Scheduler, module.__name__), Path(file), most_bytes)
    except Exception as error:
        _log.warning("iterations are not recorded: %s: %s", type(error).__name__, error)


def _root(scheduler: type, module: str) -> type:
    """vLLM's own class where a platform has put another one in its place."""
    return next(c for c in reversed(scheduler.__mro__) if c.__module__ == module)


def watch_schedulers(kind: type, file: Path, most_bytes: int = MOST_BYTES) -> None:
    """Have each scheduler of this class, and of what descends from it, recorded once it is made."""
    if _MARK in vars(kind):
        return
    initialize = kind.__init__  # type: ignore[misc]

    def initialize_and_watch(self: Any, *args: Any, **kwargs: Any) -> None:
        initialize(self, *args, **kwargs)
        try:
            watch = Watch(self, file, most_bytes)
            _log.info("iterations are recorded to %s", watch.file)
        except Exception as error:
            _log.warning("iterations are not recorded: %s: %s", type(error).__name__, error)

    kind.__init__ = initialize_and_watch  # type: ignore[misc]
    setattr(kind, _MARK, True)


def install(folder: Path) -> None:
    """Put the plug-in into a folder, which ``PYTHONPATH`` then has to name."""
    information = folder / f"{PLUGIN}-1.0.dist-info"
    information.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(__file__, folder / f"{PLUGIN}.py")
    metadata = f"Metadata-Version: 2.1\nName: {PLUGIN}\nVersion: 1.0\n"
    (information / "METADATA").write_text(metadata, encoding="utf-8")
    entry = f"[{_GROUP}]\n{PLUGIN} = {PLUGIN}:register\n"
    (information / "entry_points.txt").write_text(entry, encoding="utf-8")


def variables(folder: Path, file: Path, now: Mapping[str, str]) -> dict[str, str]:
    """Variables that a vLLM needs to be recorded.

    Args:
        folder: Where the plug-in is installed.
        file: Where its first recording goes.
        now: Its variables without this.
    """
    path = [str(folder.absolute()), *filter(None, [now.get("PYTHONPATH")])]
    found = {"PYTHONPATH": os.pathsep.join(path), FILE_VARIABLE: str(file.absolute())}
    if "VLLM_PLUGINS" in now:  # the only ones that vLLM then loads
        found["VLLM_PLUGINS"] = ",".join([*filter(None, [now["VLLM_PLUGINS"]]), PLUGIN])
    return found


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit("usage: python record_vllm.py FOLDER_FOR_THE_PLUGIN FILE.jsonl")
    folder, file = map(Path, sys.argv[1:])
    install(folder)
    for name, value in variables(folder, file, os.environ).items():
        print(f"export {name}={shlex.quote(value)}")


if __name__ == "__main__":
    main()
