"""``kubectl`` for tests: asks the :class:`k8s_cluster.Cluster` at ``STUB_KUBERNETES``."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from pathlib import Path


def files_of(argv: list[str]) -> dict[str, str]:
    """The files that arguments name, by name; of a folder those in it, as the real one takes."""
    named = [word.partition("=")[2] for word in argv if word.startswith("--from-file=")]
    named += [argv[argv.index("-f") + 1]] if "-f" in argv and argv[0] != "logs" else []
    found: list[Path] = []
    for path in map(Path, named):
        found += [one for one in path.iterdir() if one.is_file()] if path.is_dir() else [path]
    return {file.name: file.read_text("utf-8") for file in found}


def main() -> int:
    argv = sys.argv[1:]
    body = json.dumps({"argv": argv, "files": files_of(argv)}).encode()
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(os.environ["STUB_KUBERNETES"], body) as response:
        if argv[:2] == ["logs", "-f"]:
            while part := response.read1():
                os.write(1, part)
            return 0
        code, output, errors = json.loads(response.read())
    sys.stdout.write(output)
    sys.stderr.write(errors)
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
