"""What engines say in their logs when they cannot start or go on."""

from __future__ import annotations

from trainables.engines._engine import Symptom

_DEVICE = Symptom(
    "device",
    r"(?:\w+Error: )?(?:CUDA error|NPU function error|Failed to infer device type"
    r"|No CUDA GPUs are available|Invalid device id|ACL stream synchronize failed)",
    "check the accelerator with npu-smi, and ASCEND_RT_VISIBLE_DEVICES",
)

VLLM_SYMPTOMS = (
    Symptom(
        "out_of_memory",
        r"(?:\w+Error: )?(?:Free|Available) memory on (?:device|node)[^\n]* is less than \w+ ",
        "end other programs on the device, or lower gpu-memory-utilization or the KV cache's size",
    ),
    Symptom(
        "out_of_memory",
        r"(?:\w+Error: )?(?:No available memory for the cache blocks"
        r"|To serve at least one request with the models?'s max"
        r"|The model's max(?:imum)? seq len[^\n]* is larger than the maximum number of tokens)",
        "lower max-model-len, or give the KV cache more memory (gpu-memory-utilization)",
    ),
    Symptom(
        "out_of_memory",
        r"(?:[\w.]*Error: )?(?:(?:CUDA|NPU|HIP|XPU) out of memory"
        r"|DefaultCPUAllocator: can't allocate)",
        "lower gpu-memory-utilization, max-num-seqs or max-num-batched-tokens, or use more devices",
    ),
    Symptom(
        "input",
        r"error: (?:unrecognized arguments|argument [^\n:]+:|the following arguments are required"
        r"|ambiguous option|one of the arguments)",
        "see engine.args: this version of the engine does not take it so",
    ),
    Symptom(
        "input",
        r"Value error, |(?:\w+Error: )?Model architectures \[[^\n]*\] (?:are not|failed)"
        r"|(?:\w+Error: )?(?:Unknown quantization method|Quantization method specified in the)",
        "the engine cannot serve this model with these engine.args",
    ),
    Symptom(
        "input",
        r"Error while finding module specification for|[^\s:]+: No module named \w"
        r"|ModuleNotFoundError: No module named 'vllm'",
        "engine.command or engine.entrypoint leads to an interpreter without this engine",
    ),
    _DEVICE,
)

ASCEND_SYMPTOMS = (
    Symptom(
        "out_of_memory",
        r"EL0004: |(?:ACL_ERROR_RT_MEMORY_ALLOCATION|error code is 207001)",
        "another program holds memory of the NPU; see npu-smi, or lower gpu-memory-utilization",
    ),
    Symptom(
        "device",
        r"\bE[A-KM-Z]\d{4}: |EL000[^4\n]: |HCCL function error|HcclComm\w+ (?:failed|error)"
        r"|(?:\w*Error: )?lib(?:ascend_hal|hccl|ascendcl)\.so[^\n]*: cannot open shared object",
        "look the code up in the CANN manual; check the NPU with npu-smi and its links",
    ),
)

MINDIE_SYMPTOMS = (
    *ASCEND_SYMPTOMS,
    _DEVICE,
    Symptom(
        "out_of_memory",
        r"(?:[\w.]*Error: )?(?:NPU out of memory|Warmup failed due to NPU out of memory"
        r"|Trying to create tensor with negative dimension|out of memory, need block)",
        "lower maxPrefillTokens, maxBatchSize or maxSeqLen, or change npuMemSize",
    ),
    Symptom(
        "startup",
        r"(?:Management or Business or Metrics )?Http server listen port is occupied",
        "another program took the port; leave engine.port out to have a free one chosen",
    ),
    Symptom(
        "input",
        r"JSON error in ConfigManager: |ConfigManager: (?:Get config path failed|Invalid config)"
        r"|Json file is invalid\.|Check path: [^\n]* failed, by:",
        "MindIE cannot read its config.json; only its owner may write it (mode 640 or less)",
    ),
    Symptom(
        "input",
        r"[\w.]+ \[-?\d+\] is (?:out of bound|less than|outside the expected) [^\n]*"
        r"|: missing compulsory field|The (?:type|value) of (?:param|element) [^\n]*should be"
        r"|The value of (?:ScheduleParam\.\w+|modelParam\.\w+|maxPrefillTokens) (?:can|should) not"
        r"|The size of npuDeviceIds|npu_ids in json is invalid|Model instance type is invalid",
        "MindIE does not take these values; see the positions of the tuned parameters and "
        "engine.config",
    ),
    Symptom(
        "input",
        r"ERR: model config\.json file is invalid|The \w+ path is invalid by: ",
        "MindIE cannot read the model's folder; it must belong to the user, mode 750 or less",
    ),
)
