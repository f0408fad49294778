"""engine: {type: my-engine, program: [...], threads: 4}: a server that speaks OpenAI's protocol."""

from __future__ import annotations

import shutil
from typing import Any, Literal

from pydantic import Field

from trainables.engines import Deployment, Engine, EngineOptions, Launch, Symptom


class MyOptions(EngineOptions):
    type: Literal["my-engine"] = "my-engine"
    program: list[str] = Field(min_length=1)
    threads: int = 4


class MyEngine(Engine):
    Options = MyOptions
    options: MyOptions
    symptoms = (Symptom("out_of_memory", r"cannot allocate .*", "lower max-num-seqs"),)

    def launch(self, deployment: Deployment) -> Launch:
        tuned = {"threads": self.options.threads, **deployment.options}
        flags = [word for name, value in tuned.items() for word in (f"--{name}", str(value))]
        place = ["--host", deployment.host, "--port", str(deployment.port)]
        named = ["--served-model-name", deployment.served_name]
        argv = [*self.options.program, "serve", str(deployment.model), *place, *named, *flags]
        return Launch(tuple(argv), {k: str(v) for k, v in deployment.env.items()})

    def identity(self) -> Any:
        return {
            "type": "my-engine",
            "program": self.options.program,
            "threads": self.options.threads,
        }

    def problems(self) -> list[tuple[str, str]]:
        if shutil.which(self.options.program[0]):
            return []
        return [("program", f"there is no program {self.options.program[0]!r} here")]
