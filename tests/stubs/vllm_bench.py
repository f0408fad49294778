"""``vllm bench serve`` without its weight, for tests: what vLLM 0.32 is seen to do from outside.

Called like the real one, only the standard library needed::

    python tests/stubs/vllm_bench.py bench serve --base-url URL --model NAME --tokenizer FOLDER ...

It really sends the requests and leaves the same file. As with the real one, failed requests do not
fail the run: its exit code is 0 even when none succeeded. ``--stub MISHAP`` makes something go
wrong.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MISHAPS = (
    "hang",  # never ends, nor does its child
    "exit",  # ends with code 3 and a traceback, after it has written its result
    "killed",  # kills itself
    "no-result",  # writes none
    "torn",  # writes half of it
    "environment",  # writes its environment beside the result
)
_WORDS = [
    "time",
    "year",
    "people",
    "way",
    "day",
    "man",
    "thing",
    "woman",
    "life",
    "child",
    "world",
    "school",
    "state",
    "family",
]


@dataclass
class Output:
    """One request, as the real one keeps it. Times in seconds."""

    prompt: str
    tokens: int
    prompt_len: int = 0
    output_tokens: int = 0
    ttft: float = 0.0
    latency: float = 0.0
    itl: list[float] = field(default_factory=list)
    error: str = ""
    success: bool = False
    start_time: float = 0.0
    text: str = ""


def send(options: argparse.Namespace, output: Output) -> None:
    """Ask, and note what comes back."""
    asked: dict[str, Any] = {"prompt": output.prompt, "max_tokens": output.tokens}
    if "chat" in options.backend:
        asked = {"messages": [{"role": "user", "content": output.prompt}]}
        asked["max_completion_tokens"] = output.tokens
    body = {"model": options.model, **asked, "stream": True}
    body |= {"stream_options": {"include_usage": True}, "ignore_eos": options.ignore_eos}
    request = urllib.request.Request(
        options.base_url + options.endpoint,
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    begin = latest = output.start_time = time.perf_counter()
    try:
        with urllib.request.urlopen(request) as response:
            for line in response:
                chunk = line.decode().removeprefix("data: ").strip()
                if not chunk or chunk == "[DONE]":
                    continue
                data = json.loads(chunk)
                now = time.perf_counter()
                if data.get("choices"):
                    output.text += data["choices"][0].get("text") or ""
                    if output.success:
                        output.itl.append(now - latest)
                    else:
                        output.ttft, output.success = now - begin, True
                    latest = now
                elif usage := data.get("usage"):
                    output.output_tokens = usage["completion_tokens"]
                    output.prompt_len = usage["prompt_tokens"]
        output.latency = latest - begin
    except urllib.error.HTTPError as refusal:
        output.error = str(refusal.reason)
    except Exception:
        output.success, output.error = False, traceback.format_exc()


def workload(options: argparse.Namespace) -> list[Output]:
    source = random.Random(options.seed)
    ratio = options.random_range_ratio

    def drawn(length: int) -> int:
        low, high = math.floor(length * (1 - ratio)), math.ceil(length * (1 + ratio))
        return source.randint(max(1, low), max(1, high))

    outputs = []
    for _ in range(options.num_prompts):
        words = source.choices(_WORDS, k=drawn(options.random_input_len))
        outputs.append(Output(" ".join(words), drawn(options.random_output_len), len(words)))
    return outputs


def benchmark(options: argparse.Namespace, outputs: Sequence[Output]) -> float:
    """Send all requests; how long that took."""
    source = random.Random(options.seed)
    places = threading.BoundedSemaphore(options.max_concurrency or len(outputs))

    def one(output: Output) -> None:
        with places:
            send(options, output)

    threads = [threading.Thread(target=one, args=(each,), daemon=True) for each in outputs]
    begin = time.perf_counter()
    for thread in threads:
        thread.start()
        if math.isfinite(options.request_rate):
            time.sleep(source.expovariate(options.request_rate))
    for thread in threads:
        thread.join()
    return time.perf_counter() - begin


def percentile(values: Sequence[float], percent: float) -> float:
    ordered = sorted(values or [0.0])
    position = percent / 100 * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def latencies(good: Sequence[Output]) -> dict[str, list[float]]:
    return {
        "ttft": [each.ttft for each in good],
        "tpot": [
            (each.latency - each.ttft) / (each.output_tokens - 1)
            for each in good
            if each.output_tokens > 1
        ],
        "itl": [gap for each in good for gap in each.itl],
        "e2el": [each.latency for each in good],
    }


def result(options: argparse.Namespace, outputs: Sequence[Output], duration: float) -> Any:
    """The document with the keys of the real one, in its order."""
    good = [each for each in outputs if each.success]
    tokens_in = sum(each.prompt_len for each in good)
    tokens_out = sum(each.output_tokens for each in good)
    values = latencies(good)
    rate = options.request_rate
    document: dict[str, Any] = {
        "date": time.strftime("%Y%m%d-%H%M%S"),
        "endpoint_type": options.backend,
        "backend": options.backend,
        "label": None,
        "model_id": options.model,
        "tokenizer_id": options.tokenizer,
        "num_prompts": options.num_prompts,
        "request_rate": rate if math.isfinite(rate) else "inf",
        "burstiness": 1.0,
        "max_concurrency": options.max_concurrency,
        "duration": duration,
        "completed": len(good),
        "failed": len(outputs) - len(good),
        "total_input_tokens": tokens_in,
        "total_output_tokens": tokens_out,
        "request_throughput": len(good) / duration,
        "request_goodput": kept(options.goodput, good) / duration if options.goodput else None,
        "output_throughput": tokens_out / duration,
        "total_token_throughput": (tokens_in + tokens_out) / duration,
        "input_lens": [each.prompt_len for each in outputs],
        "output_lens": [each.output_tokens for each in outputs],
        "ttfts": [each.ttft for each in outputs],
        "itls": [each.itl for each in outputs],
        "latencies": [each.latency for each in outputs],
        "start_times": [each.start_time for each in outputs],
        "queue_times": [0.0 for _ in outputs],
        "generated_texts": [each.text for each in outputs],
        "errors": [each.error for each in outputs],
        "max_output_tokens_per_s": 0.0,
        "max_concurrent_requests": 0,
        "rtfx": 0.0,
    }
    if not options.save_detailed:
        for name in ("input_lens", "output_lens", "ttfts", "itls", "generated_texts", "errors"):
            del document[name]
    for name in options.percentile_metrics.split(","):
        milliseconds = [1000 * value for value in values[name]]
        document[f"mean_{name}_ms"] = statistics.fmean(milliseconds or [0.0])
        document[f"median_{name}_ms"] = percentile(milliseconds, 50)
        document[f"std_{name}_ms"] = statistics.pstdev(milliseconds or [0.0])
        for percent in options.metric_percentiles.split(","):
            document[f"p{percent}_{name}_ms"] = percentile(milliseconds, float(percent))
    return document


def kept(bounds: Sequence[str], good: Sequence[Output]) -> int:
    """How many requests kept every bound, each ``ttft:200`` in milliseconds."""
    wanted = {name: float(value) / 1000 for name, value in (one.split(":") for one in bounds)}
    return sum(
        each.ttft <= wanted.get("ttft", math.inf) and each.latency <= wanted.get("e2el", math.inf)
        for each in good
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="vllm", allow_abbrev=False)
    parser.add_argument("words", nargs=2)
    parser.add_argument("--base-url", required=True)
    parser.add_argument("--backend", default="openai")
    parser.add_argument("--endpoint", default="/v1/completions")
    parser.add_argument("--model", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--dataset-name", choices=["random"], default="random")
    parser.add_argument("--num-prompts", type=int, default=1000)
    parser.add_argument("--num-warmups", type=int, default=0)
    parser.add_argument("--random-input-len", type=int, default=1024)
    parser.add_argument("--random-output-len", type=int, default=128)
    parser.add_argument("--random-range-ratio", type=float, default=0.0)
    parser.add_argument("--request-rate", type=float, default=math.inf)
    parser.add_argument("--max-concurrency", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--goodput", nargs="+")
    parser.add_argument("--percentile-metrics", default="ttft,tpot,itl")
    parser.add_argument("--metric-percentiles", default="99")
    parser.add_argument("--result-dir")
    parser.add_argument("--result-filename")
    for flag in ("ignore-eos", "save-result", "save-detailed", "disable-tqdm"):
        parser.add_argument(f"--{flag}", action="store_true")
    parser.add_argument("--stub", choices=MISHAPS, default="")
    return parser.parse_args()


def go_wrong(kind: str, folder: Path) -> None:
    """What goes wrong before anything is sent."""
    if kind == "hang":
        child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        subprocess.Popen([sys.executable, "-c", child + "time.sleep(3600)"])
        time.sleep(3600)
    if kind == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "environment":
        (folder / "environment.json").write_text(json.dumps(dict(os.environ)))


def main() -> None:
    options = arguments()
    folder = Path(options.result_dir)
    go_wrong(options.stub, folder)
    outputs = workload(options)
    for _ in range(options.num_warmups):
        send(options, Output(outputs[0].prompt, outputs[0].tokens))
    print("Starting main benchmark run...", flush=True)
    duration = benchmark(options, outputs)
    if failed := [each for each in outputs if not each.success]:
        print("Failed requests during benchmark run detected (capping to 10):")
        for index, each in enumerate(failed[:10]):
            print(f"Error {index}: {each.error}")
    print("============ Serving Benchmark Result ============", flush=True)
    text = json.dumps(result(options, outputs, duration))
    if options.save_result and options.stub != "no-result":
        kept_text = text[: len(text) // 2] if options.stub == "torn" else text
        (folder / options.result_filename).write_text(kept_text)
    if options.stub == "exit":
        raise RuntimeError("the stub fails")


if __name__ == "__main__":
    main()
