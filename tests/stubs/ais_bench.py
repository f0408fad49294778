"""AISBench without its weight, for tests: what the real 3.1 is seen to do from outside.

Called like the real one, only the standard library needed::

    python tests/stubs/ais_bench.py --models M --datasets D --mode all --work-dir W --config-dir C

It reads the same configuration files (whatever they import is made up), asks the served model over
HTTP, and leaves the same folders, tables and logs. As with the real one, failed requests are wrong
answers, and a run that got nowhere ends with exit code 0 and ``-`` in its summary. Datasets are
``.jsonl`` files of ``{"question", "answer"}``. ``--stub MISHAP`` makes something go wrong. What it
does in the mode ``perf`` is in ``ais_bench_perf.py``.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from types import ModuleType
from typing import Any

import ais_bench_perf

MISHAPS = (
    "hang",  # never ends, nor does its child
    "exit",  # ends with code 3 and a traceback
    "killed",  # kills itself after the first dataset
    "no-folder",  # does not say where its results are
    "no-results",  # leaves a summary, but no result
    "bad-json",  # leaves half a result
    "no-number",  # leaves a result without a number
    "other-key",  # calls its metric score
    "nan",  # leaves a result that is no number
    "lost-answers",  # loses one answer and says so in the log of its evaluation only
    "worker-killed",  # the inference ends without a word
    "environment",  # writes its environment into its folder
    *ais_bench_perf.MISHAPS,
)
_MODEL_KEYS = [
    "attr",
    "type",
    "abbr",
    "path",
    "model",
    "stream",
    "request_rate",
    "use_timestamp",
    "retry",
    "api_key",
    "host_ip",
    "host_port",
    "url",
    "max_out_len",
    "batch_size",
    "trust_remote_code",
    "generation_kwargs",
    "pred_postprocessor",
    "returns_tool_calls",
    "traffic_cfg",
]
_HELP = "| Visit \x1b[4m\x1b[35mhttps://example.invalid/error_codes.html\x1b[0m for further help."


class _Made(ModuleType):
    """Any module of AISBench: its attributes are their own names."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Config:
    """Reads configurations as those read each other."""

    @staticmethod
    def fromfile(file: str) -> dict[str, Any]:
        return read_config(Path(file))


class _Maker:
    """Finds every module below ``ais_bench``, and the one that reads configurations."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        from importlib.machinery import ModuleSpec

        made = name.split(".")[0] in ("ais_bench", "mmengine")
        return ModuleSpec(name, self, is_package=True) if made else None  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> ModuleType:
        return _Made(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        module.__dict__["Config"] = _Config


@dataclass
class Run:
    """One run and its folder."""

    folder: Path
    model: dict[str, Any]
    mishap: str
    details: bool
    rows: list[list[str]] = field(default_factory=list)

    @property
    def abbr(self) -> str:
        return str(self.model["abbr"])

    def file(self, *parts: str) -> Path:
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def log(self, phase: str, dataset: str, text: str) -> None:
        with self.file("logs", phase, self.abbr, f"{dataset}.out").open("a") as stream:
            stream.write(text + "\n")


def say(text: str, level: str = "\x1b[32mINFO\x1b[0m") -> None:
    now = time.strftime("%Y-%m-%d %H:%M:%S,000")
    print(f"[{now}] [ais_bench] [{level}] {text}", file=sys.stderr, flush=True)


def configuration(folders: Sequence[Path], name: str) -> dict[str, Any]:
    """The names that a configuration file defines; ends the program unless there is just one."""
    files = [
        file
        for folder in folders
        for file in sorted(Path(folder).rglob("*.py"))
        if fnmatch(file.name.lower(), f"{name}.py".lower())
    ]
    if len(files) != 1:
        print("Traceback (most recent call last):", file=sys.stderr)
        print(
            "ais_bench.benchmark.utils.logging.exceptions.FileMatchError: "
            "[\x1b[1m\x1b[41m\x1b[33mUTILS-MATCH-001\x1b[0m][match config file failed]. The "
            "provided pattern matches 0 or more than one config.\n"
            f"+---+\n| Not matched patterns   |\n|---|\n| {name} |\n+---+\n {_HELP}",
            file=sys.stderr,
        )
        sys.exit(1)
    return read_config(files[0])


def read_config(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"__file__": str(file)}
    exec(compile(file.read_text(), str(file), "exec"), found)
    return found


def ask(model: dict[str, Any], question: str) -> tuple[str, str]:
    """Answer and error; one of them is empty, unless the model has nothing to say."""
    chat = "Chat" in str(model["type"])
    path = "v1/chat/completions" if chat else "v1/completions"
    asked: dict[str, Any] = {"prompt": question}
    if chat:
        asked = {"messages": [{"role": "user", "content": question}]}
    body = {**asked, **model["generation_kwargs"], "stream": False}
    body |= {"max_tokens": model["max_out_len"], "model": model["model"]}
    host = model["host_ip"]
    request = urllib.request.Request(
        f"http://{f'[{host}]' if ':' in host else host}:{model['host_port']}/{path}",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    error = ""
    for attempt in range(1, int(model["retry"]) + 1):
        try:
            with opener.open(request) as response:
                choice = json.load(response)["choices"][0]
            return (choice["message"]["content"] if chat else choice["text"]), ""
        except urllib.error.HTTPError as refusal:
            return "", str(refusal.reason)
        except OSError:
            error = (
                f"After {attempt} retries, request failed with exception: ClientConnectorError: "
                f"Cannot connect to host {host}:{model['host_port']} ssl:default "
                f"[Connect call failed ('127.0.0.1', {model['host_port']})]"
            )
    return "", error


def infer(run: Run, dataset: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The items with their predictions, None where they failed; None when there is nothing."""
    name = dataset["abbr"]
    run.log("infer", name, f"[ais_bench] [INFO] Task [{run.abbr}/{name}]")
    if unknown := set(run.model) - set(_MODEL_KEYS):
        said = f"{run.model['type']}.__init__() got an unexpected keyword argument"
        run.log("infer", name, f"Traceback:\nTypeError: {said} {sorted(unknown)[0]!r}")
        return None
    path = Path(dataset["path"])
    if not path.is_file():
        said = f"FileExistsError: Dataset path: {path} is not exist! Please check section"
        run.log("infer", name, f"Traceback (most recent call last):\n{said}")
        return None
    items = [json.loads(line) for line in path.read_text().splitlines()]
    _, warm = ask(run.model, items[0]["question"])
    if warm:
        said = (
            "ais_bench.benchmark.utils.logging.exceptions.AISBenchRuntimeError: "
            "[\x1b[1m\x1b[41m\x1b[33mTINFER-RUNTIME-001\x1b[0m][warmup failed]. Exit task because "
            f"all warmup requests failed, failed reasons: {{{warm!r}: 1}} {_HELP}"
        )
        run.log("infer", name, f"Traceback (most recent call last):\n{said}")
        return None
    if run.mishap == "worker-killed":
        return None
    for index, item in enumerate(items):
        item["prediction"], error = ask(run.model, item["question"])
        kept = "jsonl" if not error else "failed"
        line = {"data_abbr": name, "id": index, "success": True, "origin_prompt": item["question"]}
        line |= {"prediction": item["prediction"], "gold": item["answer"]}
        if error:
            line = {"data_abbr": name, "id": index, "input": item["question"]}
            line["error_info"] = error
        if run.mishap == "lost-answers" and index == 0:
            said = "Total 1 data are not in the predictions. These data may failed in inference."
            run.log("eval", name, f"[ais_bench] [WARNING] {said}")
            continue
        ending = ".jsonl" if kept == "jsonl" else "_failed.jsonl"
        with run.file("predictions", run.abbr, f"{name}{ending}").open("a") as stream:
            stream.write(json.dumps(line) + "\n")
    return items


def evaluate(run: Run, dataset: dict[str, Any], items: list[dict[str, Any]] | None) -> None:
    name = dataset["abbr"]
    nothing = [name, "-", "-", "-", "-"]
    answered = run.folder / "predictions" / run.abbr / f"{name}.jsonl"
    if items is None or not answered.exists():
        run.log("eval", name, f"[WARNING] Task {run.abbr}/{name}: No predictions found.")
        run.rows.append(nothing)
        return
    right = [item["prediction"].strip() == item["answer"] for item in items]
    accuracy = 100 * sum(right) / len(right)
    key = "score" if run.mishap == "other-key" else "accuracy"
    result: dict[str, Any] = {key: accuracy}
    if run.details:
        result["details"] = {str(index): {"correct": each} for index, each in enumerate(right)}
        result["type"] = "GEN"
    text = json.dumps(result, indent=4)
    text = {"bad-json": text[:-3], "no-number": "{}", "nan": '{"accuracy": NaN}'}.get(
        run.mishap, text
    )
    if run.mishap != "no-results":
        run.file("results", run.abbr, f"{name}.json").write_text(text)
    run.rows.append([name, "36f20d", key, "gen", f"{accuracy:.2f}"])


def summarize(run: Run, stamp: str) -> None:
    table = [["dataset", "version", "metric", "mode", run.abbr], *run.rows]
    lines = "\n".join(",".join(row) for row in table)
    run.file("summary", f"summary_{stamp}.csv").write_text(lines)
    print("\x1b[?1049h\x1b[22;0;0t" + "\n".join("  ".join(row) for row in table), flush=True)


def search(places: Sequence[Path], name: str) -> None:
    """Say where a model's configuration is."""
    files = [file for place in places for file in (place / "models").rglob(f"{name}.py")]
    for file in files:
        print(f"│ --models    │ {name} │ {file} │", flush=True)


def mishap(kind: str, folder: Path) -> None:
    """What goes wrong before anything is asked."""
    if kind == "environment":
        folder.mkdir(parents=True)
        (folder / "environment.json").write_text(json.dumps(dict(os.environ)))
    if kind == "hang":
        child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        subprocess.Popen([sys.executable, "-c", child + "time.sleep(3600)"])
        print("hanging", flush=True)
        time.sleep(3600)
    if kind == "exit":
        print("Traceback (most recent call last):\nRuntimeError: the stub fails", file=sys.stderr)
        sys.exit(3)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", nargs="+", required=True)
    parser.add_argument("--datasets", nargs="+", default=[])
    parser.add_argument("--custom-dataset-path")
    parser.add_argument("--summarizer")
    parser.add_argument("--num-prompts", type=int)
    parser.add_argument("--num-warmups", type=int, default=1)
    parser.add_argument("--debug", action="store_true")
    parser.add_argument("-s", "--search", action="store_true")
    parser.add_argument("-m", "--mode", default="all")
    parser.add_argument("-w", "--work-dir", default="outputs/default")
    parser.add_argument("--config-dir", default="configs")
    parser.add_argument("--dump-eval-details", action="store_true")
    parser.add_argument("--stub", choices=MISHAPS, default="")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    sys.meta_path.insert(0, _Maker())  # type: ignore[arg-type]
    # The real one finds configurations among its own as well.
    places = [Path(options.config_dir), *map(Path, os.environ.get("STUB_CONFIGS", "").split())]
    if options.search:
        search(places, options.models[0])
        return
    model = configuration([place / "models" for place in places], options.models[0])["models"][0]
    datasets: list[dict[str, Any]] = []
    if options.custom_dataset_path:
        path = Path(options.custom_dataset_path)
        datasets.append({"abbr": path.name.split(".")[0], "path": str(path)})
    for wanted in options.datasets:
        name, _, ending = wanted.partition("/")
        found = configuration([place / "datasets" for place in places], name)
        for key, value in found.items():
            if key.endswith(ending or "_datasets"):
                datasets += value
    stamp = time.strftime("%Y%m%d_%H%M%S")
    run = Run(Path(options.work_dir) / stamp, model, options.stub, options.dump_eval_details)
    if options.stub != "no-folder":
        say(f"Current exp folder: {run.folder}")
    mishap(options.stub, run.folder)
    if options.mode == "perf":
        ais_bench_perf.run(run.folder, model, datasets, options)
        return
    for dataset in datasets:
        evaluate(run, dataset, infer(run, dataset))
        if options.stub == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
    summarize(run, stamp)


if __name__ == "__main__":
    main()
