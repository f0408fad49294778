"""A quiz of 100 questions for the service at BASE_URL: how many answers are right, how fast."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.request import Request, urlopen

QUESTIONS = 100
AT_ONCE = 16
URL = os.environ["BASE_URL"]


def ask(number):
    question = {"number": number, "needs_tokens": 8 if number % 4 else 24}
    with urlopen(Request(URL, json.dumps(question).encode()), timeout=30) as response:
        return json.load(response)


begun = time.monotonic()
with ThreadPoolExecutor(AT_ONCE) as pool:
    answers = list(pool.map(ask, range(QUESTIONS)))
seconds = time.monotonic() - begun
right = sum(answer["answer"] == "right" for answer in answers)
tokens = sum(answer["tokens"] for answer in answers)
print(f"Accuracy: {right / QUESTIONS:.4f}")
print(f"Throughput: {tokens / seconds:.1f} tokens/s, {QUESTIONS} questions in {seconds:.2f} s")
