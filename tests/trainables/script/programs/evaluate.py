"""An evaluation that behaves as ``EVALUATION`` says, and says what it was told."""

import json
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

run, folder = int(os.environ["EVAL_RUN"]), Path(os.environ["EVAL_FOLDER"])
evaluation = os.environ.get("EVALUATION", "fine")
again = "again" in folder.name
(folder / "told.json").write_text(json.dumps({"argv": sys.argv[1:], "env": dict(os.environ)}))
if evaluation == "leave":
    nap = "import time; time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", nap], start_new_session=True)
if evaluation == "sleep":
    time.sleep(600)
path = "/die" if evaluation == "kill" and run == 2 else "/"
with suppress(HTTPError):
    urlopen(os.environ["BASE_URL"] + path, timeout=300)
if evaluation == "wait":
    Path(os.environ["WAITING"]).touch()
    while not Path(os.environ["GO"]).exists():
        time.sleep(0.02)
fails = evaluation == "fail" or (run == 2 and evaluation == "fail 2")
if fails or (run == 2 and evaluation == "fail 2 once" and not again):
    sys.exit("ValueError: no answers")
if evaluation == "silent":
    sys.exit()
level = int(os.environ.get("LEVEL", "0"))
accuracy = f"0.{80 + run}12" if level <= 5 else "0.5"
tokens_per_s = 7000 + 10 * run + 100 * level
result = {"scores": [{"value": run / 10}], "flag": True}
if evaluation != "no file":
    (folder / "result.json").write_text(json.dumps(result))
print("\x1b[32mloading\x1b[0m", file=sys.stderr)
print("Questions: 1200, OK: 1200, Total time: 31.50s")
print(f"Accuracy (RougeL-F1 mean, RAW): {accuracy}")
print("Accuracy (RougeL-F1 mean, RAW): 0.1")
print(f"Throughput RAW: answer_tokens/s=1900.12, (prompt+answer)_tokens/s={tokens_per_s}.5")
print(json.dumps(result))
